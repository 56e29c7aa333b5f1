"""Classifier-free guidance: how the positive and the negative prediction become one velocity.

cfg is in ComfyUI's units throughout, `v = v_neg + cfg * (v_pos - v_neg)`; the official pipeline's guidance is
`cfg - 1`. Normalisation and truncation are the official ones (Tongyi-MAI/Z-Image, diffusers' ZImagePipeline).
"""

from __future__ import annotations

import torch
from torch import Tensor


def cfg_from_guidance(guidance: float) -> float:
    """The official guidance scale in ComfyUI's units; guidance 0 (off) is cfg 1."""
    return guidance + 1.0


def is_guided(sigma: float, cfg: float, truncation: float = 1.0) -> bool:
    """Whether a step at noise level `sigma` needs the negative prediction.

    cfg 1 never does. With truncation below 1, guidance stops once `1 - sigma` has passed it: the late steps then
    cost one forward instead of two.
    """
    return cfg != 1.0 and not 1.0 - sigma > truncation


def combine(positive: Tensor, negative: Tensor, cfg: float, normalization: float = 0.0) -> Tensor:
    """Guide `positive` away from `negative`, both velocities `[B, ...]`.

    With `normalization` c above 0, each sample's velocity is scaled down, never up, to at most c times the L2 norm
    of its positive prediction: one norm over the whole sample, not one per channel or pixel.
    """
    return limit(negative + cfg * (positive - negative), positive, normalization)


def limit(guided: Tensor, positive: Tensor, normalization: float) -> Tensor:
    """The normalisation of `combine` alone, for a velocity that was guided in another way."""
    if normalization <= 0:
        return guided
    shape = (-1,) + (1,) * (guided.ndim - 1)
    largest = positive.flatten(1).norm(dim=1) * normalization
    norm = guided.flatten(1).norm(dim=1)
    return guided * torch.where(norm > largest, largest / norm, torch.ones_like(norm)).view(shape)
