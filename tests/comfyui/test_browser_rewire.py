"""The command "Use Z-Image nodes" in a real browser, in both renderers, on the graphs that ComfyUI ships."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.graphs import DEMO, succeed
from comfyui.server import Server

OURS = {"ZImageTransformerLoader", "ZImageTextEncoderLoader", "ZImageVAELoader", "ZImageSampler"}
SIZE = "ZImageLatentSize"
GONE = {"KSampler", "ModelSamplingAuraFlow", "ConditioningZeroOut"}
# By graph: what is ours after it, what stays of what is swapped elsewhere, and what the list must say.
GRAPHS: dict[str, tuple[set[str], set[str], list[str]]] = {
    "": (OURS | {SIZE}, set(), ["mode Turbo", "1024 px 1:1 - 1024x1024", "shift 3"]),
    "image_z_image_turbo": (OURS | {SIZE}, set(), ["mode Turbo", "size custom", "at cfg 1 no negative"]),
    "image_z_image": (OURS, {"EmptySD3LatentImage"}, ["mode Base", "its width comes from another node"]),
    "image_z_image_turbo_int8": (
        OURS - {"ZImageTransformerLoader"} | {SIZE},
        {"UNETLoader", "ModelSamplingAuraFlow"},
        ["z_image_turbo_int8_convrot.safetensors is in a form", "a loader or a sampler of ComfyUI"],
    ),
    "utility_z_image_turbo_2k_upscaler.app": (OURS, set(), ["denoise 0.33 became strength 0.596", "instead of beta"]),
}
UNKNOWN = """() => [app.rootGraph, ...app.rootGraph.subgraphs.values()].flatMap(graph => graph.nodes)
    .filter(node => !node.subgraph && !LiteGraph.registered_node_types[node.type]).map(node => node.type)"""
SWAPPED = {"UNETLoader", "CLIPLoader", "VAELoader", "EmptySD3LatentImage"} | GONE


@pytest.fixture(scope="module", params=list(RENDERERS))
def page(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, request.param)
    yield page
    page.close()


def open_template(page: Page, name: str) -> dict[str, Any]:
    """Opens what ComfyUI ships under a name, or the graph that it opens at first, and waits until it is laid out."""
    if name:
        try:
            page.open(page.server.get(f"/templates/{name}.json"))
        except HTTPError:
            pytest.skip(f"this ComfyUI ships no {name}")
    else:
        # Without files the page puts something else into its own graph's loader.
        page.do(
            """async () => {
                await app.loadGraphData();
                const loader = app.graph.nodes.find(node => node.type === "VAELoader");
                if (loader) loader.widgets[0].value = "ae.safetensors";
            }"""
        )
        if "UNETLoader" not in types(page.graph()):
            pytest.skip("this ComfyUI first opens a graph for another model")
    page.tab.wait_for_timeout(300)
    page.errors.clear()  # of pictures that a template asks for
    return page.graph()


def use(page: Page) -> str:
    """Runs the command and gives what it says."""
    page.do("() => { app.extensionManager.command.execute('ZImage.UseNodes'); }")
    box = page.tab.locator("[role=dialog]", has_text="Use Z-Image nodes")
    box.wait_for(timeout=10000)
    said = box.inner_text()
    box.get_by_text("OK", exact=True).click()
    box.wait_for(state="hidden")
    return said


def nodes(graph: dict[str, Any]) -> list[dict[str, Any]]:
    inner = graph.get("definitions", {}).get("subgraphs", [])
    return [node for part in (graph, *inner) for node in part["nodes"]]


def types(graph: dict[str, Any]) -> set[str]:
    return {node["type"] for node in nodes(graph)}


def content(page: Page, graph: dict[str, Any]) -> dict[str, Any]:
    """A graph without the view; the newer renderer also measures nodes anew whenever it draws them."""
    kept = json.loads(json.dumps(graph))
    kept["extra"].pop("ds", None)
    if page.do("() => app.extensionManager.setting.get('Comfy.VueNodes.Enabled')"):
        for node in nodes(kept):
            node.pop("size")
    return kept


def undo(page: Page, what: str = "Undo") -> dict[str, Any]:
    page.do("async name => { await app.extensionManager.command.execute(name); }", f"Comfy.{what}")
    page.tab.wait_for_timeout(200)
    return page.graph()


def prompt(page: Page) -> dict[str, Any]:
    return page.do("async () => (await app.graphToPrompt()).output")


def on_the_demo(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt with its loaders pointed at the demo, at the demo's size, in few steps."""
    variant = "Base" if "z_image_bf16" in json.dumps(prompt) else "Turbo"
    for node in prompt.values():
        inputs = node["inputs"]
        if "file" in inputs:
            inputs["file"] = f"{DEMO} ({variant})" if node["class_type"] == "ZImageTransformerLoader" else DEMO
        elif "mode.steps" in inputs:
            inputs["mode.steps"] = 2
        elif node["class_type"] == SIZE:
            node["inputs"] = {"size": "demo", "size.aspect": "1:1 - 128x128", "batch_size": 1}
        elif node["class_type"] == "EmptySD3LatentImage":
            node["inputs"] = {"width": 128, "height": 128, "batch_size": 1}
    return prompt


@pytest.mark.parametrize("name", GRAPHS, ids=lambda name: name or "default")
def test_a_graph_is_rewired_and_one_undo_brings_it_back(page: Page, name: str) -> None:
    ours, stays, words = GRAPHS[name]
    before = open_template(page, name)
    said = use(page)
    after = page.graph()
    assert {kind for kind in types(after) if kind.startswith("ZImage")} == ours
    assert types(after) & SWAPPED == stays
    assert [word for word in words if word not in said] == []
    assert page.do(UNKNOWN) == []
    assert content(page, undo(page)) == content(page, before)
    assert content(page, undo(page, "Redo")) == content(page, after)
    assert page.errors == []


@pytest.mark.parametrize("name", ["", "image_z_image_turbo", "image_z_image"], ids=lambda name: name or "default")
def test_what_comes_of_it_runs_and_survives_saving(page: Page, server: Server, name: str) -> None:
    open_template(page, name)
    use(page)
    sent = prompt(page)
    page.open(page.graph())
    assert prompt(page) == sent
    result = succeed(server.run(on_the_demo(sent)))
    assert any(output.get("images") for output in result.outputs.values())


def test_the_widgets_of_a_subgraph_go_on_to_work_through_two_of_them(page: Page) -> None:
    """Also from within: the graph on screen is not the outermost one when the command runs."""
    open_template(page, "image_z_image_turbo")
    page.do(
        """() => {
            const host = app.rootGraph.nodes.find(node => node.isSubgraphNode());
            app.rootGraph.convertToSubgraph(new Set([host]));
        }"""
    )
    outer = "app.rootGraph.nodes.find(node => node.isSubgraphNode())"
    page.do(f"() => app.canvas.openSubgraph({outer}.subgraph, {outer})")
    page.tab.wait_for_timeout(200)
    before = page.graph()
    use(page)
    assert page.do("() => app.canvas.graph !== app.rootGraph"), "the view is where it was"
    page.do("() => app.canvas.setGraph(app.rootGraph)")
    inside = "[...app.rootGraph.subgraphs.values()].flatMap(graph => graph.nodes)"
    for widget, value in {"steps": 5, "width": 1280, "unet_name": "other.safetensors", "text": "a boat"}.items():
        script = """([widget, value]) => {
            const hosts = [app.rootGraph, ...app.rootGraph.subgraphs.values()].flatMap(graph => graph.nodes);
            const held = hosts.filter(node => node.isSubgraphNode()).flatMap(node => node.widgets);
            for (const one of held.filter(one => one.name === widget)) { one.value = value; one.callback?.(value); }
        }"""
        page.do(script, [widget, value])
    found = {node["class_type"]: node["inputs"] for node in prompt(page).values()}
    assert (found["ZImageSampler"]["mode.steps"], found[SIZE]["size.width"]) == (5, 1280)
    assert found["ZImageTransformerLoader"]["file"] == "other.safetensors"
    assert found["CLIPTextEncode"]["text"] == "a boat"
    assert page.do(f"() => {inside}.some(node => node.type === 'ZImageSampler')")
    assert before != page.graph()


def test_only_what_is_chosen_is_swapped(page: Page) -> None:
    before = open_template(page, "")
    page.do("() => app.canvas.selectItems([app.graph.nodes.find(node => node.type === 'KSampler')])")
    said = use(page)
    after = page.graph()
    assert {kind for kind in types(after) if kind.startswith("ZImage")} == {"ZImageSampler"}
    assert "Load Diffusion Model" not in said
    sampler = next(node for node in after["nodes"] if node["type"] == "ZImageSampler")
    assert {slot["name"] for slot in sampler["inputs"] if slot["link"]} == {"model", "positive", "latent", "negative"}
    page.tab.keyboard.press("Control+z")
    page.tab.wait_for_timeout(500)
    assert content(page, page.graph()) == content(page, before)


def test_the_nodes_own_menu_offers_it_where_it_applies(page: Page) -> None:
    open_template(page, "")
    offered = """type => {
        const node = app.graph.nodes.find(node => node.type === type);
        return app.canvas.getNodeMenuOptions(node).some(item => item?.content === 'Use Z-Image nodes');
    }"""
    assert [page.do(offered, kind) for kind in ("KSampler", "VAELoader", "SaveImage")] == [True, True, False]


def test_where_there_is_nothing_to_change_nothing_is(page: Page) -> None:
    before = open_template(page, "image_flux2_klein_text_to_image")
    queue = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length"
    page.do("() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()")
    undoable = page.do(queue)
    assert "Nothing was changed" in use(page)
    assert page.do(queue) == undoable
    assert content(page, page.graph()) == content(page, before)
