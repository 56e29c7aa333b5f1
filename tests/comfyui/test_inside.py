"""Our parts against ComfyUI's own modules and against the engine; `inside.py` has the code of each check."""

from __future__ import annotations

from typing import Any

TOLERANCE = 1e-3  # relative L2, float32


def test_text_features(found: list[float]) -> None:
    assert max(found) < TOLERANCE


def test_vae(found: dict[str, float]) -> None:
    assert max(found.values()) < TOLERANCE


def test_real_encoder(found: dict[str, Any]) -> None:
    assert found["features"] < TOLERANCE
    # Qwen's own ids of the template around "a cat", from the reference's check vectors.
    assert found["tokens"] == [151644, 872, 198, 64, 8251, 151645, 198, 151644, 77091, 198]


def test_composed_guidance(found: dict[str, float]) -> None:
    assert found["same"] < 1e-5
    assert found["other"] < 1e-5


def test_real_vae(found: dict[str, float]) -> None:
    """Of the real widths, with random weights: both key layouts go through the host's own detection."""
    assert max(found.values()) < TOLERANCE


def test_latents(found: dict[str, float]) -> None:
    """ZImageSampler and zimage_core.sample, over whole trajectories."""
    assert len(found) == 7
    assert max(found.values()) < TOLERANCE, found


def test_ksampler(found: dict[str, float]) -> None:
    assert max(found.values()) < TOLERANCE, found


def test_host_module(found: dict[str, Any]) -> None:
    """The host's NextDiT on the same weights; and our sampler on a MODEL of the host's."""
    assert max(found["velocity"]) < 1e-4
    assert found["samples"] < TOLERANCE
    assert "a guess from its weights" in found["text"]
    assert found["lora map"]
    assert found["bfloat16"] == ["torch.bfloat16", "torch.float32"]  # kept small, computed in float32 on a CPU


def test_batches(found: dict[str, float]) -> None:
    assert found["batch"] < 1e-5
    assert found["batch_index"] < 1e-5
    assert found["differs"] > 0.1
    assert found["strength 0"] == 0


def test_mask(found: dict[str, float]) -> None:
    assert found["kept"] < 1e-5
    assert found["drawn"] > 0.1


def test_ragged(found: dict[str, Any]) -> None:
    assert found["together"] < 1e-5
    assert found["patched"] < 1e-5
    assert found["joined"]
    # Two captions fill up to 64 tokens and run together; patches see who is who.
    assert found["groups"] == [[1, 32, 0], [1, 96, 2], [2, 64, 1, 3]]


def test_seam(found: dict[str, Any]) -> None:
    depth, calls = found["depth"], found["calls"]
    for name in ("wrapper", "patches", "override", "replaced", "rope 1"):
        assert found[name] < 1e-6, name
    for name in ("skipped", "in place", "rope 2"):
        assert found[name] > 0.01, name
    assert found["odd"] == [1, 16, 15, 17]
    assert calls["double"] == [[i, i, depth, "double"] for i in range(depth)]
    assert [call[:2] for call in calls["refiner"]] == [[0, "noise_refiner"], [1, "noise_refiner"]]
    assert len(calls["attention"]) == depth + 4
    keys, pe, img, txt, x = calls["keys"]
    assert {"img", "img_input", "txt", "pe", "vec", "x", "block_index", "transformer_options"} <= set(keys)
    assert pe[:3] == [1, img[1], 1] and pe[4:] == [2, 2]
    assert (img[1], txt[1], x) == (64, 32, [1, 16, 14, 18])


def test_lora(found: dict[str, Any]) -> None:
    assert found["mapped"]
    assert found["patches"] == 4  # q, k and v share one fused weight
    assert found["effect"] > 0.01
    assert found["undone"] == 0


def test_patcher(found: dict[str, Any]) -> None:
    assert (found["clone"], found["reloaded"], found["forced"]) == ("base", "base", "base")
    assert found["shift"] == [3.0, 6.0]
    assert found["clip"].startswith("ModelPatcher") and found["vae"].startswith("ModelPatcher")
    assert found["latent"] == 16
    assert found["saved"] == found["tensors"]


def test_evaluations(found: dict[str, Any]) -> None:
    """How often the model really runs, in calls and in rows: positive and negative share a call."""
    assert found == {
        "turbo with a negative": [8, 8],
        "base": [4, 8],
        "base truncated": [4, 6],
    }


def test_texts(found: dict[str, str]) -> None:
    assert found["auto turbo"].splitlines() == [
        "Turbo (from its metadata), 8 steps, cfg 1 (guidance 0),",
        "shift 3 (from the model), euler, 8 forwards.",
    ]
    assert "cfg 5 (guidance 4)" in found["auto base"] and "shift 6 (from the model)" in found["auto base"]
    assert "4 forwards" in found["auto base"]
    assert found["negative"].endswith("The negative prompt has no effect at cfg 1 and is not evaluated.")
    assert "cfg 2 is run as set" in found["cfg on turbo"]
    assert "normalised, until 0.1" in found["truncated"] and "6 forwards" in found["truncated"]
    assert "shift 2.5 (from the graph)" in found["from the graph"]
    assert "shift 4 (as set)" in found["widget over graph"]
    assert "5 forwards" in found["heun"] and "shift 3 (from the model)" in found["heun"]
    assert "strength 0" in found["strength 0"] and "0 forwards" in found["strength 0"]
    assert "Mode Base on a Turbo model" in found["mode base on turbo"]
    assert "schedule from the graph" in found["a schedule of its own"]


ERRORS = {
    "no negative": "connect a second CLIP Text Encode to negative (it may be empty), or set cfg to 1",
    "cfg 0.5": "cfg is 0.5",
    "not z-image": "needs a Z-Image model",
    "vae as model": "is a Flux-type VAE, not a Z-Image transformer",
    "model as vae": "is a Z-Image transformer, not a Flux-type VAE",
    "model as text encoder": "is a Z-Image transformer, not a Qwen3 text encoder",
    "missing tensor": "1 missing (layers.1.attention.out.weight)",
    "missing in vae": "1 missing (decoder.conv_norm_out.bias)",
    "missing in text encoder": "1 missing (layers.1.mlp.up_proj.weight)",
    "text": "is not a safetensors file",
    "no file": "there is no file 'gone.safetensors' in ComfyUI's folder diffusion_models; the Z-Image models",
}


def test_errors(found: dict[str, str]) -> None:
    assert found.keys() == ERRORS.keys()
    for name, part in ERRORS.items():
        assert part in found[name], name
        assert "\n" not in found[name]


def test_start(found: dict[str, float]) -> None:
    """What ComfyUI's start-up pays for us, in seconds of work: modules and schemas."""
    assert found["seconds"] < 0.15
    assert found["late"] == []  # what takes long to import is not imported for us
