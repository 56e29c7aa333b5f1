"""Numbers from one storage format into another, a piece of a tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from . import ggml
from .files import DTYPES
from .quantized import Packed, dequantize

# So many numbers are unpacked at a time: what stays in a processor's cache.
PIECE = 1 << 20
F8_MAX = 448.0

# Writes a tensor: its name, and its numbers in pieces one after another.
Put = Callable[[str, Iterable[Tensor]], None]
# A name, and the rows from and to that go under it.
Share = tuple[str, int, int]


def copy(parts: Sequence[Packed], shares: Sequence[Share], put: Put) -> None:
    """Write the stored bytes as they are."""
    (part,) = parts
    data = part.tensors["data"]
    for name, start, stop in shares:
        put(name, [data if len(shares) == 1 else data[start:stop]])


def encode(
    parts: Sequence[Packed], shares: Sequence[Share], wanted: str, scaled: bool, put: Put
) -> tuple[float, float]:
    """Write the numbers in the wanted format, with a scale for each share if `scaled`.

    Returns the squares of the lengths of what was lost and of the whole; not finite where numbers are not, or where
    the format cannot hold them.
    """
    lost = total = 0.0

    def encoded(start: int, stop: int, scale: Tensor | None) -> Iterator[Tensor]:
        nonlocal lost, total
        for piece in _pieces(parts, start, stop):
            values = dequantize([piece], torch.float32)
            data = _quantise(values, wanted, scale)
            tensors = {"data": data} if scale is None else {"data": data, "scale": scale}
            back = dequantize([Packed(wanted, piece.shape, tensors)], torch.float32)
            total += _square(values)
            lost += _square(back - values)
            yield data

    for name, start, stop in shares:
        scale = _scale(_pieces(parts, start, stop)) if scaled else None
        if scale is not None:
            put(beside(name, "weight_scale"), [scale])
        put(name, encoded(start, stop, scale))
    return lost, total


def beside(name: str, what: str) -> str:
    """The name of what goes with a weight."""
    return f"{name.rpartition('.')[0]}.{what}"


def _pieces(parts: Sequence[Packed], start: int, stop: int) -> Iterator[Packed]:
    """The rows from `start` to `stop` in their stored form, as many at a time as make a PIECE."""
    for part in parts:
        rows = part.shape[0]
        step = max(1, PIECE // max(1, math.prod(part.shape[1:])))
        if len(part.shape) == 1:
            yield part
        else:
            for first in range(max(0, start), min(rows, stop), step):
                yield _rows(part, first, min(first + step, rows, stop))
        start, stop = start - rows, stop - rows


def _rows(part: Packed, first: int, last: int) -> Packed:
    tensors = {role: t if role != "data" and t.numel() == 1 else t[first:last] for role, t in part.tensors.items()}
    return Packed(part.format, (last - first, *part.shape[1:]), tensors)


def _scale(pieces: Iterable[Packed]) -> Tensor:
    """What brings the largest number to FP8's largest; 1 for a matrix of zeros."""
    largest = max(float(dequantize([piece], torch.float32).abs().amax()) for piece in pieces)
    return torch.tensor(largest / F8_MAX if largest else 1.0).clamp_min(torch.finfo(torch.float32).tiny)


def _quantise(values: Tensor, name: str, scale: Tensor | None) -> Tensor:
    if name == "Q8_0":
        return ggml.quantize_q8_0(values)
    if scale is not None:
        values = values / scale
    if name == "F8_E4M3":
        values = values.clamp(-F8_MAX, F8_MAX)  # PyTorch makes NaN of what is larger
    return values.to(DTYPES[name])


def _square(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
