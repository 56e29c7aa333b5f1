"""Recognise a checkpoint by its keys and shapes, from headers only, or explain what it is instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..variants import STATISTIC_KEY, VariantGuess, detect_variant, variant_in_name
from .files import COMPONENT_FOLDERS, DTYPES, Checkpoint, TensorInfo, open_checkpoint
from .geometry import Shapes, count, geometry
from .layouts import TEXT_ENCODER_LAYOUTS, TRANSFORMER_LAYOUTS, VAE_LAYOUTS, Rules, Source, canonical, find_prefix

TITLES = {"transformer": "a Z-Image transformer", "text_encoder": "a Qwen3 text encoder", "vae": "a Flux-type VAE"}
# Kind -> layout -> the keys that mark it, and the table that leads from it to the canonical names.
LAYOUTS: dict[str, dict[str, tuple[tuple[str, ...], Rules]]] = {
    "transformer": {
        "original": (
            ("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight"),
            TRANSFORMER_LAYOUTS["original"],
        ),
        "diffusers": (
            ("all_x_embedder.2-1.weight", "noise_refiner.0.attention.norm_k.weight"),
            TRANSFORMER_LAYOUTS["diffusers"],
        ),
    },
    "text_encoder": {
        "transformers": (
            ("embed_tokens.weight", "layers.0.self_attn.q_norm.weight", "layers.0.post_attention_layernorm.weight"),
            TEXT_ENCODER_LAYOUTS["transformers"],
        ),
    },
    "vae": {
        "ldm": (("decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight"), VAE_LAYOUTS["ldm"]),
        "diffusers": (
            ("decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.norm1.weight"),
            VAE_LAYOUTS["diffusers"],
        ),
    },
}
DENSE = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_QUANTIZED_KEY = re.compile(
    r"(^|\.)(scaled_fp8|comfy_quant|scale_weight|weight_scale(_2)?|qweight|wscales|absmax|SCB)$"
)

# What a file may be instead, by a key that only such files have.
_OTHERS = [
    (r"lora_(A|B|up|down)\b|lokr_w|hada_w", "a LoRA, which changes a model and cannot be loaded as one"),
    (r"control_all_x_embedder|control_layers\.", "a Z-Image ControlNet, which goes beside a model"),
    (r"siglip_embedder\.", "a Z-Image Omni model, which is not supported yet"),
    (r"clip_text_pooled_proj", "a NewBie model"),
    (r"double_blocks\.\d+\.img_attn", "a Flux model"),
    (r"joint_blocks\.\d+", "a Stable Diffusion 3 model"),
    (r"transformer_blocks\.\d+\.(attn|img_mod|txt_mod)", "a transformer of another family"),
    (r"(input_blocks|middle_block|output_blocks)\.\d+|down_blocks\.\d+\.attentions", "a Stable Diffusion UNet"),
    (r"visual\.|language_model\.", "a vision-language model; Z-Image needs the plain Qwen3-4B (qwen_3_4b.safetensors)"),
    (r"encoder\.block\.\d+\.layer", "a T5 text encoder; Z-Image needs Qwen3-4B (qwen_3_4b.safetensors)"),
    (r"text_model\.encoder\.layers", "a CLIP model; Z-Image needs Qwen3-4B (qwen_3_4b.safetensors)"),
    (r"model\.layers\.\d+\.self_attn", "a language model other than Qwen3"),
    (r"(encoder|decoder)\.layers\.\d+\.(weight|conv)|^\d+\.(weight|conv)", "a tiny autoencoder for previews"),
]  # fmt: skip


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is.

    kind           "transformer", "text_encoder" or "vae"
    layout         the key layout, a name in `layouts.py`
    quantization   "float32", "bfloat16", "float16", "float64", "mixed" (of those), or "quantized"
    told           Turbo or Base and how that was told; None for anything but a transformer
    config         the geometry that the shapes tell: S3DiTConfig, or keyword arguments for the module
    prefix         what every key of the component starts with
    sources        canonical names and the file keys that they come from
    parts          every kind that the file holds: several in an all-in-one checkpoint
    """

    path: Path
    kind: str
    layout: str
    quantization: str
    told: VariantGuess | None
    config: Any
    prefix: str = ""
    n_tensors: int = 0
    n_parameters: int = 0
    n_bytes: int = 0
    parts: tuple[str, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(Path(), {}), repr=False)

    @property
    def variant(self) -> str | None:
        """ "turbo" or "base"; None for anything but a transformer."""
        return self.told.name if self.told else None


def inspect_checkpoint(path: str | Path, kind: str | None = None) -> CheckpointInfo:
    """Say what a checkpoint is, from headers only (and one small tensor where nothing else tells the variant).

    `kind` asks for one kind of a file that may hold several, or of a diffusers folder; without it the first one
    found is described. Raises CheckpointError, with what the file is instead, if it is none of them.
    """
    checkpoint = open_checkpoint(path, kind or _first_part(Path(path).expanduser()))
    found = {k: match for k in LAYOUTS if (match := _match(checkpoint.tensors, k))}
    if not found or (kind and kind not in found):
        raise CheckpointError(_explain(checkpoint, kind, tuple(found)))
    chosen = kind or next(iter(found))
    layout, prefix = found[chosen]
    sources = canonical(checkpoint.tensors, LAYOUTS[chosen][layout][1], prefix)
    shapes = Shapes({n: _shape(s, checkpoint.tensors) for n, s in sources.items()}, checkpoint.path.name)
    tensors = [checkpoint.tensors[key] for source in sources.values() for key in source.keys]
    return CheckpointInfo(
        path=checkpoint.path,
        kind=chosen,
        layout=layout,
        quantization=_quantization(checkpoint, sources, tensors),
        told=_variant(checkpoint, sources) if chosen == "transformer" else None,
        config=geometry(chosen, shapes, checkpoint),
        prefix=prefix,
        n_tensors=len(sources),
        n_parameters=sum(prod(shape) for shape in shapes.values()),
        n_bytes=sum(prod(t.shape) * DTYPES[t.dtype].itemsize for t in tensors if t.dtype in DTYPES),
        parts=tuple(found),
        sources=sources,
        checkpoint=checkpoint,
    )


def _first_part(path: Path) -> str | None:
    """A diffusers folder is described by its transformer."""
    return "transformer" if path.is_dir() and (path / "transformer").is_dir() else None


def _match(tensors: Mapping[str, TensorInfo], kind: str) -> tuple[str, str] | None:
    """The layout and prefix under which `tensors` hold a component of `kind`."""
    for layout, (markers, _) in LAYOUTS[kind].items():
        prefix = find_prefix(tensors, kind, markers[0])
        if prefix is not None and all(prefix + marker in tensors for marker in markers):
            return layout, prefix
    return None


def _shape(source: Source, tensors: Mapping[str, TensorInfo]) -> tuple[int, ...]:
    first, *others = (tensors[key].shape for key in source.keys)
    return (sum((s[0] for s in others), first[0]), *first[1:]) if others else first


def _quantization(checkpoint: Checkpoint, sources: Mapping[str, Source], tensors: list[TensorInfo]) -> str:
    dtypes = {t.dtype for t in tensors}
    marked = any(_QUANTIZED_KEY.search(name) for name in sources) or "_quantization_metadata" in checkpoint.metadata
    if marked or not dtypes <= set(DENSE):
        return "quantized"
    large = {t.dtype for t in tensors if len(t.shape) > 1} or dtypes
    return DENSE[large.pop()] if len(large) == 1 else "mixed"


def _variant(checkpoint: Checkpoint, sources: Mapping[str, Source]) -> VariantGuess:
    told = detect_variant(scheduler=checkpoint.scheduler, metadata=checkpoint.metadata, name=_name(checkpoint))
    if told.source == "default":  # the one thing that is no header: a small tensor
        told = detect_variant(statistic=overflow_statistic(checkpoint, sources))
    return told


def _name(checkpoint: Checkpoint) -> str:
    """The name that speaks for a checkpoint: its own, or its folder's where its own is the same in every folder."""
    path = checkpoint.path.absolute()
    file = next(iter(checkpoint.tensors.values())).file.absolute()
    folder = file.parent.parent if file.parent.name in COMPONENT_FOLDERS.values() else file.parent
    names = [path.name, file.name] + ([folder.name] if file.name.startswith(("diffusion_pytorch", "model")) else [])
    return next((name for name in names if variant_in_name(name)), path.name)


def overflow_statistic(checkpoint: Checkpoint, sources: Mapping[str, Source]) -> float | None:
    """The standard deviation of the weight of `layers.{n - 2}.ffn_norm1`: below 0.42, float16 is believed safe."""
    source = sources.get(STATISTIC_KEY.format(max(count(sources, "layers") - 2, 0)))
    if source is None or checkpoint.tensors[source.keys[0]].dtype not in DENSE:
        return None
    return float(checkpoint.reader()(source.keys[0]).float().std())


def _explain(checkpoint: Checkpoint, kind: str | None, found: tuple[str, ...]) -> str:
    wanted = TITLES[kind] if kind else "a Z-Image transformer, a Qwen3 text encoder or a Flux-type VAE"
    name = checkpoint.path.name
    if found:
        return f"{name} is {TITLES[found[0]]}, not {wanted}"
    for pattern, title in _OTHERS:
        if any(re.search(pattern, key) for key in checkpoint.tensors):
            return f"{name} is not {wanted}: it looks like {title}"
    keys = ", ".join(list(checkpoint.tensors)[:3]) or "nothing"
    return f"{name} is not {wanted}: it holds {len(checkpoint.tensors)} tensors ({keys}, ...) of no known kind"
