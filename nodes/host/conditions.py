"""Conditions of a ragged batch: captions of different lengths run together, each as if alone.

A CONDITIONING may hold a prompt for each picture: features `[B, L, D]`, and under LENGTHS how much of each row is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.conds
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LENGTHS = "caption_lengths"
# Set in a CONDITIONING of a prompt that says nothing, which nobody misses where it is left out.
EMPTY = "zimage_empty"


class Captions(comfy.conds.CONDRegular):
    """Caption features `[B, L, D]`; joined to the longest, and `CaptionLengths` tells them apart again.

    With `joint` off they join nothing: the host then plans memory for one condition and runs one after another.
    """

    def __init__(self, cond: Tensor, joint: bool = True) -> None:
        super().__init__(cond)
        self.joint = joint

    def _copy_with(self, cond: Tensor) -> Captions:
        return Captions(cond, self.joint)

    def can_concat(self, other: Any) -> bool:
        mine, theirs = self.cond, other.cond
        if not (self.joint and other.joint):
            return False
        return mine.shape[0] == theirs.shape[0] and mine.shape[2] == theirs.shape[2] and mine.device == theirs.device

    def concat(self, others: Sequence[Any]) -> Tensor:
        items = [self.cond, *(other.cond for other in others)]
        longest = max(item.shape[1] for item in items)
        return torch.cat([F.pad(item, (0, 0, 0, longest - item.shape[1])) for item in items])


class CaptionLengths(comfy.conds.CONDConstant):
    """One length for each row, as plain integers: a tensor would be cast to the model's type and rounded.

    Rows are repeated to the batch, as the host repeats features. With `by_picture` each row is somebody's prompt for
    one picture, and a batch that does not come out even is an error.
    """

    def __init__(self, cond: list[int], by_picture: bool = False) -> None:
        super().__init__(cond)
        self.by_picture = by_picture

    def process_cond(self, batch_size: int, **kwargs: Any) -> CaptionLengths:
        count = len(self.cond)
        if self.by_picture and batch_size % count:
            raise ValueError(
                f"{count} prompts do not go into a batch of {batch_size}: set the latent's batch_size to {count} or a "
                f"multiple of it (and draw a part of a batch with Z-Image Sampler, which knows whose pictures they are)"
            )
        repeats = -(-batch_size // count)
        return CaptionLengths((self.cond * repeats)[:batch_size])

    def can_concat(self, other: Any) -> bool:
        return True

    def concat(self, others: Sequence[Any]) -> list[int]:
        return sum((other.cond for other in others), start=self.cond)


def lengths_of(features: Tensor, given: Sequence[int] | None) -> CaptionLengths:
    """The condition that goes with a CONDITIONING's features; `given` is its LENGTHS."""
    rows, longest, _ = features.shape
    if given is None:
        return CaptionLengths([longest] * rows)
    if (len(given), max(given)) != (rows, longest):
        raise ValueError(
            f"a batch of {len(given)} prompts of up to {max(given)} tokens has come to features of shape "
            f"{tuple(features.shape)}: leave out the node that joins or averages conditionings of Z-Image Prompt Batch"
        )
    return CaptionLengths(list(given), by_picture=rows > 1)


class _AttentionMask:
    """In place of the mask of a ragged batch: the host's own models would attend to its padding, and say nothing."""

    @classmethod
    def __torch_function__(cls, *_: Any) -> Any:
        raise ValueError(
            "prompts of different lengths in one batch need a model of Load Z-Image Model: use that loader, or draw "
            "with one prompt at a time"
        )


def batch_of(captions: Sequence[Tensor], rest: dict[str, Any]) -> list[Any]:
    """One entry of a CONDITIONING: captions `[L_i, D]`, one for each picture, and what else belongs to it."""
    lengths = [len(caption) for caption in captions]
    given = {key: value for key, value in rest.items() if key != "attention_mask"} | {LENGTHS: lengths}
    if len(set(lengths)) > 1:
        given["attention_mask"] = _AttentionMask()
    return [nn.utils.rnn.pad_sequence(list(captions), batch_first=True), given]


def of_pictures(conditioning: Any, indices: Sequence[int] | None) -> Any:
    """The prompts of a part of a batch: picture i has prompt i. Other CONDITIONINGs, and whole batches, stay as is."""
    if conditioning is None or indices is None:
        return conditioning
    return [_picked(entry, indices) if len(entry[1].get(LENGTHS, ())) > 1 else entry for entry in conditioning]


def _picked(entry: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    features, rest = entry[0], entry[1]
    lengths = rest[LENGTHS]
    return batch_of([features[i % len(lengths), : lengths[i % len(lengths)]] for i in indices], rest)
