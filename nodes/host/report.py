"""Where a run's resolved settings go: on the node, into the log, into the PNG."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from server import PromptServer

log = logging.getLogger(__name__)

NODES = ("ZImageSampler", "ZImageCompare")
# Records of runs whose latents the host may still hold and not draw again: a few strings, the newest last.
_records: OrderedDict[str, dict[str, Any]] = OrderedDict()
_LIMIT = 64


def tell(name: str, lines: list[str], hidden: Any) -> str:
    """Into the log under the node's name, and on the node; the words, for its own output."""
    log.info("%s: %s", name, " ".join(lines))
    text = "\n".join(lines)
    if hidden.unique_id and PromptServer.instance is not None:
        PromptServer.instance.send_progress_text(text, hidden.unique_id)
    return text


def report(lines: list[str], record: dict[str, Any], hidden: Any, name: str = "Z-Image Sampler") -> None:
    """`hidden` is the node's: it knows which node this is, and what SaveImage will write.

    The PNG gets the settings of the sampler that ran last.
    """
    tell(name, lines, hidden)
    if isinstance(hidden.extra_pnginfo, dict):
        hidden.extra_pnginfo["zimage"] = record
    if hidden.prompt:
        _records[_recipe(hidden.prompt, str(hidden.unique_id))] = record
        while len(_records) > _LIMIT:
            _records.popitem(last=False)


def register() -> None:
    """Let each request come with a place for the record: a script may send none, and a cached sampler does not run."""
    if PromptServer.instance is not None:
        PromptServer.instance.add_on_prompt_handler(_prepare)


def _prepare(request: dict[str, Any]) -> dict[str, Any]:
    prompt = request.get("prompt")
    if not isinstance(prompt, dict):
        return request
    samplers = [n for n, node in prompt.items() if isinstance(node, dict) and node.get("class_type") in NODES]
    extra = request.get("extra_data") or {}
    png = extra.get("extra_pnginfo") or {}
    if not samplers or not isinstance(png, dict):
        return request
    known = [record for name in samplers if (record := _records.get(_recipe(prompt, name)))]
    png = ({"zimage": known[-1]} if known else {}) | png
    return request | {"extra_data": extra | {"extra_pnginfo": png}}


def _recipe(prompt: Mapping[str, Any], name: str) -> str:
    """All that a node's result depends on: its inputs, and in place of each link the recipe of where it comes from."""

    def resolve(node: str, seen: tuple[str, ...]) -> Any:
        if node in seen or not isinstance(prompt.get(node), dict):
            return node
        inputs = prompt[node].get("inputs") or {}
        return [prompt[node].get("class_type"), {key: follow(value, (*seen, node)) for key, value in inputs.items()}]

    def follow(value: Any, seen: tuple[str, ...]) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)  # as a browser writes it; ComfyUI makes a float of it again before it runs
        linked = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
        return [resolve(value[0], seen), value[1]] if linked else value

    return json.dumps(resolve(name, ()), sort_keys=True, default=str)
