"""A real Chromium on a page of the server, by Playwright; the settings, the errors and the graph of a page.

`CHROMIUM` names the browser where it is not found by itself. Without it or without Playwright there are no such tests.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyui.server import HOST, Server

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# A browser as of a user who has been here before, without the offers of the first visit.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Release.Status": "skipped", "Comfy.Release.Version": "99.0.0"}
RENDERERS = {"classic": False, "nodes2": True}
# What the page says of its own: it asks for things of the network that a test has not got, and of its own start.
HARMLESS = (
    "Failed to load resource", "Content Security Policy", "net::ERR", "userdata", "Failed to fetch", "[Deprecated]",
    "DEPRECATED", "graph accessed before initialization",
)  # fmt: skip


def chromium() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def why_no_browser() -> str | None:
    """Why pages cannot be tested here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "no Playwright: pip install playwright"
    return None if chromium() else "no Chromium: set CHROMIUM"


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()


class Page:
    """ComfyUI's page in one tab. `errors` is what it complained of, in the console or by an exception."""

    def __init__(self, browser: Any, server: Server, renderer: str = "classic", **settings: Any) -> None:
        self.server = server
        for name, value in (SETTINGS | {"Comfy.VueNodes.Enabled": RENDERERS[renderer]} | settings).items():
            server.post(f"/settings/{name}", value)
        self.tab = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        self.errors: list[str] = []
        self.tab.on("console", lambda message: message.type == "error" and self._note(message.text))
        self.tab.on("pageerror", lambda error: self._note(str(error)))
        self.reload()

    def _note(self, text: str) -> None:
        if not any(part in text for part in HARMLESS):
            self.errors.append(text)

    def reload(self) -> None:
        self.tab.goto(f"http://{HOST}:{self.server.port}/")
        ready = "() => window.app?.extensionManager && window.LiteGraph?.registered_node_types?.ZImageSampler"
        self.tab.wait_for_function(ready, timeout=60000)
        self.tab.wait_for_selector("canvas#graph-canvas", timeout=60000)
        self.tab.wait_for_timeout(500)  # what the page restores of its last visit

    def do(self, script: str, argument: Any = None) -> Any:
        return self.tab.evaluate(script, argument)

    def command(self, name: str) -> None:
        self.do("name => app.extensionManager.command.execute(name)", name)

    def open(self, graph: dict[str, Any] | Path) -> None:
        """Opens a saved graph as the page does when a file is dropped on it."""
        data = graph if isinstance(graph, dict) else json.loads(graph.read_text(encoding="utf-8"))
        self.do("async data => { await app.loadGraphData(data); }", data)

    def drop(self, file: Path) -> None:
        """Drops a file on the canvas."""
        kind = {".png": "image/png", ".json": "application/json"}[file.suffix]
        self.do(
            """async ([name, kind, data]) => {
                const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
                await app.handleFile(new File([bytes], name, { type: kind }));
            }""",
            [file.name, kind, base64.b64encode(file.read_bytes()).decode()],
        )

    def graph(self) -> dict[str, Any]:
        return self.do("() => JSON.parse(JSON.stringify((app.rootGraph ?? app.graph).serialize()))")

    def missing(self) -> list[str]:
        """Types of the graph's nodes that the page does not know."""
        return self.do(
            """() => {
                const root = app.rootGraph ?? app.graph;
                const inner = [...(root.subgraphs?.values() ?? [])];
                return [root, ...inner].flatMap(g => g.nodes.filter(n => !n.type
                    || !(n.subgraph || LiteGraph.registered_node_types[n.type])).map(n => n.type));
            }"""
        )

    def fit(self) -> None:
        self.command("Comfy.Canvas.FitView")
        self.tab.wait_for_timeout(400)

    def picture(self, path: Path | str) -> None:
        self.tab.screenshot(path=str(path))

    def close(self) -> None:
        self.tab.context.close()
