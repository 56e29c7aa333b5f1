"""From a recognised checkpoint to a module: built on the meta device, then filled strictly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..model import S3DiT
from ..variants import STATISTIC_LIMIT, VARIANTS, VariantGuess
from .detect import CheckpointInfo, inspect_checkpoint, overflow_statistic

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CastOps:
    """Layers whose weights may be stored in another type than the arithmetic's: cast when used, never kept."""

    class Linear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return F.linear(x, self.weight.to(x.dtype), bias)

    class RMSNorm(nn.RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)

    LayerNorm = nn.LayerNorm


def load_transformer(
    path: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    variant: str = "auto",
) -> S3DiT:
    """Load a Z-Image transformer from a file, an index, a shard or a folder; `.info` says what it is.

    dtype     the type of the arithmetic: "auto" (see `arithmetic_dtype`), "bfloat16", "float16" or "float32"
    variant   "turbo" or "base" overrides what the file says of itself

    With "auto", weights keep their stored type and are cast where they are used if the arithmetic differs; a type
    that is asked for is the type of the weights too. Raises CheckpointError if the file is anything else.
    """
    info = inspect_checkpoint(path, kind="transformer")
    require_dense(info)
    if variant != "auto":
        info = with_variant(info, variant)
    device = torch.device(device)
    if dtype == "auto":
        compute = arithmetic_dtype(device, overflow_statistic(info.checkpoint, info.sources))
        stored = storage_dtype(info, compute)
    else:
        compute = stored = as_dtype(dtype)
    model = S3DiT(info.config, ops=CastOps, device="meta", dtype=compute)
    fill(model, read_tensors(info, model.state_dict(), device, stored), info)
    model.info = info
    log.info("loaded %s: %s, %s, arithmetic in %s on %s", info.path.name, info.told, info.quantization, compute, device)
    return model.eval().requires_grad_(False)


def arithmetic_dtype(device: torch.device, statistic: float | None = None) -> torch.dtype:
    """The type that a model computes in on this hardware.

    bfloat16 where the hardware has it. Where it has not, float16 on a GPU if the weights' overflow statistic allows
    (see `detect.overflow_statistic`; S3DiT clamps what still overflows), else float32.
    """
    if has_bfloat16(device):
        return torch.bfloat16
    half = device.type != "cpu" and statistic is not None and statistic < STATISTIC_LIMIT
    return torch.float16 if half else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies in bfloat16 (emulation, which is slow, does not count)."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Older releases of PyTorch cannot tell; float32 is then the safe answer.
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return device.type in ("mps", "xpu")


def storage_dtype(info: CheckpointInfo, compute: torch.dtype) -> torch.dtype | None:
    """The type that weights are kept in: None leaves each as stored, where that takes no more room than `compute`."""
    smaller = info.quantization in ("bfloat16", "float16") and compute == torch.float32
    return None if smaller else compute


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = DTYPES | {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if dtype not in names:
        raise ValueError(f"dtype {dtype!r} is not one of auto, {', '.join(names)}")
    return names[dtype]


def read_tensors(
    info: CheckpointInfo, wanted: Mapping[str, Tensor] | None, device: torch.device, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The tensors of `info` that `wanted` names (None: all, as stored), joined and reshaped as it needs them.

    Only differences that carry no information are bridged: a leading 1, or a 1 x 1 convolution for a matrix.
    """
    read = info.checkpoint.reader()
    tensors = {}
    for name, source in info.sources.items():
        if wanted is not None and name not in wanted:
            continue
        parts = [read(key) for key in source.keys]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        shape = tensor.shape if wanted is None else wanted[name].shape
        if tensor.shape != shape and [d for d in tensor.shape if d != 1] == [d for d in shape if d != 1]:
            tensor = tensor.reshape(shape)
        tensors[name] = tensor.to(device=device, dtype=dtype or tensor.dtype)
    return tensors


def fill(module: nn.Module, tensors: dict[str, Tensor], info: CheckpointInfo, spare: tuple[str, ...] = ()) -> None:
    """Put `tensors` into a module that stands on the meta device, strictly.

    Raises CheckpointError with the first few missing, unexpected and misshapen names. `spare` are beginnings of
    names that the file may hold and the module has no use for.
    """
    expected = module.state_dict()
    unexpected = [n for n in info.sources if n not in expected and not n.startswith(spare)]
    problems = {
        "missing": [n for n in expected if n not in tensors],
        "unexpected": unexpected,
        "of another shape": [n for n, t in tensors.items() if t.shape != expected[n].shape],
    }
    if any(problems.values()):
        parts = [f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names]
        raise CheckpointError(f"{info.path.name} does not fit the model its shapes describe: {'; '.join(parts)}")
    module.load_state_dict(tensors, strict=True, assign=True)


def _first(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def require_dense(info: CheckpointInfo) -> None:
    if info.quantization == "quantized":
        raise CheckpointError(
            f"{info.path.name} is quantised, which this version does not load: use a bfloat16, float16 or float32 file"
        )


def with_variant(info: CheckpointInfo, variant: str) -> CheckpointInfo:
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is not one of auto, {', '.join(VARIANTS)}")
    return replace(info, told=VariantGuess(variant, "user", "as set"))


def load_module(
    build: Any, info: CheckpointInfo, device: torch.device, dtype: torch.dtype | None, spare: tuple[str, ...] = ()
) -> Any:
    """Build a library's module on the meta device with `build()` and fill it from `info`."""
    require_dense(info)
    with torch.device("meta"):
        module = build()
    for layer in module.modules():
        if type(layer) is nn.Linear:
            # A library's module takes no `ops`. The two classes differ in `forward` alone, so this is safe.
            layer.__class__ = CastOps.Linear
    fill(module, read_tensors(info, module.state_dict(), device, dtype), info, spare)
    return module.eval().requires_grad_(False)
