"""Z-Image Pick Seeds through a real server: explore with Turbo, pick, refine with Base."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comfyui.graphs import demo_prompt, node, succeed
from comfyui.server import Result, Server
from PIL import Image

SEED = 7
TURBO = {"mode": "Turbo", "mode.steps": 2, "mode.cfg": 1.0}
BASE = {"mode": "Base", "mode.steps": 2, "mode.cfg": 4.0, "mode.cfg_normalization": False, "mode.cfg_truncation": 1.0}


def explore(seeds: str, batch: int = 4, **sampler: Any) -> dict[str, Any]:
    """Four pictures of Turbo, of seeds 7 to 10; "save" has those picked, of which "look" shows all."""
    prompt = demo_prompt(batch=batch, mode=TURBO, seed=SEED, **sampler)
    prompt["look"] = node("ZImagePickSeeds", latent=["sampler", 0], images=["decode", 0], seeds=seeds)
    prompt["save"]["inputs"]["images"] = ["look", 1]
    return prompt


def refine(seeds: str) -> dict[str, Any]:
    """And "refined" what Base makes of them."""
    prompt = explore(seeds)
    base = {"model": ["base", 0], "positive": ["text", 0], "negative": ["empty", 0], "latent": ["look", 0]}
    settings = {"seed": SEED, **BASE, "solver": "euler", "strength": 0.6, "shift": 0.0}
    return prompt | {
        "base": node("ZImageTransformerLoader", file="demo: simple shapes (Base)", variant="auto", dtype="auto"),
        "second": node("ZImageSampler", **base, **settings),
        "again": node("VAEDecode", samples=["second", 0], vae=["vae", 0]),
        "refined": node("SaveImage", images=["again", 0], filename_prefix="refined"),
    }


def pictures(server: Server, result: Result, name: str) -> np.ndarray[Any, Any]:
    paths = [server.image(result, name, i) for i in range(len(result.outputs[name]["images"]))]
    return np.stack([np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in paths])


def test_picked_seeds_are_refined_as_if_all_were(server: Server) -> None:
    every, some = (succeed(server.run(refine(seeds))) for seeds in ("", "8, 10"))
    all_drawn, drawn = (pictures(server, result, "save") for result in (every, some))
    assert len(all_drawn) == 4 and (drawn == all_drawn[[1, 3]]).all()
    all_refined, refined = (pictures(server, result, "refined") for result in (every, some))
    assert np.abs(refined - all_refined[[1, 3]]).max() <= 1
    assert np.abs(refined - drawn).mean() > 1
    assert "seeds 7 to 10." in every.texts["second"] and "seeds 8 and 10." in some.texts["second"]


def test_all_are_shown_and_the_picked_ones_are_bright(server: Server) -> None:
    result = succeed(server.run(explore("8, 10")))
    shown = pictures(server, result, "look")
    assert shown.shape == (4, 128 + 18, 128, 3)
    assert [strip[128, 0, 0] for strip in shown] == [40, 255, 40, 255]
    assert (shown[[1, 3], :128] == pictures(server, result, "save")).all()
    strips = shown[[1, 3], 128:, :, 0]
    assert (strips[0] != strips[1]).any()  # each has a number of its own
    assert all(60 < (strip < 128).sum() < 800 for strip in strips)  # pixels of ink
    assert {image["type"] for image in result.outputs["look"]["images"]} == {"temp"}


@pytest.mark.parametrize(
    "seeds, count", [(" 8 ", 1), ("10，8", 2), ("8、9", 2), ("8-10", 3), ("10 – 8, 9", 3), ("7;9-10", 3), ("\n", 4)]
)
def test_ways_to_write_seeds(server: Server, seeds: str, count: int) -> None:
    assert len(succeed(server.run(explore(seeds))).outputs["save"]["images"]) == count


def test_a_pick_of_a_part_of_a_batch(server: Server) -> None:
    """Of a part that ComfyUI's node took, and of what another pick left."""
    prompt = explore("9")
    prompt["part"] = node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=3)
    prompt["decode"]["inputs"]["samples"] = prompt["look"]["inputs"]["latent"] = ["part", 0]
    once = pictures(server, succeed(server.run(prompt)), "save")
    twice = explore("8-10")
    twice["then"] = node("ZImagePickSeeds", latent=["look", 0], images=["look", 1], seeds="9")
    twice["save"]["inputs"]["images"] = ["then", 1]
    again = pictures(server, succeed(server.run(twice)), "save")
    assert (once == again).all() and (once == pictures(server, succeed(server.run(explore(""))), "save")[2]).all()


@pytest.mark.parametrize(
    "seeds, change, said",
    [
        ("3", {}, "there is no picture of seed 3: this batch has 7 to 10"),
        ("9-12", {}, "there is no picture of seed 12: this batch has 7 to 10"),
        ("-8", {}, "seeds '-8' is not understood: write numbers and ranges, such as 3, 5-7"),
        ("", {"latent": ["size", 0]}, "the latent does not come from Z-Image Sampler, so the seeds of its pictures"),
        ("", {"latent": ["twice", 0]}, "the latent was repeated or joined after it was drawn"),
        ("", {"images": ["one", 0]}, "latent has 4 pictures and images has 1: connect the IMAGE decoded from latent"),
    ],
)
def test_one_sentence_for_what_cannot_be_picked(server: Server, seeds: str, change: dict[str, Any], said: str) -> None:
    prompt = explore(seeds)
    prompt["look"]["inputs"] |= change
    prompt["twice"] = node("RepeatLatentBatch", samples=["sampler", 0], amount=2)
    prompt["one"] = node("ImageFromBatch", image=["decode", 0], batch_index=0, length=1)
    result = server.run(prompt)
    assert result.status == "error"
    assert said in result.error["exception_message"]
