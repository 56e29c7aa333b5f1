"""What Z-Image Empty Latent shows in a real browser, in both renderers, before and after a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.server import Server

FIND = "app.graph.nodes.find(node => node.type === 'ZImageLatentSize')"
SHOWN = "() => [...document.querySelectorAll('.zimage-size p')].map(line => line.textContent)"
# As the page itself does on a choice in a list or a number typed in.
CHOOSE = f"""([name, value]) => {{
    const widget = {FIND}.widgets.find(widget => widget.name === name);
    widget.value = value;
    widget.callback?.(value, app.canvas, {FIND});
}}"""
# Where on the screen the switch of `swap` is, in either renderer.
SWITCH = f"""() => {{
    const node = {FIND};
    const element = document.querySelector(`[data-node-id="${{node.id}}"] [role=switch]`);
    if (element) {{
        const box = element.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }}
    const widget = node.widgets.find(widget => widget.name === "swap");
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] - 40, node.pos[1] + widget.y + 10]);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [box.x + x, box.y + y];
}}"""


def node(number: int, kind: str, inputs: list[Any], outputs: list[Any], values: list[Any]) -> dict[str, Any]:
    return {
        "id": number, "type": kind, "pos": [340 * number, 100], "size": [300, 260], "flags": {}, "order": number,
        "mode": 0, "inputs": inputs, "outputs": outputs, "properties": {}, "widgets_values": values,
    }  # fmt: skip


def graph() -> dict[str, Any]:
    """A size, saved before `swap` came, that goes into a latent file; and a picture beside it."""
    saved = node(1, "ZImageLatentSize", [], [{"name": "LATENT", "type": "LATENT", "links": [1]}],
                 ["1024 px", "3:2 - 1248x832", 1])  # fmt: skip
    save = node(2, "SaveLatent", [{"name": "samples", "type": "LATENT", "link": 1}], [], ["sized"])
    picture = node(0, "EmptyImage", [], [{"name": "IMAGE", "type": "IMAGE", "links": None}], [1000, 800, 1, 0])
    links = [[1, 1, 0, 2, 0, "LATENT"]]
    return {"last_node_id": 2, "last_link_id": 1, "nodes": [picture, saved, save], "links": links, "version": 0.4}


@pytest.fixture(scope="module", params=list(RENDERERS))
def page(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, request.param)
    yield page
    page.close()


def test_the_size_as_the_user_turns_it(page: Page) -> None:
    page.open(graph())
    page.tab.wait_for_timeout(300)
    page.fit()
    assert page.do(SHOWN) == [
        "1248x832, 1.04 megapixels, 4056 image tokens.",
        "About 440 MB to draw (890 MB above cfg 1) and 1.6 GB to decode, beside the weights.",
    ]
    page.tab.mouse.click(*page.do(SWITCH))
    page.tab.wait_for_function(f"{SHOWN[6:]}[0].startsWith('832x1248, ')", timeout=5000)
    page.do(CHOOSE, ["size", "custom"])
    page.do(CHOOSE, ["size.width", 4096])
    page.do(CHOOSE, ["size.height", 2048])
    shown = page.do(SHOWN)
    assert shown[0] == "2048x4096, 8.39 megapixels, 32768 image tokens."
    assert shown[2].startswith("2048x4096 is beyond the official range") and len(shown) == 3
    saved = next(n for n in page.graph()["nodes"] if n["type"] == "ZImageLatentSize")
    assert saved["widgets_values"] == ["custom", 4096, 2048, 1, True]
    prompt = page.do("async () => (await app.graphToPrompt()).output")["1"]["inputs"]
    assert prompt == {"size": "custom", "size.width": 4096, "size.height": 2048, "batch_size": 1, "swap": True}
    assert page.errors == []


def test_a_fit_is_told_by_the_run(page: Page, server: Server) -> None:
    """In the node's own words, which scripts get too."""
    page.open(graph())
    page.do(CHOOSE, ["size", "fit image"])
    page.do(CHOOSE, ["size.class", "1024 px"])
    page.do(f"() => {{ app.graph.getNodeById(0).connect(0, {FIND}, 'size.image'); }}")
    assert page.do(SHOWN) == ["The official size that is nearest to the picture is known when it runs."]
    page.command("Comfy.QueuePrompt")
    page.tab.wait_for_function(f"{SHOWN[6:]}.length === 3", timeout=20000)
    shown = page.do(SHOWN)
    assert shown[2] == "1000x800 -> 1152x896: scaled by 1.152, 26 px of the height cropped."
    said = [entry["outputs"].get("1", {}).get("text") for entry in server.get("/history").values()]
    assert ["\n".join(shown)] in said, json.dumps(said)
    page.do(CHOOSE, ["size.class", "1280 px"])  # what was said of the last run holds no longer
    assert page.do(SHOWN) == ["The official size that is nearest to the picture is known when it runs."]
    assert page.errors == []
