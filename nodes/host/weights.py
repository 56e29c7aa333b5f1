"""A file's tensors as the host's modules take them: dense, in a quantised format of the host's own, or packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import comfy.quant_ops
import torch
from torch import Tensor

from ...zimage_core.checkpoint.detect import CheckpointInfo
from ...zimage_core.checkpoint.geometry import expected_shapes
from ...zimage_core.checkpoint.load import check, read_all
from ...zimage_core.checkpoint.quantized import FORMATS, Packed, dequantize
from ...zimage_core.checkpoint.storage import Source
from ...zimage_core.errors import CheckpointError

# What the host holds in floating point of 8 bits, one scale for a tensor.
_FLOAT8 = ("F8_E4M3", "F8_E5M2")


def read_weights(info: CheckpointInfo, keep_packed: bool = True) -> dict[str, Tensor]:
    """Every tensor of a component under canonical names, checked strictly: the host loads loosely and only logs.

    Matrices that the file holds quantised stay so, where `keep_packed` is set; everything else is unpacked.
    """
    check(info)
    shapes = expected_shapes(info.kind, info.config)
    read = info.checkpoint.reader()
    weights: dict[str, Tensor] = {}
    for name, stored in read_all(info, shapes):
        if isinstance(stored, Tensor):
            weights[name] = stored
        elif not (keep_packed and len(shapes[name]) == 2 and name.endswith(".weight")):
            weights[name] = dequantize(stored, torch.float32).reshape(shapes[name])
        else:
            weights |= _hosts(name, info, stored, read) or {name: packing(info).pack(stored, torch.float32)}
    return weights


def is_quantised(weights: Mapping[str, Tensor]) -> bool:
    """Whether the host's operations for mixed precision are needed."""
    quantised = comfy.quant_ops.QuantizedTensor
    return any(name.endswith(".comfy_quant") or isinstance(tensor, quantised) for name, tensor in weights.items())


def packing(info: CheckpointInfo) -> Any:
    """The module `packed`, for a file that needs it. Raises CheckpointError where the host is too old for it."""
    try:
        from . import packed
    except ImportError as error:
        if not (error.name or "").startswith("comfy"):
            raise
        raise CheckpointError(
            f"{info.path.name} holds {info.quantization} weights, for which this ComfyUI or its comfy-kitchen is too "
            f"old: update both (pip install -U comfy-kitchen), or use the same model as bf16"
        ) from error
    return packed


def _hosts(
    name: str, info: CheckpointInfo, stored: tuple[Packed, ...], read: Callable[[str], Tensor]
) -> dict[str, Tensor] | None:
    """A matrix in the host's own form, or None where it has none for it."""
    part, *others = stored
    scale = part.tensors.get("scale", torch.ones(1))
    known = FORMATS[part.format].comfy in getattr(comfy.quant_ops, "QUANT_ALGOS", {})
    if others or part.format not in _FLOAT8 or scale.numel() != 1 or not known:
        return None
    stem = name.removesuffix("weight")
    source = info.sources[name]
    activations = _input_scale(source, read)
    mark: dict[str, Any] = {"format": FORMATS[part.format].comfy}
    if not _multiplies_as_stored(info, source, activations is not None):
        mark["full_precision_matrix_mult"] = True
    tensors = {
        "weight": part.tensors["data"],
        "weight_scale": scale.reshape(()),
        "comfy_quant": torch.tensor(list(json.dumps(mark).encode()), dtype=torch.uint8),
    }
    if activations is not None:
        tensors["input_scale"] = activations
    return {stem + leaf: tensor for leaf, tensor in tensors.items()}


def _input_scale(source: Source, read: Callable[[str], Tensor]) -> Tensor | None:
    """The scale of the activations, where the file has one and all parts agree on it."""
    keys = [part.keys.get("input_scale") for part in source.parts]
    scales = [read(key).float().reshape(()) for key in keys if key is not None]
    same = len(scales) == len(keys) and all(torch.equal(scale, scales[0]) for scale in scales)
    return scales[0] if same else None


def _multiplies_as_stored(info: CheckpointInfo, source: Source, calibrated: bool) -> bool:
    """Whether activations may be rounded to the weights' format too: only where the file speaks of it.

    A plain cast says nothing of its activations, and parts that disagree on their scale have none that fits.
    """
    if any(part.options.get("full_precision_matrix_mult") for part in source.parts):
        return False
    if any("input_scale" in part.keys for part in source.parts):
        return calibrated
    marks = (info.prefix + "scaled_fp8", "scaled_fp8")
    marked = all("format" in p.options for p in source.parts) or any(m in info.checkpoint.tensors for m in marks)
    return marked and all("scale" in part.keys for part in source.parts)
