"""Z-Image Compare through a real server: its pictures against single runs, its progress, what the PNG holds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from comfyui.graphs import DEMO, demo_prompt, node, succeed
from comfyui.server import Result, Server
from PIL import Image

SEED = 4


def compared(negative: bool = True, **inputs: Any) -> dict[str, Any]:
    """The demo graph with both of its models; `save` has the pictures side by side, `alone` those of b."""
    prompt = demo_prompt(batch=2)
    sources = {"model_a": "model", "model_b": "base", "positive": "text", "latent": "size", "vae": "vae"}
    links = {name: [source, 0] for name, source in sources.items()} | ({"negative": ["empty", 0]} if negative else {})
    prompt["base"] = node("ZImageTransformerLoader", file=f"{DEMO} (Base)", variant="auto", dtype="auto")
    prompt["compare"] = node("ZImageCompare", **links, seed=SEED, **inputs)
    prompt["save"]["inputs"]["images"] = ["compare", 0]
    prompt["alone"] = node("SaveImage", images=["compare", 2], filename_prefix="alone")
    return {name: part for name, part in prompt.items() if name not in ("sampler", "decode")}


def pixels(server: Server, result: Result, name: str, index: int) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(server.image(result, name, index)))


def test_both_models_side_by_side(server: Server) -> None:
    result = succeed(server.run(compared()))
    single = succeed(server.run(demo_prompt(seed=SEED, batch=2)))
    for i in range(2):
        both = pixels(server, result, "save", i)
        assert both.shape == (128, 128 + 2 + 128, 3)
        assert (both[:, :128] == pixels(server, single, "save", i)).all()
        assert (both[:, -128:] == pixels(server, result, "alone", i)).all()
        assert abs(both[:, :128].astype(int) - both[:, -128:]).mean() > 1
    lines = result.texts["compare"].split("\n")
    assert lines[:2] == ["a: Turbo, 8 steps, cfg 1, shift 3.", "b: Base, 30 steps, cfg 5, shift 6."]
    assert result.outputs["compare"]["text"] == [result.texts["compare"]]


def test_one_progress_over_both(server: Server) -> None:
    result = succeed(server.run(compared() | {"size": demo_prompt()["size"]}))
    assert result.progress("compare") == [(i, 38) for i in range(1, 39)]
    assert len(result.previews) == 38


def test_the_png_holds_what_each_ran(server: Server) -> None:
    """Also when the pictures are kept from before."""
    prompt = compared()
    succeed(server.run(prompt))
    prompt["save"]["inputs"]["filename_prefix"] = "again"
    result = succeed(server.run(prompt))
    assert "compare" not in result.executed
    held = json.loads(Image.open(server.image(result, "save")).text["zimage"])
    assert {side: (held[side]["variant"], held[side]["steps"], held[side]["seed"]) for side in "ab"} == {
        "a": ("turbo", 8, SEED), "b": ("base", 30, SEED),
    }  # fmt: skip


def test_what_cannot_be_compared_is_told_before_the_first_step(server: Server) -> None:
    result = server.run(compared(negative=False))
    assert result.status == "error" and "cfg 5 needs a negative prompt" in result.error["exception_message"]
    assert result.progress("compare") == []
