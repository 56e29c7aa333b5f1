"""The words on the real page: Chinese labels in both renderers, help pages and the links in them, the search."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.server import ROOT, Server
from comfyui.test_server import WIDGETS

TITLES = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
SAME = {"cfg", "clip", "Latent", "CLIP", "VAE", "Sigmas"}
# Every word that a node shows, with each choice of its dynamic combos.
SHOWN = """type => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    const words = new Set([node.title]);
    const look = () => {
        for (const slot of [...node.inputs, ...node.outputs]) words.add(slot.label ?? slot.localized_name ?? slot.name);
        for (const w of node.widgets?.filter(w => !w.options?.hideInPanel) ?? []) {
            for (const word of [w.label ?? w.name, w.name.includes(".") && w.tooltip, w.element?.placeholder]) {
                if (word) words.add(word);
            }
        }
    };
    look();
    for (const { name, options } of [...(node.widgets ?? [])]) {
        if (type === "ZImageTransformerLoader" || !Array.isArray(options?.values)) continue;
        for (const value of options.values.slice(0, 8)) {
            const widget = node.widgets.find(w => w.name === name);
            if (!widget) break;
            widget.value = value;
            widget.callback?.(value);
            look();
        }
    }
    app.graph.remove(node);
    return [...words];
}"""
SEARCHES = {
    "KSampler": "ZImageSampler", "turbo": "ZImageSampler", "unet": "ZImageTransformerLoader",
    "lumina2": "ZImageTextEncoderLoader", "clip": "ZImageTextEncoderLoader", "qwen": "ZImageTextEncoderLoader",
    "empty latent": "ZImageLatentSize", "z-image": "ZImageSampler", "zimage": "ZImageLatentSize",
}  # fmt: skip


@pytest.fixture(scope="module", params=list(RENDERERS))
def chinese(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, request.param, **{"Comfy.Locale": "zh"})
    yield page
    page.close()
    server.post("/settings/Comfy.Locale", "en")


@pytest.fixture(scope="module")
def english(server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, "nodes2", **{"Comfy.Locale": "en"})
    yield page
    page.close()


def test_every_word_of_a_node_is_chinese(chinese: Page) -> None:
    chinese.do("() => app.graph.clear()")
    words = {node: chinese.do(SHOWN, node) for node in WIDGETS}
    assert {node: shown[0] for node, shown in words.items()} == {n: t["display_name"] for n, t in TITLES.items()}
    foreign = {w for shown in words.values() for w in shown if w not in SAME and not re.search("[一-鿿]", w)}
    assert foreign == set()


def help_of(page: Page, node: str) -> Any:
    """The help panel of a node that is alone in the graph."""
    page.do(
        """type => {
            app.graph.clear();
            app.graph.add(LiteGraph.createNode(type));
        }""",
        node,
    )
    page.fit()
    page.do("() => app.canvas.selectNode(app.graph.nodes[0])")
    page.tab.locator("[data-testid=info-button]").click()
    panel = page.tab.locator(".node-help-content")
    panel.locator("h1").wait_for(timeout=15000)
    return panel


def follow(page: Page, panel: Any, link: str) -> Any:
    """The page that a link in a help panel opens, its pictures there."""
    panel.locator(f"a[href*='{link}']").first.click()
    opened = page.tab.locator("dialog.zimage-page")
    opened.locator("h1").wait_for(timeout=15000)
    loaded = "() => [...document.querySelectorAll('dialog.zimage-page img')].every(i => i.complete && i.naturalWidth)"
    page.tab.wait_for_function(loaded, timeout=15000)
    return opened


def test_chinese_help_and_the_page_it_links_to(chinese: Page) -> None:
    panel = help_of(chinese, "ZImageSampler")
    assert panel.locator("h1").inner_text() == "Z-Image 采样器"
    opened = follow(chinese, panel, "ZImageAdvice/zh.md")
    assert opened.locator("h1").inner_text().startswith("常见建议")
    assert opened.locator("img").count() >= 5
    chinese.tab.keyboard.press("Escape")
    opened.wait_for(state="detached")
    assert len(chinese.tab.context.pages) == 1
    assert chinese.errors == []


def test_english_help_and_the_page_it_links_to(english: Page) -> None:
    panel = help_of(english, "ZImageSampler")
    assert panel.locator("h1").inner_text() == "Z-Image Sampler"
    opened = follow(english, panel, "ZImageAdvice.md")
    assert opened.locator("h1").inner_text() == "Advice you will meet"
    assert opened.locator("img").count() >= 5
    opened.locator("button").first.click()
    opened.wait_for(state="detached")
    assert english.errors == []


def test_the_search_finds_our_nodes(english: Page) -> None:
    titles = {node: english.do("type => LiteGraph.registered_node_types[type].title", node) for node in WIDGETS}
    english.do("() => app.graph.clear()")
    for query, node in SEARCHES.items():
        english.tab.mouse.dblclick(600, 700)
        english.tab.keyboard.type(query)
        row = english.tab.locator("[role=option]", has_text=titles[node])
        row.first.wait_for(timeout=10000)
        for _ in range(2):
            english.tab.keyboard.press("Escape")
        english.tab.locator("[role=option]").first.wait_for(state="detached")
