"""The seeds of a batch through a real server: what is said of them, and whether it is true."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from comfyui.graphs import demo_prompt, node, succeed
from comfyui.server import Result, Server
from PIL import Image

STEPS = {"mode": "Turbo", "mode.steps": 3, "mode.cfg": 1.0}


def drawn(server: Server, **given: Any) -> tuple[Result, list[np.ndarray[Any, Any]], dict[str, Any]]:
    result = succeed(server.run(demo_prompt(**({"mode": STEPS, "seed": 70} | given))))
    paths = [server.image(result, "save", i) for i in range(len(result.outputs["save"]["images"]))]
    pictures = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in paths]
    return result, pictures, json.loads(Image.open(paths[0]).text["zimage"])


def test_a_batch_says_its_seeds(server: Server) -> None:
    """And each of them draws its picture alone."""
    result, pictures, record = drawn(server, batch=3)
    assert result.texts["sampler"].endswith("3 forwards, seeds 70 to 72.")
    assert (record["seed"], record["seeds"]) == (70, [70, 71, 72])
    alone, (picture,), record = drawn(server, seed=72)
    assert "seed" not in alone.texts["sampler"] and record["seeds"] == [72]
    assert np.abs(picture - pictures[2]).max() <= 1


def test_a_part_of_a_batch_says_its_own(server: Server) -> None:
    """ComfyUI's node takes pictures 1 and 2 of an empty batch: they are those of seed + 1 and seed + 2."""
    prompt = demo_prompt(batch=4, mode=STEPS, seed=70, latent=["part", 0])
    prompt["part"] = node("LatentFromBatch", samples=["size", 0], batch_index=1, length=2)
    result = succeed(server.run(prompt))
    assert result.texts["sampler"].endswith("seeds 71 and 72.")
    prompt["part"]["inputs"] |= {"batch_index": 3, "length": 1}
    assert succeed(server.run(prompt)).texts["sampler"].endswith("seed 73.")


@pytest.mark.parametrize("solver", ["euler_ancestral", "dpmpp_2m_sde", "dpm_adaptive", "res_multistep", "dpm_fast"])
def test_what_works_on_a_batch_as_one_promises_nothing(server: Server, solver: str) -> None:
    result, pictures, _ = drawn(server, batch=2, solver=solver)
    _, (alone,), _ = drawn(server, seed=71, solver=solver)
    noisy = np.abs(alone - pictures[1]).max() > 1
    text = result.texts["sampler"]
    assert (
        noisy
        == ("first noise of seeds 70 and 71." in text)
        == (f"\n{solver.capitalize()} works on all pictures at once" in text)
    )
    assert noisy == (solver in ("euler_ancestral", "dpmpp_2m_sde", "dpm_adaptive"))


def test_the_last_seed_is_followed_by_the_first(server: Server) -> None:
    assert "seeds 18446744073709551615 and 0." in drawn(server, batch=2, seed=2**64 - 1)[0].texts["sampler"]


def test_what_is_not_drawn_keeps_its_seeds(server: Server) -> None:
    """Strength 0: the second sampler's seed draws nothing, so the pictures stay those of the first."""
    prompt = demo_prompt(batch=2, mode=STEPS, seed=70)
    first = prompt["sampler"]["inputs"]
    prompt["kept"] = node("ZImageSampler", **first | {"latent": ["sampler", 0], "seed": 900, "strength": 0.0})
    prompt["decode"]["inputs"]["samples"] = ["kept", 0]
    prompt["look"] = node("ZImagePickSeeds", latent=["kept", 0], images=["decode", 0], seeds="71")
    text = succeed(server.run(prompt)).texts["kept"]
    assert "seed" not in text and "0 forwards." in text
