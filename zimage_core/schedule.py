"""Noise levels: which sigmas a run visits. A pure function of steps, shift and strength."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Move a noise level in [0, 1] towards noise: `shift * s / (1 + (shift - 1) * s)`; 0 and 1 stay put."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def unshifted(sigma: float, shift: float) -> float:
    """The inverse of `shifted`."""
    return sigma / (shift - (shift - 1) * sigma)


def sigmas(steps: int, shift: float, strength: float = 1.0) -> Tensor:
    """The noise levels of a run of `steps` intervals, from `strength` down to 0: float32 `[steps + 1]`.

    `shift` is 3 for Turbo and 6 for Base. Strength is the noise level the run starts from, the same for every shift:
    1 starts from pure noise; a lower one starts from a picture mixed with that much noise, and still spends all its
    steps below it. Strength 0 is no step at all: `[0.]`.

    Equal to diffusers' ZImagePipeline (0.39 and later) with `num_inference_steps=steps`.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: at least 1 is needed (8 for Turbo, 28 to 50 for Base)")
    if not 0 < shift < math.inf:
        raise ValueError(f"shift is {shift}: it must be above 0 (3 for Turbo, 6 for Base)")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}: it must be between 0 (keep the picture) and 1 (ignore it)")
    if strength == 0:
        return torch.zeros(1)
    start = unshifted(strength, shift)
    uniform = torch.linspace(1, 0, steps + 1, dtype=torch.float64) * start
    return shifted(uniform, shift).float()
