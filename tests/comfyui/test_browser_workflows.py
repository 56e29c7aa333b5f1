"""Every example graph in a real browser, in both renderers: opened as a file, and by dropping its picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.graphs import DEMO, succeed
from comfyui.server import ROOT, Server

GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
EMPTY = {"nodes": [], "links": [], "version": 0.4}
SMALL = {"width": 128, "height": 128, "batch_size": 2}
# Sets widgets of the one node, saves what it draws, and gives the prompt of that.
ON_THE_DEMO = """async values => {
    const graph = app.rootGraph ?? app.graph;
    const [node] = graph.nodes;
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find(w => w.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
    const save = LiteGraph.createNode("SaveImage");
    graph.add(save);
    node.connect(0, save, 0);
    return (await app.graphToPrompt()).output;
}"""


@pytest.fixture(scope="module", params=list(RENDERERS))
def page(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, request.param)
    yield page
    page.close()


def assert_opened(page: Page, path: Path) -> None:
    """All nodes are there, and the page would save them as they were stored."""
    assert page.missing() == []
    stored, shown = json.loads(path.read_text(encoding="utf-8")), page.graph()
    assert shown["id"] == stored["id"]
    widgets = {node["id"]: node.get("widgets_values") or [] for node in shown["nodes"]}
    assert widgets == {node["id"]: node.get("widgets_values") or [] for node in stored["nodes"]}
    assert sorted(link[1:] for link in shown["links"]) == sorted(link[1:] for link in stored["links"])
    assert page.errors == []


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_it_opens(page: Page, path: Path) -> None:
    page.open(path)
    assert_opened(page, path)
    page.open(EMPTY)
    page.drop(path.with_suffix(".png"))
    assert_opened(page, path)


@pytest.mark.parametrize("name", ["Z-Image Turbo - Text to Image", "Z-Image Base - Text to Image"])
def test_a_blueprint_is_found_added_and_runs(page: Page, server: Server, name: str) -> None:
    """As a user adds it: a double click on the canvas, its name, Enter. Then the demo in its loaders, and a picture."""
    page.open(EMPTY)
    page.tab.mouse.dblclick(700, 700)
    page.tab.keyboard.type(name, delay=5)
    page.tab.get_by_text(name, exact=True).first.wait_for()
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_function("() => (app.rootGraph ?? app.graph).nodes.length === 1")
    page.tab.mouse.click(700, 700)  # it hangs on the pointer, in the newer page
    assert page.missing() == []
    variant = "Turbo" if "Turbo" in name else "Base"
    prompt = page.do(ON_THE_DEMO, {"model": f"{DEMO} ({variant})", "text_encoder": DEMO, "vae": DEMO, **SMALL})
    server.free()
    result = succeed(server.run(prompt))
    assert len(result.previews) == (8 if variant == "Turbo" else 30)
    (saved,) = [output["images"] for output in result.outputs.values() if "images" in output]
    assert len(saved) == 2
    assert page.errors == []
