"""Every example graph in a real browser, in both renderers: opened as a file, and by dropping its picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfyui.browser import RENDERERS, Page
from comfyui.server import ROOT, Server

GRAPHS = sorted((ROOT / "workflows").glob("*.json"))


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
    widgets = {node["id"]: node.get("widgets_values") for node in shown["nodes"]}
    assert widgets == {node["id"]: node.get("widgets_values") for node in stored["nodes"]}
    assert sorted(link[1:] for link in shown["links"]) == sorted(link[1:] for link in stored["links"])
    assert page.errors == []


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_it_opens(page: Page, path: Path) -> None:
    page.open(path)
    assert_opened(page, path)
    page.open({"nodes": [], "links": [], "version": 0.4})
    page.drop(path.with_suffix(".png"))
    assert_opened(page, path)
