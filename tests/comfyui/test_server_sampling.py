"""The sampler's parts and the text node through a real server: the pictures, and what stands on the nodes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from comfyui.graphs import PROMPT, assert_red_circle, demo_prompt, node, succeed
from comfyui.server import Result, Server
from PIL import Image

BASE = {"mode": "Base", "mode.steps": 5, "mode.cfg": 4.0, "mode.cfg_normalization": True, "mode.cfg_truncation": 0.5}


def encoded(negative: str = "", positive: str = PROMPT) -> dict[str, Any]:
    return node("ZImageTextEncode", clip=["clip", 0], positive=positive, negative=negative)


def in_parts(prompt: dict[str, Any], steps: int, **guider: Any) -> dict[str, Any]:
    """The graph with its sampler taken apart."""
    sampler = prompt["sampler"]["inputs"]
    model = sampler["model"]
    guidance = {"cfg": 0.0, "cfg_normalization": False, "cfg_truncation": 1.0} | guider
    return prompt | {
        "guider": node("ZImageGuider", model=model, positive=["both", 0], negative=["both", 1], **guidance),
        "sigmas": node("ZImageSigmas", model=model, steps=steps, strength=sampler["strength"], shift=0.0),
        "noise": node("RandomNoise", noise_seed=sampler["seed"]),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "both": encoded(),
        "sampler": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["euler", 0],
            sigmas=["sigmas", 0], latent_image=["size", 0],
        ),
    }  # fmt: skip


def pixels(server: Server, result: Result) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(server.image(result, "save")))


def test_parts_draw_what_the_sampler_draws(server: Server) -> None:
    whole = demo_prompt(variant="Base", mode=BASE, negative=["empty", 0], seed=4)
    parts = in_parts(whole, 5, cfg=4.0, cfg_normalization=True, cfg_truncation=0.5)
    result = succeed(server.run(parts))
    assert (pixels(server, result) == pixels(server, succeed(server.run(whole)))).all()
    assert result.texts["guider"] == "Base (from its metadata), cfg 4 (guidance 3), normalised, until 0.5."
    assert result.texts["sigmas"] == "Base (from its metadata), 5 steps, shift 6 (from the model), strength 1."
    assert result.outputs["guider"]["text"] == [result.texts["guider"]]


@pytest.mark.parametrize(
    "preset, said",
    [
        ({"preset": "auto"}, "shift 3 (Turbo, from its metadata)."),
        ({"preset": "Base"}, "shift 6 (Base's)."),
        ({"preset": "custom", "preset.shift": 4.5}, "shift 4.5 (as set)."),
    ],
)
def test_model_sampling(server: Server, preset: dict[str, Any], said: str) -> None:
    prompt = demo_prompt(model=["shifted", 0])
    prompt["shifted"] = node("ZImageModelSampling", model=["model", 0], **preset)
    result = succeed(server.run(prompt))
    assert result.texts["shifted"] == said
    assert f"{said.split(' (')[0]} (from the graph)" in result.texts["sampler"]


def test_prompts_are_text_boxes(server: Server) -> None:
    inputs = server.node("ZImageTextEncode")["input"]["required"]
    assert all(inputs[name][1]["multiline"] and inputs[name][1]["dynamicPrompts"] for name in ("positive", "negative"))


def test_text_encode(server: Server) -> None:
    """Both prompts from one node draw what two CLIP Text Encode draw; it says how long they are."""
    prompt = demo_prompt(variant="Base", mode=BASE, negative=["empty", 0], seed=4)
    joined = demo_prompt(variant="Base", mode=BASE, positive=["both", 0], negative=["both", 1], seed=4)
    joined["both"] = encoded()
    result = succeed(server.run(joined))
    assert (pixels(server, result) == pixels(server, succeed(server.run(prompt)))).all()
    assert result.texts["both"].startswith("Positive ") and result.texts["both"].endswith("negative 8 tokens.")
    turbo = demo_prompt(positive=["both", 0], negative=["both", 1], seed=4) | {"both": encoded()}
    assert "not evaluated" not in succeed(server.run(turbo)).texts["sampler"]  # an empty one is not missed
    turbo["both"] = encoded(negative="a blue square")
    assert "not evaluated" in succeed(server.run(turbo)).texts["sampler"]
    joined["both"] = encoded(negative="a blue square " * 200)
    assert "The negative prompt is longer than the official 512 tokens" in succeed(server.run(joined)).texts["both"]


def test_a_shift_out_of_range_is_refused(server: Server) -> None:
    prompt = demo_prompt(model=["shifted", 0])
    prompt["shifted"] = node("ZImageModelSampling", model=["model", 0], preset="custom", **{"preset.shift": 0.0})
    assert server.run(prompt).status == "refused"


def test_a_batch_of_prompts_through_the_hosts_sampler(server: Server) -> None:
    """The count sizes the batch; picture 2 is the red circle."""
    text = f"a blue square on a black background\n\n{PROMPT}\n"
    prompt = demo_prompt()
    prompt |= {
        "both": node("ZImagePromptBatch", clip=["clip", 0], prompts=text, negative=""),
        "model": prompt["model"] | {"inputs": prompt["model"]["inputs"] | {"joint_cfg": False}},
        "sampler": node(
            "KSampler", model=["model", 0], positive=["both", 0], negative=["both", 1], latent_image=["size", 0],
            seed=1, steps=8, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        ),
    }  # fmt: skip
    prompt["size"]["inputs"]["batch_size"] = ["both", 2]
    result = succeed(server.run(prompt))
    assert result.texts["both"].startswith("2 prompts of ")
    assert len(result.outputs["save"]["images"]) == 2
    assert_red_circle(server.image(result, "save", 1))


AUTO_3 = {"mode": "auto", "mode.steps": 3, "mode.cfg": 0.0}


@pytest.mark.parametrize(
    "variant, sampler, said, steps, draft",
    [
        ("Turbo", {}, "Turbo (from its metadata), draft, 4 of 8 steps, cfg 1", 4, True),
        ("Base", {"negative": ["empty", 0]}, "Base (from its metadata), draft, 10 of 30 steps, cfg 5", 10, True),
        ("Turbo", {"mode": AUTO_3}, "Turbo (from its metadata), 3 steps, cfg 1", 3, False),
    ],
)
def test_a_draft(server: Server, variant: str, sampler: dict[str, Any], said: str, steps: int, draft: bool) -> None:
    """Fewer steps of the same picture, said on the node, in the log and in the PNG; never more than were asked for."""
    result = succeed(server.run(demo_prompt(variant=variant, seed=6, draft=True, **sampler)))
    assert result.texts["sampler"].startswith(said)
    assert result.progress("sampler")[-1] == (steps, steps)
    assert f"Z-Image Sampler: {said}" in server.log_text()
    record = json.loads(Image.open(server.image(result, "save")).text["zimage"])
    assert (record["draft"], record["steps"]) == (draft, steps)
    if draft:
        assert_red_circle(server.image(result, "save"))
