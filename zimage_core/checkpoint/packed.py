"""Layers that hold their weights as a file does, and unpack them when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantized import Packed, dequantize, gathered


class _PackedLayer(nn.Module):
    """Keeps packed parts as buffers whose bytes no cast may touch; they move between devices like any other."""

    def __init__(self, parts: Sequence[Packed]) -> None:
        super().__init__()
        self.layout = [(part.format, part.shape, tuple(part.tensors)) for part in parts]
        for i, part in enumerate(parts):
            for role, tensor in part.tensors.items():
                self.register_buffer(f"{role}_{i}", tensor)

    def parts(self) -> list[Packed]:
        """The parts as they lie in memory now, to be joined along the first axis."""
        return [
            Packed(name, shape, {role: self.get_buffer(f"{role}_{i}") for role in roles})
            for i, (name, shape, roles) in enumerate(self.layout)
        ]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _PackedLayer:
        packed = {f"{role}_{i}" for i, (_, _, roles) in enumerate(self.layout) for role in roles}
        # As bytes, which no cast to another floating type applies to; all of them before any is replaced.
        moved = {name: fn(self.get_buffer(name).view(torch.uint8)).view(self.get_buffer(name).dtype) for name in packed}
        held = {name: self._buffers.pop(name) for name in packed}
        try:
            super()._apply(fn, recurse)
            held = dict(moved)
        finally:
            self._buffers.update(held)
        return self


class PackedLinear(_PackedLayer):
    """y = x W^T + b, with W in the storage formats of its parts and unpacked at each use."""

    def __init__(self, parts: Sequence[Packed], bias: Tensor | None = None) -> None:
        super().__init__(parts)
        self.in_features = parts[0].shape[1]
        self.out_features = sum(part.shape[0] for part in parts)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight `[out_features, in_features]`."""
        return dequantize(self.parts(), dtype)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.dequantized(x.dtype), bias)

    def extra_repr(self) -> str:
        formats = ", ".join(name for name, _, _ in self.layout)
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {formats}"


class PackedEmbedding(_PackedLayer):
    """A table of which only the rows that are asked for are unpacked. It has one part: tables are never fused."""

    def __init__(self, part: Packed, dtype: torch.dtype) -> None:
        super().__init__([part])
        self.num_embeddings, self.embedding_dim = part.shape
        self.dtype = dtype

    @property
    def device(self) -> torch.device:
        return self.get_buffer("data_0").device

    def forward(self, ids: Tensor) -> Tensor:
        """`[...]` of token ids -> `[..., embedding_dim]`."""
        (part,) = self.parts()
        rows = dequantize([gathered(part, ids.flatten())], self.dtype)
        return rows.reshape(*ids.shape, self.embedding_dim)
