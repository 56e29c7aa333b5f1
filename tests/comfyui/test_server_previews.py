"""Previews through a real server that was started with latent2rgb: how many, by which method, and what is said."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from comfyui.graphs import demo_prompt, node, succeed
from comfyui.server import Result, Server
from PIL import Image
from safetensors.torch import save_file

STEPS = 3
MODE = {"mode": "Turbo", "mode.steps": STEPS, "mode.cfg": 1.0}
MAGENTA = [1.0, 0.0, 1.0]
MISSING = "There is no taef1_decoder in models/vae_approx"


def taef1() -> dict[str, torch.Tensor]:
    """The decoder of TAESD's shape for 16 channels, random up to its last layer, which paints all pictures magenta."""
    generator = torch.Generator().manual_seed(0)
    state = {"1.weight": torch.randn(64, 16, 3, 3, generator=generator) * 0.1, "1.bias": torch.zeros(64)}
    for block in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        for part in (0, 2, 4):
            state[f"{block}.conv.{part}.weight"] = torch.randn(64, 64, 3, 3, generator=generator) * 0.03
            state[f"{block}.conv.{part}.bias"] = torch.zeros(64)
    for layer in (7, 12, 17):
        state[f"{layer}.weight"] = torch.randn(64, 64, 3, 3, generator=generator) * 0.03
    return state | {"19.weight": torch.zeros(3, 64, 3, 3), "19.bias": torch.tensor(MAGENTA)}


@contextmanager
def installed(server: Server, wanted: bool) -> Iterator[None]:
    path = server.base / "models" / "vae_approx" / "taef1_decoder.safetensors"
    path.parent.mkdir(exist_ok=True)
    if wanted:
        save_file(taef1(), str(path))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def pictures(result: Result) -> list[Image.Image]:
    """The previews, each of which must be a JPEG behind the message's head."""
    return [Image.open(io.BytesIO(message[message.index(b"\xff\xd8\xff") :])) for message in result.previews]


def is_magenta(picture: Image.Image) -> bool:
    (least_r, _), (_, most_g), (least_b, _) = picture.convert("RGB").getextrema()
    return least_r > 240 and most_g < 15 and least_b > 240


# The widget, the prompt's own setting, whether TAEF1 is there -> what shows, and whether a note says why.
CASES = [
    ("auto", None, False, "latent2rgb", False),
    ("auto", "none", True, None, False),
    ("auto", "latent2rgb", True, "latent2rgb", False),
    ("auto", "auto", True, "latent2rgb", False),
    ("auto", "taesd", True, "taef1", False),
    ("auto", "taesd", False, "latent2rgb", True),
    ("latent2rgb", "none", True, "latent2rgb", False),
    ("taef1", "none", True, "taef1", False),
    ("taef1", None, False, "latent2rgb", True),
    ("none", "latent2rgb", True, None, False),
    ("none", "taesd", False, None, False),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_preview_a_step_from_the_first(server: Server, case: int) -> None:
    widget, setting, there, shows, noted = CASES[case]
    extra = {"preview_method": setting} if setting else {}
    with installed(server, there):
        result = succeed(server.run(demo_prompt(mode=MODE, seed=100 + case, preview=widget), **extra))
    steps = [(i, STEPS) for i in range(1, STEPS + 1)]
    # Without a preview the host's progress bar leaves out what comes too fast.
    assert result.progress("sampler") == steps if shows else result.progress("sampler")[-1] == steps[-1]
    found = pictures(result)
    assert len(found) == (STEPS if shows else 0)
    assert all(picture.format == "JPEG" and picture.size == (512, 512) for picture in found)
    assert [is_magenta(picture) for picture in found] == [shows == "taef1"] * len(found)
    assert (MISSING in result.texts["sampler"]) == noted


@pytest.mark.parametrize("widget, setting, counts", [("none", "latent2rgb", 2), ("latent2rgb", "none", STEPS)])
def test_the_choice_is_for_this_node_alone(server: Server, widget: str, setting: str, counts: int) -> None:
    """A KSampler after it in the same prompt, of 2 steps, does as the host is set."""
    prompt: dict[str, Any] = demo_prompt(mode=MODE, seed=120, preview=widget)
    prompt["decode"]["inputs"]["samples"] = ["after", 0]
    prompt["after"] = node(
        "KSampler", model=["model", 0], positive=["text", 0], negative=["empty", 0], latent_image=["sampler", 0],
        seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=0.5,
    )  # fmt: skip
    assert len(succeed(server.run(prompt, preview_method=setting)).previews) == counts
