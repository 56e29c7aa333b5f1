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
# Sets widgets of each node, saves what it draws, and gives the prompt of that.
ON_THE_DEMO = """async given => {
    const graph = app.rootGraph ?? app.graph;
    for (const [title, values] of Object.entries(given)) {
        const node = graph.nodes.find(n => n.title === title);
        for (const [name, value] of Object.entries(values)) {
            const widget = node.widgets.find(w => w.name === name);
            widget.value = value;
            widget.callback?.(value);
        }
        const save = LiteGraph.createNode("SaveImage");
        graph.add(save);
        node.connect(0, save, 0);
    }
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


def test_blueprints_are_found_added_and_run(page: Page, server: Server) -> None:
    """As a user adds them: the search box, the name, Enter. Then the demo in their loaders."""
    page.open(EMPTY)
    page.tab.wait_for_timeout(500)
    values = {"text_encoder": DEMO, "vae": DEMO, "width": 128, "height": 128, "batch_size": 2}
    given = {f"Z-Image {name} - Text to Image": {"model": f"{DEMO} ({name})", **values} for name in ("Turbo", "Base")}
    for count, (title, y) in enumerate(zip(given, (250, 850), strict=True), 1):
        page.tab.mouse.move(500, y)
        page.command("Workspace.SearchBox.Toggle")
        page.tab.wait_for_function("() => document.activeElement?.tagName === 'INPUT'")
        page.tab.keyboard.type(title)
        page.tab.get_by_text(title, exact=True).first.wait_for()
        page.tab.wait_for_timeout(500)  # until what was found is what Enter takes
        page.tab.keyboard.press("Enter")
        page.tab.wait_for_function("n => (app.rootGraph ?? app.graph).nodes.length === n", arg=count)
        page.tab.wait_for_timeout(300)
        page.tab.mouse.click(500, y)  # until then it hangs on the pointer
    assert page.missing() == []
    prompt = page.do(ON_THE_DEMO, given)
    server.free()
    result = succeed(server.run(prompt))
    assert len(result.previews) == 8 + 30
    saved = [output["images"] for output in result.outputs.values() if "images" in output]
    assert [len(images) for images in saved] == [2, 2]
    assert page.errors == []
