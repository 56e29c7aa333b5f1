"""Conditions of a ragged batch: captions of different lengths run together, each as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.conds
import torch
import torch.nn.functional as F


class Captions(comfy.conds.CONDRegular):
    """Caption features `[B, L, D]`; joined to the longest, and `CaptionLengths` tells them apart again.

    With `joint` off they join nothing: the host then plans memory for one condition and runs one after another.
    """

    def __init__(self, cond: torch.Tensor, joint: bool = True) -> None:
        super().__init__(cond)
        self.joint = joint

    def _copy_with(self, cond: torch.Tensor) -> Captions:
        return Captions(cond, self.joint)

    def can_concat(self, other: Any) -> bool:
        mine, theirs = self.cond, other.cond
        if not (self.joint and other.joint):
            return False
        return mine.shape[0] == theirs.shape[0] and mine.shape[2] == theirs.shape[2] and mine.device == theirs.device

    def concat(self, others: Sequence[Any]) -> torch.Tensor:
        items = [self.cond, *(other.cond for other in others)]
        longest = max(item.shape[1] for item in items)
        return torch.cat([F.pad(item, (0, 0, 0, longest - item.shape[1])) for item in items])


class CaptionLengths(comfy.conds.CONDConstant):
    """One length for each row, as plain integers: a tensor would be cast to the model's type and rounded."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> CaptionLengths:
        repeats = -(-batch_size // len(self.cond))
        return CaptionLengths((self.cond * repeats)[:batch_size])

    def can_concat(self, other: Any) -> bool:
        return True

    def concat(self, others: Sequence[Any]) -> list[int]:
        return sum((other.cond for other in others), start=self.cond)
