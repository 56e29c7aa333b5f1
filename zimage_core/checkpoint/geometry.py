"""From shapes to the configuration of the module that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import CheckpointError
from ..model import S3DiTConfig
from .files import Checkpoint


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes by canonical name; asking for one that the file lacks says so."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], file: str) -> None:
        super().__init__(shapes)
        self.file = file

    def __missing__(self, name: str) -> tuple[int, ...]:
        raise CheckpointError(f"{self.file} is incomplete: 1 or more missing ({name}, ...); download it again")


def geometry(kind: str, shapes: Shapes, checkpoint: Checkpoint) -> Any:
    """The S3DiTConfig of a transformer, or the keyword arguments of another kind's configuration.

    A config.json is believed only if it speaks of the same kind of model: in a folder of downloads it may be anyone's.
    """
    config = checkpoint.config if _is_of_kind(kind, checkpoint.config) else {}
    try:
        return {"transformer": _transformer, "text_encoder": _text_encoder, "vae": _vae}[kind](shapes, config)
    except (ValueError, ZeroDivisionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{shapes.file} cannot be built: {error}") from error


def count(names: Iterable[str], stem: str) -> int:
    """How many numbered items `stem.0`, `stem.1`, ... there are."""
    found = [re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in names]
    return 1 + max((int(m[1]) for m in found if m), default=-1)


def _is_of_kind(kind: str, config: Mapping[str, Any]) -> bool:
    if kind == "text_encoder":
        return str(config.get("model_type", "")).startswith("qwen3")
    return kind == "transformer" and "ZImage" in str(config.get("_class_name", ""))


def _transformer(shapes: Shapes, config: Mapping[str, Any]) -> S3DiTConfig:
    if "x_pad_token" not in shapes and "cap_pad_token" not in shapes:
        raise CheckpointError(f"{shapes.file} has no pad tokens: it is a Lumina 2 model, not a Z-Image one")
    if any(name.startswith("siglip_") for name in shapes):
        raise CheckpointError(f"{shapes.file} is a Z-Image Omni model, which is not supported yet")
    dim, patch_dim = shapes["x_embedder.weight"]
    head_dim = shapes["noise_refiner.0.attention.k_norm.weight"][0]
    return S3DiTConfig(
        dim=dim,
        n_layers=count(shapes, "layers"),
        n_refiner_layers=count(shapes, "noise_refiner"),
        n_heads=dim // head_dim,
        cap_feat_dim=shapes["cap_embedder.1.weight"][1],
        in_channels=patch_dim // 4,
        ffn_dim=shapes["layers.0.feed_forward.w1.weight"][0],
        adaln_dim=shapes["t_embedder.mlp.2.weight"][0],
        time_dim=shapes["t_embedder.mlp.0.weight"][0],
        axes_dims=tuple(config.get("axes_dims") or ()),
        rope_theta=float(config.get("rope_theta", 256.0)),
    )


def _text_encoder(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for transformers' Qwen3Config."""
    head_dim = shapes["layers.0.self_attn.q_norm.weight"][0]
    vocab_size, hidden_size = shapes["embed_tokens.weight"]
    # transformers 5 writes theta a level deeper than 4 did.
    rope = config.get("rope_parameters") or config
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": count(shapes, "layers"),
        "num_attention_heads": shapes["layers.0.self_attn.q_proj.weight"][0] // head_dim,
        "num_key_value_heads": shapes["layers.0.self_attn.k_proj.weight"][0] // head_dim,
        "head_dim": head_dim,
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_theta": float(rope.get("rope_theta", 1e6)),
        "max_position_embeddings": 40960,
        "attention_bias": False,
        "tie_word_embeddings": True,
    }


def _vae(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for diffusers' AutoencoderKL."""
    latent_channels = shapes["decoder.conv_in.weight"][1]
    if latent_channels != 16 or "quant_conv.weight" in shapes:
        raise CheckpointError(
            f"{shapes.file} is a VAE with {latent_channels} latent channels of another family: "
            f"Z-Image needs the 16-channel Flux VAE (ae.safetensors)"
        )
    levels = count(shapes, "encoder.down_blocks")
    return {
        "block_out_channels": [shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)],
        "layers_per_block": count(shapes, "encoder.down_blocks.0.resnets"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": latent_channels,
        "norm_num_groups": 32,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
