"""Storage formats: how a tensor's numbers lie in a file, one descriptor and one dequantiser each, in one table.

A format is named by the word that a file's header uses for it: a safetensors dtype ("BF16", "F8_E4M3"), a GGML type
("Q4_K"), or ComfyUI's name where the dtype alone does not tell ("nvfp4").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import ggml

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """One storage format.

    title     for people
    bits      per weight, scales of blocks included, scales of rows and tensors not
    decode    (tensors by role, shape, dtype) -> the numbers, computed in float32 and rounded once to dtype; None where
              the format is recognised and not loaded yet
    columns   how many weights one stored element holds, where the header's shape counts elements
    comfy     ComfyUI's name for it, where ComfyUI has one
    """

    title: str
    bits: float
    decode: Callable[[Tensors, tuple[int, ...], torch.dtype], Tensor] | None
    columns: int = 1
    comfy: str | None = None


@dataclass(frozen=True)
class Packed:
    """Rows of a matrix as a file holds them: plain tensors by role.

    "data" is `[rows, ...]` whatever the format; "scale", where there is one, `[1]` or `[rows, 1]` in float32.
    """

    format: str
    shape: tuple[int, ...]
    tensors: Tensors


def _scaled(tensors: Tensors, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    values = tensors["data"].reshape(shape)
    return (values.float() * tensors["scale"].float()).to(dtype) if "scale" in tensors else values.to(dtype)


def _ggml(name: str, tensors: Tensors, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return ggml.dequantize(name, tensors["data"], shape, dtype)


DENSE = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16}

FORMATS: dict[str, Format] = {
    **{name: Format(name, kind.bits_per_weight, partial(_ggml, name)) for name, kind in ggml.TYPES.items()},
    **{name: Format(title, _BITS[name], _scaled) for name, title in DENSE.items()},
    "F8_E4M3": Format("float8_e4m3fn", 8, _scaled, comfy="float8_e4m3fn"),
    "F8_E5M2": Format("float8_e5m2", 8, _scaled, comfy="float8_e5m2"),
    "int8_tensorwise": Format("INT8", 8, None, comfy="int8_tensorwise"),
    "mxfp8": Format("MXFP8", 8.25, None, comfy="mxfp8"),
    "nvfp4": Format("NVFP4", 4.5, None, columns=2, comfy="nvfp4"),
    "convrot_w4a4": Format("ConvRot W4A4", 4, None, columns=2, comfy="convrot_w4a4"),
    "asym_w4a8_int8": Format("W4A8", 4.5, None, columns=2, comfy="asym_w4a8_int8"),
}
# ComfyUI's word for a format -> ours, and the dtype that the stored tensor must then have.
BY_COMFY = {fmt.comfy: name for name, fmt in FORMATS.items() if fmt.comfy}


def dequantize(parts: Iterable[Packed], dtype: torch.dtype) -> Tensor:
    """The numbers themselves, on the parts' device, in `dtype`; parts joined along the first axis."""
    rows = [_decode(part, dtype) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _decode(part: Packed, dtype: torch.dtype) -> Tensor:
    function = FORMATS[part.format].decode
    if function is None:
        raise ValueError(f"{FORMATS[part.format].title} weights are not loaded by this version")
    return function(part.tensors, part.shape, dtype)


def gathered(part: Packed, rows: Tensor) -> Packed:
    """Some rows of a matrix, still packed: `rows` is `[n]` of their numbers."""
    own = {role: tensor[rows] if len(tensor) == part.shape[0] else tensor for role, tensor in part.tensors.items()}
    return Packed(part.format, (len(rows), *part.shape[1:]), own)


def merged(parts: Iterable[Packed]) -> tuple[Packed, ...]:
    """The same rows in as few parts as possible: neighbours of one format become one, with a scale for each row."""
    result: list[Packed] = []
    for part in parts:
        if result and _mergeable(result[-1], part):
            result[-1] = _merge(result[-1], part)
        else:
            result.append(part)
    return tuple(result)


def _mergeable(a: Packed, b: Packed) -> bool:
    return a.format == b.format and a.tensors.keys() == b.tensors.keys() and a.shape[1:] == b.shape[1:]


def _merge(a: Packed, b: Packed) -> Packed:
    tensors = {"data": torch.cat((a.tensors["data"], b.tensors["data"]))}
    if "scale" in a.tensors:
        tensors["scale"] = _joined_scale(a, b)
    return Packed(a.format, (a.shape[0] + b.shape[0], *a.shape[1:]), tensors)


def _joined_scale(a: Packed, b: Packed) -> Tensor:
    first, second = a.tensors["scale"], b.tensors["scale"]
    if first.numel() == second.numel() == 1 and torch.equal(first, second):
        return first
    return torch.cat([scale.expand(part.shape[0], 1) for part, scale in ((a, first), (b, second))])
