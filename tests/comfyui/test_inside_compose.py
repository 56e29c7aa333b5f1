"""Conditions that run together, and our MODEL with the host's nodes; `inside_compose.py` has the code."""

from __future__ import annotations

from typing import Any

EXACT = 1e-5  # relative L2, float32


def test_joint(found: dict[str, Any]) -> None:
    """One forward of both for each of the three steps, also where patches look on, and none changes the picture."""
    kept, (short, long) = found.pop("kept"), found.pop("tokens")
    assert kept == [True, True, False, False]
    assert 16 < short < 24 and 96 < long < 128
    assert len(found) == 8
    for name, result in found.items():
        assert result["difference"] < EXACT, name
        assert result["forwards"] == [[3, 12], [6, 12]], name
        assert (result["effect"] > 0.1) == ("plain" not in name), name


def test_prompt_batch(found: dict[str, Any]) -> None:
    """Three prompts and a negative in one forward a step, plain and with what other nodes do to conditionings."""
    for name in ("plain", "patched", "regional", "ranged"):
        result = found[name]
        assert max(result["KSampler"], result["ours"]) < EXACT, name
        # Combined conditionings are two of each, and those with an area of their own run apart.
        assert result["forwards"] == [[6, 36] if name == "regional" else [3, 18]] * 2, name
    assert found["cfg 1"] == [3, 9]
    assert max(found["twice"], found["part of a batch"]) < EXACT
    assert found["each of its own"] > 0.1
    assert found["count"] == 3
    assert found["says"] == "3 prompts of 11 to 104 tokens, negative 141 tokens."
    assert found["wrong count"] == found["wrong count, host's"]
    assert "3 prompts do not go into a batch of 2: set the latent's batch_size to 3" in found["wrong count"]
    assert "(3, 208, 128): leave out the node that joins or averages" in found["joined"]
    assert found["none"] == "there is no prompt: write one on each line of prompts"
    assert found["no encoder"].startswith("there is no text encoder")


def test_prompt_batch_on_hosts_model(found: dict[str, Any]) -> None:
    assert found["equal"] < EXACT
    assert "prompts of different lengths in one batch need a model of Load Z-Image Model" in found["ragged"]
    assert found["ragged, host's"] == found["ragged"]


def test_prompt_batch_is_kept(found: list[int]) -> None:
    assert found == [13, 1]


def test_old_host(found: dict[str, list[str]]) -> None:
    for name, said in found.items():
        assert len(said) == (name in ("0.3.75", "0.23.9", "nightly", "")), name
    assert found["0.23.9"] == ["Z-Image nodes need ComfyUI 0.24.0 or later, and this is 0.23.9: update ComfyUI"]
    assert "one that does not say its version" in found[""][0]


WRONG = {
    "features": "the positive prompt's features are 2560 wide (Qwen3-4B) and this model takes 128: load the demo's",
    "negative": "the negative prompt's features are 2560 wide (Qwen3-4B)",
    "other family": "(1, 4, 16, 16) is of another family",
    "video": "(1, 16, 3, 16, 16) is of another family",
    "NaN": "the positive conditioning holds NaN or infinity, and the picture would be black: the text encoder",
    "infinite negative": "the negative conditioning holds NaN or infinity",
    "infinite latent": "the latent holds NaN or infinity, and the picture would be black: the VAE",
    "nothing": "no error",
}


def test_wrong_inputs_of_ksampler(found: dict[str, Any]) -> None:
    for name, words in WRONG.items():
        assert words in found[name], name
        assert "\n" not in found[name]
    assert len(found["sizes"]) == 1
    assert found["sizes"][0].startswith("32x32 is outside what this model was trained for, 96x96 to 176x176")
