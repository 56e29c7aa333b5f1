"""From a recognised checkpoint to a module: built on the meta device, then filled strictly."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..model import S3DiT
from ..variants import STATISTIC_LIMIT, VARIANTS, VariantGuess
from . import ggml
from .detect import CheckpointInfo, inspect_checkpoint, overflow_statistic
from .packed import PackedEmbedding, PackedLinear
from .quantized import FORMATS, Packed, dequantize, merged
from .storage import Part, Source

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Reader = Callable[[str], Tensor]


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

    With "auto", dense weights that are stored in a smaller type than the arithmetic's stay so and are cast where they
    are used; a type that is asked for is the type of the dense weights too. Quantised weights always stay as they are
    and are unpacked where they are used. Raises CheckpointError if the file is anything else.
    """
    info = inspect_checkpoint(path, kind="transformer")
    if variant != "auto":
        info = with_variant(info, variant)
    device = torch.device(device)
    auto = dtype == "auto"
    statistic = overflow_statistic(info.checkpoint, info.sources)
    compute = arithmetic_dtype(device, statistic) if auto else as_dtype(dtype)
    model = S3DiT(info.config, ops=CastOps, device="meta", dtype=compute)
    fill(model, info, device, compute, keep_smaller=auto)
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


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = DTYPES | {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if dtype not in names:
        raise ValueError(f"dtype {dtype!r} is not one of auto, {', '.join(names)}")
    return names[dtype]


def with_variant(info: CheckpointInfo, variant: str) -> CheckpointInfo:
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is not one of auto, {', '.join(VARIANTS)}")
    return replace(info, told=VariantGuess(variant, "user", "as set"))


def check(info: CheckpointInfo, spare: tuple[str, ...] = ()) -> None:
    """Raise CheckpointError unless `info` is whole, and in formats that load.

    From the header alone, so that a file that cannot be used is refused before any of it is read. What begins as one
    of `spare` is not needed.
    """
    if info.unreadable:
        titles = ", ".join(FORMATS[name].title if name in FORMATS else name for name in info.unreadable)
        raise CheckpointError(
            f"{info.path.name} holds weights as {titles}, which this version does not load: "
            f"use the same model as bf16, FP8 or GGUF"
        )
    tabled = {part.format for source in info.sources.values() for part in source.parts} & set(ggml.TABLED)
    if tabled and importlib.util.find_spec("gguf") is None:
        names = ", ".join(sorted(tabled))
        raise CheckpointError(f"{info.path.name} holds {names} weights, which take the gguf package: pip install gguf")
    problems = {"missing": info.missing, "unexpected": info.unexpected, "of another shape": info.misshapen}
    needed = {what: [n for n in names if not n.startswith(spare or "\0")] for what, names in problems.items()}
    if any(needed.values()):
        parts = [f"{len(names)} {what} ({_first(names)})" for what, names in needed.items() if names]
        raise CheckpointError(f"{info.path.name} does not fit the model its shapes describe: {'; '.join(parts)}")


def unused(info: CheckpointInfo) -> tuple[str, ...]:
    """Beginnings of names that a part works without: a text encoder's last layer and the norm after it."""
    return (f"layers.{info.config['num_hidden_layers'] - 1}.", "norm.") if info.kind == "text_encoder" else ()


def _first(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def read_all(
    info: CheckpointInfo, shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor | tuple[Packed, ...]]]:
    """Each tensor that `shapes` names: as stored and of that shape if it is dense, else its packed parts.

    Only differences that carry no information are bridged: a leading 1, or a 1 x 1 convolution for a matrix.
    """
    read = info.checkpoint.reader()
    for name, shape in shapes.items():
        source = info.sources[name]
        if not source.dense:
            yield name, tuple(_without_trailing_ones(part, len(shape)) for part in read_packed(source, read))
            continue
        parts = [read(part.keys["data"]) for part in source.parts]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        yield name, tensor.reshape(shape)


def _without_trailing_ones(part: Packed, rank: int) -> Packed:
    """A 1 x 1 convolution as the matrix that it is."""
    return replace(part, shape=part.shape[:rank]) if all(n == 1 for n in part.shape[rank:]) else part


def read_packed(source: Source, read: Reader) -> tuple[Packed, ...]:
    return merged(_packed(part, read) for part in source.parts)


def _packed(part: Part, read: Reader) -> Packed:
    tensors = {"data": read(part.keys["data"])}
    if "scale" in part.keys:
        scale = read(part.keys["scale"]).float()
        tensors["scale"] = scale.reshape(1) if scale.numel() == 1 else scale.reshape(-1, 1)
    return Packed(part.format, part.shape, tensors)


def fill(
    module: nn.Module,
    info: CheckpointInfo,
    device: torch.device,
    compute: torch.dtype,
    keep_smaller: bool = True,
    spare: tuple[str, ...] = (),
) -> None:
    """Put the tensors of `info` into a module that stands on the meta device, strictly.

    Dense tensors become `compute`, or stay as stored where that is smaller and `keep_smaller` is set. Packed matrices
    and tables stay packed, each in a layer that takes the place of the module's own; other packed tensors are
    unpacked. Raises CheckpointError as `check` does.
    """
    check(info, spare)
    dense: dict[str, Tensor] = {}
    packed: dict[str, tuple[Packed, ...]] = {}
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, stored in read_all(info, shapes):
        if isinstance(stored, Tensor):
            smaller = keep_smaller and stored.dtype.itemsize < compute.itemsize
            dense[name] = stored.to(device, stored.dtype if smaller else compute)
        elif _keeps_packed(module, name):
            packed[name] = tuple(_to(part, device) for part in stored)
        else:
            dense[name] = dequantize((_to(part, device) for part in stored), compute).reshape(shapes[name])
    module.load_state_dict(dense, strict=False, assign=True)
    for name, parts in packed.items():
        _swap(module, name.rpartition(".")[0], parts, compute)


def _keeps_packed(module: nn.Module, name: str) -> bool:
    owner, _, leaf = name.rpartition(".")
    return leaf == "weight" and isinstance(module.get_submodule(owner), nn.Linear | nn.Embedding)


def _to(part: Packed, device: torch.device) -> Packed:
    return replace(part, tensors={role: tensor.to(device) for role, tensor in part.tensors.items()})


def _swap(module: nn.Module, name: str, parts: tuple[Packed, ...], compute: torch.dtype) -> None:
    parent, _, leaf = name.rpartition(".")
    layer = module.get_submodule(name)
    if isinstance(layer, nn.Embedding):
        new: nn.Module = PackedEmbedding(parts[0], compute)
    else:
        bias = layer.bias
        new = PackedLinear(parts, bias.data if isinstance(bias, Tensor) else None)
    setattr(module.get_submodule(parent) if parent else module, leaf, new)


def load_module(
    build: Any,
    info: CheckpointInfo,
    device: torch.device,
    compute: torch.dtype,
    keep_smaller: bool = False,
    spare: tuple[str, ...] = (),
) -> Any:
    """Build a library's module on the meta device with `build()` and fill it from `info`."""
    check(info, spare)
    with torch.device("meta"):
        module = build()
    for layer in module.modules():
        if type(layer) is nn.Linear:
            # A library's module takes no `ops`. The two classes differ in `forward` alone, so this is safe.
            layer.__class__ = CastOps.Linear
    fill(module, info, device, compute, keep_smaller, spare)
    return module.eval().requires_grad_(False)
