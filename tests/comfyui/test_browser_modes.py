"""The sampler's mode in a real browser: what it shows and hides, and that it survives saving and reloading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.server import ROOT, Server

DEMO = ROOT / "workflows" / "zimage_demo.json"
SHOWN = {
    "auto": ["steps", "cfg"],
    "Turbo": ["steps"],  # cfg is among the advanced ones
    "Base": ["steps", "cfg", "cfg_normalization", "cfg_truncation"],
}
SETTINGS = ["steps", "cfg", "cfg_normalization", "cfg_truncation"]


@pytest.fixture(scope="module", params=list(RENDERERS))
def page(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, request.param)
    page.renderer = request.param
    page.open(DEMO)
    page.tab.wait_for_timeout(300)
    page.fit()
    yield page
    page.close()


def choose(page: Page, mode: str) -> None:
    page.do("""mode => {
        const widget = app.graph.nodes.find(n => n.type === "ZImageSampler").widgets.find(w => w.name === "mode");
        widget.value = mode;
        widget.callback?.(mode);
    }""", mode)  # fmt: skip
    page.tab.wait_for_timeout(200)


def shown(page: Page) -> list[str]:
    """The mode's own widgets that a user sees; the newer nodes are asked by what stands on the screen."""
    if page.renderer == "nodes2":
        text = page.do("""() => {
            const id = app.graph.nodes.find(n => n.type === "ZImageSampler").id;
            return document.querySelector(`[data-node-id="${id}"]`).innerText.split("\\n").map(line => line.trim());
        }""")
        return [name for name in SETTINGS if name in text]
    names = page.do("""() => {
        const node = app.graph.nodes.find(n => n.type === "ZImageSampler");
        return node.widgets.filter(w => !w.hidden && !(w.advanced && !node.showAdvanced)).map(w => w.name);
    }""")
    return [name for name in SETTINGS if f"mode.{name}" in names]


def values(page: Page) -> dict[str, Any]:
    return page.do("""() => Object.fromEntries(app.graph.nodes.find(n => n.type === "ZImageSampler").widgets
        .filter(w => w.name === "mode" || w.name.startsWith("mode.")).map(w => [w.name, w.value]))""")


@pytest.mark.parametrize("mode", ["Base", "Turbo", "auto"])
def test_mode_shows_its_own_settings(page: Page, mode: str) -> None:
    choose(page, mode)
    expected = SHOWN[mode]
    found = shown(page)
    # Where a widget that is among the advanced ones is shown all the same, it is this renderer's way.
    assert [name for name in found if name != "cfg" or mode != "Turbo"] == expected
    assert page.errors == []


def test_mode_survives_saving_and_reloading(page: Page) -> None:
    choose(page, "Base")
    page.do("""() => {
        const widgets = app.graph.nodes.find(n => n.type === "ZImageSampler").widgets;
        const set = { steps: 17, cfg: 3.5, cfg_normalization: true, cfg_truncation: 0.7 };
        for (const name in set) widgets.find(w => w.name === `mode.${name}`).value = set[name];
        widgets.find(w => w.name === "solver").value = "heun";
    }""")  # fmt: skip
    before, saved = values(page), page.graph()
    prompt = page.do("async () => (await app.graphToPrompt()).output")
    page.reload()
    page.open(saved)
    page.tab.wait_for_timeout(300)
    page.fit()
    assert values(page) == before
    assert before["mode"] == "Base" and before["mode.steps"] == 17
    assert page.do("async () => (await app.graphToPrompt()).output") == prompt
    assert shown(page) == SHOWN["Base"]
