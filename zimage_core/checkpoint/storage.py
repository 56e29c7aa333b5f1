"""How each canonical tensor is stored: which keys of the file make it up, and in which format, from headers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .files import Checkpoint, TensorInfo
from .layouts import canonical
from .quantized import BY_COMFY, DENSE, FORMATS

# What may stand beside a weight, by the end of its name, and the part that it plays.
_COMPANIONS = {
    "weight_scale": "scale", "scale_weight": "scale", "input_scale": "input_scale", "scale_input": "input_scale",
    "comfy_quant": "marker", "weight_scale_2": "scale_2", "pre_quant_scale": "pre_quant_scale",
    "weight_s_rel": "scale", "weight_s_channel": "channel_scale", "weight_codebook": "codebook",
}  # fmt: skip
_METADATA_KEY = "_quantization_metadata"
_MAX_MARKER = 4096


@dataclass(frozen=True)
class Part:
    """Some rows of a tensor as the file holds them.

    format    a name in `quantized.FORMATS`, or one that this version does not know
    shape     of the numbers themselves, however they are packed
    keys      the file's keys by role: "data", and "scale" and others where there are any
    options   what ComfyUI's marker says of the layer
    """

    format: str
    shape: tuple[int, ...]
    keys: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dense(self) -> bool:
        return self.format in DENSE and "scale" not in self.keys

    @property
    def title(self) -> str:
        name = FORMATS[self.format].title if self.format in FORMATS else self.format
        return f"{name}_scaled" if "scale" in self.keys and self.format in ("F8_E4M3", "F8_E5M2") else name


@dataclass(frozen=True)
class Source:
    """Where a canonical tensor comes from: parts that are joined along the first axis."""

    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        first, *others = (part.shape for part in self.parts)
        return (sum((shape[0] for shape in others), first[0]), *first[1:]) if others else first

    @property
    def dense(self) -> bool:
        return all(part.dense for part in self.parts)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for part in self.parts for key in part.keys.values())


def sources(checkpoint: Checkpoint, kind: str, layout: str, prefix: str) -> dict[str, Source]:
    """Canonical names and how each is stored. What cannot be put together is left out, and so counts as missing."""
    names = canonical(checkpoint.tensors, kind, layout, prefix)
    confs = _confs(checkpoint, prefix)
    read = checkpoint.reader()
    found = {}
    for name, keys in names.items():
        stem, _, leaf = name.rpartition(".")
        if leaf in _COMPANIONS and f"{stem}.weight" in names:
            continue
        if any(key is None or 0 in checkpoint.tensors[key].shape for key in keys):
            continue  # a part is missing or empty
        beside = _beside(names, stem, len(keys)) if leaf == "weight" else [{} for _ in keys]
        parts = (_part(checkpoint, key, roles, confs, read) for key, roles in zip(keys, beside) if key is not None)
        found[name] = _joined(checkpoint, name, tuple(parts))
    return found


def _joined(checkpoint: Checkpoint, name: str, parts: tuple[Part, ...]) -> Source:
    """Raises CheckpointError for parts that are no rows of one matrix, or of which one has lost its scale."""
    float8 = [part for part in parts if part.format.startswith("F8_")]
    scaled = ["scale" in part.keys for part in float8]
    lost = any(scaled) and not all(scaled)
    lost = lost or any("format" in part.options and "scale" not in part.keys for part in float8)
    if lost:
        raise CheckpointError(f"{checkpoint.path.name} lacks a scale of {name}, which is scaled FP8: download it again")
    if len({part.shape[1:] for part in parts}) > 1 or (len(parts) > 1 and not parts[0].shape):
        raise CheckpointError(f"{checkpoint.path.name} has parts of {name} that do not fit each other: it is damaged")
    return Source(parts)


def _beside(names: Mapping[str, tuple[str | None, ...]], stem: str, n_parts: int) -> list[dict[str, str]]:
    """For each part of a weight, the keys of what stands beside it, by role."""
    roles: list[dict[str, str]] = [{} for _ in range(n_parts)]
    for suffix, role in _COMPANIONS.items():
        for part, key in zip(roles, names.get(f"{stem}.{suffix}", ())):
            if key is not None:
                part[role] = key
    return roles


def _part(
    checkpoint: Checkpoint, key: str, roles: dict[str, str], confs: Mapping[str, Any], read: Callable[[str], Tensor]
) -> Part:
    info = checkpoint.tensors[key]
    marker = roles.pop("marker", None)
    stem, _, leaf = key.rpartition(".")
    options = confs.get(stem, {}) if leaf == "weight" else {}
    options = options or (_marker(checkpoint, marker, read) if marker else {})
    options = options or (confs.get("", {}) if "scale" in roles else {})
    name = _format(info, options, roles)
    columns = FORMATS[name].columns if name in FORMATS else 1
    shape = (*info.shape[:-1], info.shape[-1] * columns) if info.shape else info.shape
    if "scale" in roles and (name in DENSE or name.startswith("F8_")):
        size = checkpoint.tensors[roles["scale"]].shape
        if size not in ((), (1,), (1, 1), shape[:1], (*shape[:1], 1)):
            raise CheckpointError(f"{checkpoint.path.name} has scales of shape {list(size)} for {key}: it is damaged")
    return Part(name, shape, {"data": key, **roles}, options)


def _format(info: TensorInfo, options: Mapping[str, Any], roles: Mapping[str, str]) -> str:
    """The dtype tells, unless a mark does: the same bytes can be packed in more than one way."""
    name = BY_COMFY.get(str(options.get("format")), str(options.get("format", info.dtype)))
    if name.startswith("F8_") or info.dtype in DENSE:
        name = info.dtype  # such numbers say themselves what they are, and marks have been seen to be wrong
    if "format" in options:
        return name
    if "scale_2" in roles:
        return "ModelOpt NVFP4"
    return f"{name} without a mark of its format" if re.fullmatch(r"[IU]\d+", name) else name


def _confs(checkpoint: Checkpoint, prefix: str) -> dict[str, Any]:
    """What the file's metadata says of each layer, by the file's own names; writers differ in whether they prefix."""
    text = checkpoint.metadata.get(_METADATA_KEY)
    if not text:
        # The older mark of scaled FP8 speaks of every layer at once: two elements ask for matrices in full precision.
        marks = [checkpoint.tensors[key] for key in (prefix + "scaled_fp8", "scaled_fp8") if key in checkpoint.tensors]
        return {"": {"full_precision_matrix_mult": True}} if any(prod(mark.shape) == 2 for mark in marks) else {}
    layers = _json(checkpoint, text).get("layers")
    if not isinstance(layers, dict):
        raise CheckpointError(f"{checkpoint.path.name} has {_METADATA_KEY} that cannot be read: download it again")
    confs = {str(name): conf for name, conf in layers.items() if isinstance(conf, dict)}
    return confs | {prefix + name: conf for name, conf in confs.items() if not name.startswith(prefix)}


def _marker(checkpoint: Checkpoint, key: str, read: Callable[[str], Tensor]) -> dict[str, Any]:
    info = checkpoint.tensors[key]
    if info.dtype != "U8" or len(info.shape) != 1 or info.shape[0] > _MAX_MARKER:
        raise CheckpointError(f"{checkpoint.path.name} has a mark {key} that is no text: it is damaged")
    return _json(checkpoint, bytes(read(key).tolist()))


def _json(checkpoint: Checkpoint, text: str | bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{checkpoint.path.name} has a mark of its number format that cannot be read ({error})"
        ) from error
    return data if isinstance(data, dict) else {}
