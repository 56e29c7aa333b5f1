"""Saved graphs (format 0.4) as prompts in API form, as the browser converts them: widget values go by position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comfyui.graphs import DEMO

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
# Nodes that only the browser knows.
NOTES = {"Note", "MarkdownNote"}


def to_prompt(graph: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    links = {link[0]: link for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        inputs = widget_inputs(node, object_info[node["type"]])
        for slot in node.get("inputs", []):
            if slot.get("link") is not None:
                _, origin, origin_slot, *_ = links[slot["link"]]
                inputs[slot["name"]] = [str(origin), origin_slot]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def on_the_demo(prompt: dict[str, Any]) -> dict[str, Any]:
    """The prompt with its loaders pointed at the demo model, and its sizes at those that the demo knows."""
    return {name: node | {"inputs": _of_the_demo(node)} for name, node in prompt.items()}


def _of_the_demo(node: dict[str, Any]) -> dict[str, Any]:
    inputs, kind = dict(node["inputs"]), node["class_type"]
    if kind == "ZImageTransformerLoader" and DEMO not in inputs["file"]:
        inputs["file"] = f"{DEMO} ({'Turbo' if 'turbo' in inputs['file'] else 'Base'})"
    elif kind in ("ZImageTextEncoderLoader", "ZImageVAELoader"):
        inputs["file"] = DEMO
    elif kind == "ZImageLatentSize" and "size.aspect" in inputs and inputs["size"] != "demo":
        width, height = map(int, inputs.pop("size.aspect").split(" - ")[1].split("x"))
        aspect = "1:1 - 128x128" if width == height else "5:3 - 160x96" if width > height else "3:5 - 96x160"
        inputs |= {"size": "demo", "size.aspect": aspect}
    return inputs


def widget_inputs(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """The node's widget values by name. Raises ValueError if they are not as many as the node has widgets."""
    values = list(node.get("widgets_values", []))
    found = {}
    for name, value in _assign(info["input"], values, ""):
        found[name] = value
    if values:
        raise ValueError(f"{node['type']} has {len(values)} widget values too many: {values}")
    return found


def _assign(schema: dict[str, Any], values: list[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for part in ("required", "optional"):
        for name, (kind, *rest) in schema.get(part, {}).items():
            options = rest[0] if rest else {}
            if options.get("forceInput") or not (isinstance(kind, list) or kind in WIDGETS):
                continue
            if not values and part == "optional":
                return  # a graph of before that widget: the page shows its default
            if not values:
                raise ValueError(f"no value is left for {prefix}{name}")
            value = values.pop(0)
            yield prefix + name, value
            if options.get("control_after_generate"):
                values.pop(0)
            if kind == "COMFY_DYNAMICCOMBO_V3":
                chosen = next(option for option in options["options"] if option["key"] == value)
                yield from _assign(chosen["inputs"], values, f"{prefix}{name}.")
