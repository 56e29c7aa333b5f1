"""Live mode in a real browser, in both renderers: what is drawn, what is stopped, what is saved."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.graphs import assert_red_circle, demo_prompt
from comfyui.server import ROOT, Server
from PIL import Image

DEMO = ROOT / "workflows" / "zimage_demo.json"
# Live's delays, short, since a test does not type as a person does.
QUICK = {"ZImage.Live.Pause": 200, "ZImage.Live.Rest": 400}
RECORD = """() => {
    const known = window.seen;
    window.seen = [];
    if (known) return;
    const names = ["execution_start", "execution_success", "execution_interrupted", "executed", "promptQueued"];
    for (const name of names) app.api.addEventListener(name, ({ detail }) => window.seen.push({ name, ...detail }));
}"""
BOX = """text => [...document.querySelectorAll("textarea")].findIndex(box => box.value === text)"""


@pytest.fixture(scope="module", params=list(RENDERERS))
def page(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    page = Page(chromium, server, request.param, **QUICK)
    yield page
    page.close()


@pytest.fixture
def demo(page: Page) -> Iterator[Page]:
    """The demo graph, freshly opened and not drawn yet, with live mode off before and after."""
    turn_off(page)
    page.open(DEMO)
    page.tab.wait_for_timeout(300)
    page.fit()
    page.do(RECORD)
    yield page
    turn_off(page)
    assert page.errors == []


def turn_off(page: Page) -> None:
    page.do("() => document.querySelector('.zimage-live [data-action=off]')?.click()")
    page.tab.wait_for_timeout(100)


def seen(page: Page, name: str) -> list[dict[str, Any]]:
    return [event for event in page.do("() => window.seen") if event["name"] == name]


def until(page: Page, true: Callable[[], Any], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, (page.do("() => window.seen"), words(page))
        page.tab.wait_for_timeout(50)


def words(page: Page) -> str:
    return page.do("() => document.querySelector('.zimage-live span')?.textContent ?? ''")


def state(page: Page) -> str:
    return page.do("() => document.querySelector('.zimage-live')?.dataset.state ?? 'off'")


def rested(page: Page, runs: int) -> None:
    """Until so many prompts are done and live mode says that the picture is complete."""
    until(page, lambda: len(seen(page, "execution_success")) >= runs and words(page).startswith("Done"))


def retype(page: Page, old: str, new: str) -> None:
    """As a person does: click into the box and type."""
    box = page.tab.locator("textarea").nth(page.do(BOX, old))
    box.click()
    box.press("Control+a")
    box.press_sequentially(new, delay=10)


def saved(server: Server) -> set[Path]:
    return set((server.base / "output").rglob("*.png"))


def widget(page: Page, node: str, name: str) -> Any:
    return page.do("([type, name]) => app.graph.nodes.find(n => n.type === type).widgets.find(w => w.name === name)"
                   "?.value", [node, name])  # fmt: skip


def test_a_draft_and_then_the_picture(demo: Page, server: Server) -> None:
    before = saved(server)
    demo.command("ZImage.Live.Toggle")
    rested(demo, 2)
    retype(demo, "a red circle on a white background", "a blue square on a yellow background")
    rested(demo, 4)
    drawn = [event for event in seen(demo, "executed") if event["output"].get("images")]
    assert len(drawn) == 4
    assert {image["type"] for event in drawn for image in event["output"]["images"]} == {"temp"}
    said = [event["output"]["text"][0] for event in seen(demo, "executed") if event["output"].get("text")]
    said = [text for text in said if " steps" in text]  # the sampler's, not the prompt's
    assert ["draft, 4 of 8 steps" in text for text in said] == [True, False, True, False]
    assert saved(server) == before
    assert seen(demo, "promptQueued") == []  # so no seed moves on
    file = server.base / "temp" / drawn[-1]["output"]["images"][0]["filename"]
    picture = Image.open(file).convert("RGB")
    assert picture.getpixel((2, 2))[2] < 120 < picture.getpixel((2, 2))[0]  # yellow
    assert picture.getpixel((64, 64))[0] < 120 < picture.getpixel((64, 64))[2]  # blue


def test_what_is_not_drawn_is_not_run(demo: Page) -> None:
    demo.command("ZImage.Live.Toggle")
    rested(demo, 2)
    demo.do("() => { const n = app.graph.nodes.find(n => n.type === 'SaveImage'); n.pos = [n.pos[0] + 40, n.pos[1]]; }")
    demo.tab.mouse.click(800, 930)
    demo.tab.keyboard.press("Escape")
    demo.tab.wait_for_timeout(1200)
    assert len(seen(demo, "execution_start")) == 2


def test_a_stale_run_is_interrupted_and_nothing_else(demo: Page, server: Server) -> None:
    other = server.post("/prompt", {"prompt": demo_prompt(seed=77, mode=long(60)), "client_id": "another tab"})
    slow(demo, 400)
    demo.command("ZImage.Live.Toggle")
    until(demo, lambda: len(seen(demo, "execution_success")) == 1)  # the draft
    until(demo, lambda: len(seen(demo, "execution_start")) == 2)  # the full run
    queued = server.post("/prompt", {"prompt": demo_prompt(seed=78), "client_id": "a queued batch"})
    demo.tab.wait_for_timeout(300)
    slow(demo, 6)
    # At once: a machine that is busy pauses while it types, and what is drawn in a pause is rightly interrupted too.
    box = demo.tab.locator("textarea").nth(demo.do(BOX, "a red circle on a white background"))
    box.fill("a green star on a black background")
    until(demo, lambda: len(seen(demo, "execution_interrupted")) == 1)
    rested(demo, 3)
    stale = seen(demo, "execution_start")[1]["prompt_id"]
    assert [event["prompt_id"] for event in seen(demo, "execution_interrupted")] == [stale]
    history = server.get("/history")
    for theirs in (other, queued):
        assert history[theirs["prompt_id"]]["status"]["status_str"] == "success"


def long(steps: int) -> dict[str, Any]:
    return {"mode": "Turbo", "mode.steps": steps, "mode.cfg": 1.0}


def slow(page: Page, steps: int) -> None:
    page.do("""steps => {
        const node = app.graph.nodes.find(n => n.type === "ZImageSampler");
        node.widgets.find(w => w.name === "mode").value = "Turbo";
        node.widgets.find(w => w.name === "mode.steps").value = steps;
    }""", steps)  # fmt: skip


def test_keep_saves_what_is_on_screen(demo: Page, server: Server) -> None:
    before = saved(server)
    demo.command("ZImage.Live.Keep")
    demo.do("() => { app.graph.nodes.find(n => n.type === 'ZImageSampler').widgets"
            ".find(w => w.name === 'control_after_generate').value = 'randomize'; }")  # fmt: skip
    seed = widget(demo, "ZImageSampler", "seed")
    demo.command("ZImage.Live.Toggle")
    rested(demo, 2)
    demo.tab.locator("[data-action=keep]").click()
    until(demo, lambda: words(demo) == "Kept.")
    (kept,) = saved(server) - before
    assert_red_circle(kept)
    settings = json.loads(Image.open(kept).text["zimage"])
    assert (settings["steps"], settings["seed"], settings.get("draft", False)) == (8, seed, False)
    assert widget(demo, "ZImageSampler", "seed") == seed
    shown = [e for e in seen(demo, "executed") if e["output"].get("images")][1]["output"]["images"][0]
    temporary = server.base / "temp" / shown["filename"]
    assert Image.open(kept).tobytes() == Image.open(temporary).tobytes()
    embedded = json.loads(Image.open(kept).text["prompt"])
    assert "SaveImage" in {node["class_type"] for node in embedded.values()}


def test_refine_goes_on_with_base(demo: Page, server: Server) -> None:
    before = saved(server)
    demo.command("ZImage.Live.Toggle")
    rested(demo, 2)
    nodes = len(demo.graph()["nodes"])
    demo.tab.locator("[data-action=refine]").click()
    until(demo, lambda: words(demo).startswith("Base has gone on"))
    (refined,) = saved(server) - before
    assert_red_circle(refined)
    settings = json.loads(Image.open(refined).text["zimage"])
    assert (settings["variant"], settings["strength"], settings["cfg"]) == ("base", 0.5, 5.0)
    assert demo.missing() == []
    assert len(demo.graph()["nodes"]) == nodes + 4
    demo.tab.keyboard.press("Escape")
    demo.command("Comfy.Undo")
    demo.tab.wait_for_timeout(300)
    assert len(demo.graph()["nodes"]) == nodes


def test_base_and_the_hosts_sampler_say_what_a_draft_is(demo: Page) -> None:
    demo.do("""() => {
        const loader = app.graph.nodes.find(n => n.type === "ZImageTransformerLoader");
        loader.widgets[0].value = "demo: simple shapes (Base)";
    }""")
    demo.command("ZImage.Live.Toggle")
    until(demo, lambda: re.match(r"Draft\..*Base \(from its metadata\), draft, ", words(demo)))
    turn_off(demo)
    demo.do("""() => {
        const ours = app.graph.nodes.find(n => n.type === "ZImageSampler");
        const theirs = LiteGraph.createNode("KSampler");
        app.graph.add(theirs);
        const link = name => app.graph.links[ours.inputs.find(i => i.name === name).link];
        const from = name => app.graph.getNodeById(link(name).origin_id);
        from("model").connect(0, theirs, "model");
        from("positive").connect(0, theirs, "positive");
        from("negative").connect(1, theirs, "negative");
        from("latent").connect(0, theirs, "latent_image");
        theirs.connect(0, app.graph.nodes.find(n => n.type === "VAEDecode"), "samples");
        app.graph.remove(ours);
        for (const [name, value] of [["steps", 12], ["cfg", 4], ["seed", 3]]) {
            theirs.widgets.find(w => w.name === name).value = value;
        }
    }""")
    demo.command("ZImage.Live.Toggle")
    until(demo, lambda: "KSampler: the draft runs 4 of its 12 steps." in words(demo))


def test_opening_another_graph_turns_it_off(demo: Page) -> None:
    demo.command("ZImage.Live.Toggle")
    rested(demo, 2)
    demo.open(DEMO)
    demo.tab.mouse.click(800, 930)
    until(demo, lambda: state(demo) == "off")
    assert len(seen(demo, "execution_start")) == 2
