"""What is wrong with a run, said in one sentence before it costs a black picture or ends deep inside the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..settings import DEMO_WIDTH, REAL_WIDTH

BLACK = "holds NaN or infinity, and the picture would be black"

# Features by their width: what a user may have wired, and how ComfyUI comes to make it.
_ENCODERS = {
    DEMO_WIDTH: "the demo's text encoder",
    768: "CLIP-L",
    2048: "CLIP of SDXL",
    2304: "Gemma 2 2B, as Lumina 2 takes it",
    REAL_WIDTH: "Qwen3-4B",
    3584: "Qwen2.5-VL 7B, as Qwen-Image takes it",
    4096: "T5-XXL",
    7680: "Qwen3-4B as FLUX.2 Klein takes it, Load CLIP with type flux2",
    12288: "Qwen3-8B as FLUX.2 Klein takes it",
}


def feature_width(model: Any) -> int:
    """How wide the features are that a MODEL takes; it tells the demo from the real model."""
    return int(model.model.model_config.unet_config["cap_feat_dim"])


def check_features(model: Any, prompts: Mapping[str, Iterable[Any] | None]) -> None:
    """Parts of different models meet here first. `prompts` are CONDITIONINGs by name."""
    width = feature_width(model)
    for name, conditioning in prompts.items():
        for features, *_ in conditioning or []:
            check_width(features, width, name)


def check_width(features: Tensor, width: int, name: str) -> None:
    """`name` is positive or negative."""
    if features.shape[-1] != width:
        raise ValueError(
            f"the {name} prompt's features are {features.shape[-1]} wide"
            f"{_whose(features.shape[-1])} and this model takes {width}: load {_right_encoder(width)}"
        )


def _whose(width: int) -> str:
    """In brackets, whose features these are, if their width tells."""
    return f" ({_ENCODERS[width]})" if width in _ENCODERS else ""


def _right_encoder(width: int) -> str:
    if width == REAL_WIDTH:
        return "Qwen3-4B with Load Z-Image Text Encoder, or with Load CLIP and type lumina2"
    whose = "the demo's text encoder" if width == DEMO_WIDTH else "the text encoder that goes with it"
    return f"{whose} with Load Z-Image Text Encoder"


def check_latent(samples: Tensor) -> None:
    if samples.is_nested or samples.ndim != 4 or (samples.shape[1] != 16 and samples.any()):
        raise ValueError(
            f"the latent of shape {tuple(samples.shape)} is of another family: encode the picture with the Flux VAE"
        )


def check_finite_start(conds: Mapping[str, Iterable[Mapping[str, Any]]], image: Tensor) -> None:
    """Features and latent before the first step. `conds` are the guider's: dictionaries by name."""
    for name, entries in conds.items():
        for entry in entries:
            check_finite_features(entry.get("cross_attn"), name)
    check_finite_latent(image)


def check_finite_features(features: Tensor | None, name: str) -> None:
    if not _is_finite(features):
        raise FloatingPointError(
            f"the {name} conditioning {BLACK}: the text encoder overflowed, so start ComfyUI with --fp32-text-enc, "
            f"load the encoder with device cpu (Load CLIP), or try another file of it"
        )


def check_finite_latent(image: Tensor | None) -> None:
    if not _is_finite(image):
        raise FloatingPointError(
            f"the latent {BLACK}: the VAE that encoded it overflowed, so start ComfyUI with --fp32-vae or --cpu-vae"
        )


def check_finite_step(model: Any, x: Tensor, denoised: Tensor, sigma: Tensor, levels: Tensor) -> None:
    """After each forward, on the denoised latents alone; what costs more is asked only once that has failed."""
    if _is_finite(denoised):
        return
    level = float(sigma.flatten()[0])
    done = int((levels.float().cpu() >= level - 1e-6).sum())
    place = f"step {min(done, len(levels) - 1)} of {len(levels) - 1} (sigma {level:.4g})"
    if not _is_finite(x):
        raise FloatingPointError(
            f"at {place} what the solver made of the last step {BLACK}: try the solver euler, or leave out nodes that "
            f"change how the model is sampled"
        )
    raise FloatingPointError(f"at {place} the model's prediction {BLACK}: {_cure(model)}")


def _cure(model: Any) -> str:
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    attention = getattr(optimized_attention, "__name__", "another pack's attention")
    cures = ["leave out LoRAs and other nodes that change the model"]
    if attention != "attention_pytorch":
        cures.insert(0, "start ComfyUI with --use-pytorch-cross-attention")
    if dtype != torch.float32:
        other = "float32" if dtype == torch.bfloat16 else "bfloat16 or float32"
        cures.insert(0, f"load the model with dtype {other}")
    return f"it computes in {str(dtype).removeprefix('torch.')} with {attention}, so {', or '.join(cures)}"


def _is_finite(tensor: Tensor | None) -> bool:
    return tensor is None or bool(torch.isfinite(tensor).all())
