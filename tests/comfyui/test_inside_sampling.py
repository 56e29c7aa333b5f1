"""Sampling in parts, the official guidance, what stops a run, prompts; `inside_sampling.py` has the code."""

from __future__ import annotations

from typing import Any

EXACT = 1e-5  # relative L2, float32
TOLERANCE = 1e-4  # over a whole trajectory of another implementation


def test_parts(found: dict[str, float]) -> None:
    """SamplerCustomAdvanced with our parts and RandomNoise is our sampler, picture for picture."""
    assert len(found) == 18
    assert max(found.values()) <= EXACT, found


def test_diffusers(found: dict[str, Any]) -> None:
    """The official pipeline at batch 1 and 3, against both ways through ComfyUI."""
    assert len(found["differences"]) == 12
    assert max(max(pair) for pair in found["differences"].values()) < TOLERANCE, found["differences"]
    assert found["effect"] > 0.05  # each setting changes the picture
    # 6 steps: two forwards each while guided, one afterwards, and 1 - sigma is 0 at the first.
    for batch in (1, 3):
        assert found["forwards"][f"{batch}: 0, 0, 1"] == 6
        assert found["forwards"][f"{batch}: 4, 1, 1"] == 12
        assert found["forwards"][f"{batch}: 4, 1, 0.2"] == 10
        assert found["forwards"][f"{batch}: 4, 1, 0"] == 7


def test_guider_evaluations(found: dict[str, list[int]]) -> None:
    """Calls of the model and rows in them: a truncated step has the positive's rows alone."""
    assert found == {
        "turbo": [4, 4],
        "base": [4, 8],
        "truncated": [4, 6],
        "truncated from the start": [4, 5],
        "truncated, batch": [4, 18],
    }


def test_shift_nodes(found: dict[str, Any]) -> None:
    assert found["sd3 before"] == [3.0, 1000]
    assert found["sd3"] == [2.0, 1000, 500.0]  # its own count of timesteps
    assert found["untouched"] == [6.0, 0]
    assert found["auto"] == ["shift 6 (Base, from its metadata).", 6.0]
    assert "shift 2 (from the graph)" in found["sampler"]
    assert found["as the host's node"] == [0.0, 2.5, 1.0]
    assert found["sigmas"] == "Base (from its metadata), 30 steps, shift 6 (from the model), strength 0.5."
    assert found["none"] == 0
    assert found["guider"] == "Base (from its metadata), cfg 5 (guidance 4), normalised, until 0.5."
    assert found["guider on turbo"].endswith("The negative prompt has no effect at cfg 1 and is not evaluated.")
    assert "cannot be set here: it does not sample as Z-Image does" in found["refused"]
    for name in ("auto of another", "sigmas of another", "guider of another"):
        assert "this node needs a Z-Image model" in found[name]
    assert "cfg 5 needs a negative prompt" in found["no negative"]
    assert "preset must be one of auto, Turbo, Base, custom" in found["no preset"]


PLACES = {
    "positive": ("the positive conditioning holds NaN or infinity", "--fp32-text-enc"),
    "negative": ("the negative conditioning holds NaN or infinity", "device cpu"),
    "latent": ("the latent holds NaN or infinity", "--fp32-vae"),
    "first step": ("at step 1 of 8 (sigma 1) the model's prediction", "computes in float32 with attention_"),
    "late": ("at step 5 of 8 (sigma 0.75) the model's prediction", "leave out LoRAs"),
    "late, by the guider": ("at step 5 of 8 (sigma 0.75) the model's prediction", "leave out LoRAs"),
    "late, heun": ("at step 5 of 8 (sigma 0.75) the model's prediction", "leave out LoRAs"),
    "the solver": ("at step 2 of 2 (sigma 0.5) what the solver made of the last step", "euler"),
    "float16": ("computes in float16", "load the model with dtype bfloat16 or float32"),
}


def test_not_finite(found: dict[str, Any]) -> None:
    for name, parts in PLACES.items():
        assert all(part in found[name] for part in parts), found[name]
        assert "\n" not in found[name]
    assert found["stopped after"] == [5, 5]
    assert found["good"] == "no error"
    assert found["questions"] == 1 + 1 + 4  # features, latent, and one for each step


def test_mismatches(found: dict[str, Any]) -> None:
    assert "2560 wide (Qwen3-4B) and this model takes 128: load the demo's text" in found["real encoder, demo"]
    assert "128 wide (the demo's text encoder) and this model takes 2560" in found["demo encoder, real"]
    assert "Load CLIP with type flux2) and this model takes 2560: load Qwen3-4B" in found["klein"]
    assert "777 wide and this model takes 2560" in found["unknown"] and "type lumina2" in found["unknown"]
    assert found["negative"].startswith("the negative prompt's features are 2560 wide")
    assert "(1, 4, 16, 16) is of another family" in found["other family"]
    assert "(1, 16, 1, 16, 16) is of another family" in found["video"]
    assert "320x320 is outside what this model was trained for" in found["large demo"]
    assert "outside" not in found["demo"]
    assert found["notes"] == [0, 0, 0, 0, 0, 1, 1]


def test_prompts(found: dict[str, Any]) -> None:
    assert found["counts"] == {
        "both": 2, "again": 0, "negative": 1, "swapped": 0, "clone": 0, "lora": 2, "back": 0, "layer": 2, "options": 2,
        "hooks": 2, "wrapper": 2, "object patch": 2,
    }  # fmt: skip
    results = found["results"]
    assert max(results["same"], results["lora"], results["layer"]) == 0
    assert results["lora effect"] > 0.01
    assert found["clean"] == ["attention_mask", "pooled_output"]
    assert found["kept"] == 8
    assert found["encoders"] == [2, 1]  # what was kept goes with its encoder
    assert found["text"] == f"Positive {found['tokens']} tokens, negative 8 tokens."
    assert "longer than the official 512 tokens: ComfyUI does not cut it" in found["long"]
    assert found["not cut"] > 512
    assert found["no encoder"].startswith("there is no text encoder")
