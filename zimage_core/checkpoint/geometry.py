"""From shapes to the configuration of the module that they belong to, and back to the shapes it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import CheckpointError
from ..model import S3DiT, S3DiTConfig
from .files import Checkpoint

MAX_LAYERS = 1000  # far above any model's, and few enough to be built in a moment
VAE_SCALE, VAE_SHIFT = 0.3611, 0.1159


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes by canonical name; asking for one that the file lacks says so."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], file: str) -> None:
        super().__init__(shapes)
        self.file = file

    def __missing__(self, name: str) -> tuple[int, ...]:
        raise CheckpointError(f"{self.file} is incomplete: 1 or more missing ({name}, ...); download it again")

    def matrix(self, name: str) -> tuple[int, int]:
        return self.of_rank(name, 2)  # type: ignore[return-value]

    def vector(self, name: str) -> int:
        return self.of_rank(name, 1)[0]

    def of_rank(self, name: str, rank: int) -> tuple[int, ...]:
        if len(self[name]) != rank:
            raise CheckpointError(f"{self.file} has {name} of shape {list(self[name])}: it is damaged")
        return self[name]


def geometry(kind: str, shapes: Shapes, checkpoint: Checkpoint) -> Any:
    """The S3DiTConfig of a transformer, or the keyword arguments of another kind's configuration.

    A config.json is believed only if it speaks of the same kind of model: in a folder of downloads it may be anyone's.
    """
    config = checkpoint.config if _is_of_kind(kind, checkpoint.config) else {}
    try:
        if kind == "text_encoder":
            return _text_encoder(shapes, config, checkpoint.metadata)
        return _transformer(shapes, config) if kind == "transformer" else _vae(shapes)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{shapes.file} cannot be built: {error}") from error


def expected_shapes(kind: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Every canonical tensor of a component of this configuration, and its shape."""
    if kind == "transformer":
        return {name: tuple(p.shape) for name, p in S3DiT(config, device="meta").state_dict().items()}
    return dict(_text_encoder_shapes(config) if kind == "text_encoder" else _vae_shapes(config))


def count(names: Iterable[str], stem: str) -> int:
    """How many items there are in the unbroken row `stem.0`, `stem.1`, ..."""
    pattern = re.compile(rf"{re.escape(stem)}\.(\d{{1,6}})\.")
    found = {int(match[1]) for name in names if (match := pattern.match(name))}
    number = next(i for i in range(len(found) + 1) if i not in found)
    if number > MAX_LAYERS:
        raise CheckpointError(f"a file with {number:,} {stem} is no model")
    return number


def _is_of_kind(kind: str, config: Mapping[str, Any]) -> bool:
    if kind == "text_encoder":
        return config.get("model_type") == "qwen3"
    return kind == "transformer" and "ZImage" in str(config.get("_class_name", ""))


def _transformer(shapes: Shapes, config: Mapping[str, Any]) -> S3DiTConfig:
    dim, patch_dim = shapes.matrix("x_embedder.weight")
    head_dim = shapes.vector("noise_refiner.0.attention.k_norm.weight")
    return S3DiTConfig(
        dim=dim,
        n_layers=count(shapes, "layers"),
        n_refiner_layers=count(shapes, "noise_refiner"),
        n_heads=dim // head_dim,
        cap_feat_dim=shapes.matrix("cap_embedder.1.weight")[1],
        in_channels=patch_dim // 4,
        ffn_dim=shapes.matrix("layers.0.feed_forward.w1.weight")[0],
        adaln_dim=shapes.matrix("t_embedder.mlp.2.weight")[0],
        time_dim=shapes.matrix("t_embedder.mlp.0.weight")[0],
        axes_dims=tuple(config.get("axes_dims") or ()),
        rope_theta=float(config.get("rope_theta", 256.0)),
    )


def _text_encoder(shapes: Shapes, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for transformers' Qwen3Config."""
    head_dim = shapes.vector("layers.0.self_attn.q_norm.weight")
    vocab_size, hidden_size = shapes.matrix("embed_tokens.weight")
    # transformers 5 writes theta a level deeper than 4 did; a GGUF file has it in its metadata.
    rope = config.get("rope_parameters") or config
    theta = rope.get("rope_theta") or metadata.get("qwen3.rope.freq_base") or 1e6
    epsilon = config.get("rms_norm_eps") or metadata.get("qwen3.attention.layer_norm_rms_epsilon") or 1e-6
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": shapes.matrix("layers.0.mlp.gate_proj.weight")[0],
        "num_hidden_layers": count(shapes, "layers"),
        "num_attention_heads": shapes.matrix("layers.0.self_attn.q_proj.weight")[0] // head_dim,
        "num_key_value_heads": shapes.matrix("layers.0.self_attn.k_proj.weight")[0] // head_dim,
        "head_dim": head_dim,
        # GGUF holds them in single precision, which must not show.
        "rms_norm_eps": float(f"{float(epsilon):.6g}"),
        "rope_theta": float(f"{float(theta):.6g}"),
        "max_position_embeddings": 40960,
        "attention_bias": False,
        "tie_word_embeddings": True,
    }


def _text_encoder_shapes(config: Mapping[str, Any]) -> Iterable[tuple[str, tuple[int, ...]]]:
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "embed_tokens.weight", (config["vocab_size"], width)
    for i in range(config["num_hidden_layers"]):
        for name, shape in {
            "input_layernorm": (width,), "post_attention_layernorm": (width,),
            "self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries),
            "self_attn.q_norm": (head,), "self_attn.k_norm": (head,),
            "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner),
        }.items():  # fmt: skip
            yield f"layers.{i}.{name}.weight", shape
    yield "norm.weight", (width,)


def _vae(shapes: Shapes) -> dict[str, Any]:
    """Keyword arguments for diffusers' AutoencoderKL."""
    levels = count(shapes, "encoder.down_blocks")
    if levels == 0:
        raise CheckpointError(f"{shapes.file} has no encoder: use the whole VAE (ae.safetensors)")
    widths = [shapes.of_rank(f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)[0] for i in range(levels)]
    return {
        "block_out_channels": widths,
        "layers_per_block": count(shapes, "encoder.down_blocks.0.resnets"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": shapes.of_rank("decoder.conv_in.weight", 4)[1],
        "norm_num_groups": 32,
        "scaling_factor": VAE_SCALE,
        "shift_factor": VAE_SHIFT,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def _vae_shapes(config: Mapping[str, Any]) -> Iterable[tuple[str, tuple[int, ...]]]:
    widths, depth, latent = config["block_out_channels"], config["layers_per_block"], config["latent_channels"]
    yield from _vae_half("encoder", "down", widths, depth, 3, 2 * latent)
    yield from _vae_half("decoder", "up", widths[::-1], depth + 1, latent, 3)


def _vae_half(
    half: str, way: str, widths: list[int], depth: int, given: int, made: int
) -> Iterable[tuple[str, tuple[int, ...]]]:
    """A half reads through its levels in order; its middle stands at the deepest width, behind or before them."""
    deepest = widths[-1] if way == "down" else widths[0]
    yield from _convolution(f"{half}.conv_in", given, widths[0])
    width = widths[0]
    for level, out in enumerate(widths):
        for i in range(depth):
            yield from _resnet(f"{half}.{way}_blocks.{level}.resnets.{i}", width if i == 0 else out, out)
        if level < len(widths) - 1:
            yield from _convolution(f"{half}.{way}_blocks.{level}.{way}samplers.0.conv", out, out)
        width = out
    for i in range(2):
        yield from _resnet(f"{half}.mid_block.resnets.{i}", deepest, deepest)
    attention = f"{half}.mid_block.attentions.0"
    yield from _vector_pair(f"{attention}.group_norm", deepest)
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        yield f"{attention}.{name}.weight", (deepest, deepest)
        yield f"{attention}.{name}.bias", (deepest,)
    yield from _vector_pair(f"{half}.conv_norm_out", width)
    yield from _convolution(f"{half}.conv_out", width, made)


def _resnet(stem: str, given: int, made: int) -> Iterable[tuple[str, tuple[int, ...]]]:
    yield from _vector_pair(f"{stem}.norm1", given)
    yield from _convolution(f"{stem}.conv1", given, made)
    yield from _vector_pair(f"{stem}.norm2", made)
    yield from _convolution(f"{stem}.conv2", made, made)
    if given != made:
        yield from _convolution(f"{stem}.conv_shortcut", given, made, size=1)


def _convolution(stem: str, given: int, made: int, size: int = 3) -> Iterable[tuple[str, tuple[int, ...]]]:
    yield f"{stem}.weight", (made, given, size, size)
    yield f"{stem}.bias", (made,)


def _vector_pair(stem: str, width: int) -> Iterable[tuple[str, tuple[int, ...]]]:
    yield f"{stem}.weight", (width,)
    yield f"{stem}.bias", (width,)
