"""The Chinese words against the nodes as ComfyUI lists them: nothing without its words, and no words too many."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comfyui.server import ROOT, Server
from comfyui.test_server import WIDGETS

CHINESE = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))


def inputs(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every input by its key in the locale, those within dynamic combos too: `mode.steps` is `mode_steps`."""
    found: dict[str, dict[str, Any]] = {}
    for part in node.get("required", {}), node.get("optional", {}):
        for name, (kind, *rest) in part.items():
            options = rest[0] if rest else {}
            found[name] = options
            if kind == "COMFY_DYNAMICCOMBO_V3":
                for option in options["options"]:
                    found |= {f"{name}_{key}": inner for key, inner in inputs(option["inputs"]).items()}
    return found


def shown(words: dict[str, Any]) -> set[str]:
    """What there is to translate of an input: its name, and what else it shows."""
    return {"name"} | {key for key in ("tooltip", "placeholder") if words.get(key)}


def test_the_server_hands_them_out(server: Server) -> None:
    served = server.get("/i18n")["zh"]
    assert served["nodeDefs"] == CHINESE
    assert {"commands", "settings", "menuLabels", "settingsCategories"} <= set(served)


def test_every_node_has_its_words_and_no_other() -> None:
    assert set(CHINESE) == set(WIDGETS)


@pytest.mark.parametrize("node_id", WIDGETS)
def test_the_words_of_a_node(server: Server, node_id: str) -> None:
    info, words = server.node(node_id), CHINESE[node_id]
    assert set(words) <= {"display_name", "description", "inputs", "outputs"}
    assert words["display_name"] and words["description"]
    assert {key: set(entry) for key, entry in words["inputs"].items()} == {
        key: shown(options) for key, options in inputs(info["input"]).items()
    }
    # An output that has the name of its type has the type's own word, which ComfyUI translates.
    named = {
        str(i): {"name"} | ({"tooltip"} if tip else set())
        for i, (kind, name, tip) in enumerate(zip(info["output"], info["output_name"], info["output_tooltips"]))
        if name != kind
    }
    assert {key: set(entry) for key, entry in words.get("outputs", {}).items()} == named
