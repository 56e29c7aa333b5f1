"""Latents -> a small picture, cheaply enough for every step."""

from __future__ import annotations

import torch
from torch import Tensor

# Model-space Flux latents -> RGB in [-1, 1], one row a channel: a linear fit that ComfyUI publishes (latent_formats).
_RGB = (
    (-0.0346, 0.0244, 0.0681), (0.0034, 0.0210, 0.0687), (0.0275, -0.0668, -0.0433), (-0.0174, 0.0160, 0.0617),
    (0.0859, 0.0721, 0.0329), (0.0004, 0.0383, 0.0115), (0.0405, 0.0861, 0.0915), (-0.0236, -0.0185, -0.0259),
    (-0.0245, 0.0250, 0.1180), (0.1008, 0.0755, -0.0421), (-0.0515, 0.0201, 0.0011), (0.0428, -0.0012, -0.0036),
    (0.0817, 0.0765, 0.0749), (-0.1264, -0.0522, -0.1103), (-0.0280, -0.0881, -0.0499), (-0.1262, -0.0982, -0.0778),
)  # fmt: skip
_BIAS = (-0.0329, -0.0718, -0.0851)


def preview(denoised: Tensor) -> Tensor:
    """Denoised latents `[B, 16, h, w]` -> RGB `[B, 3, h, w]` in [0, 1], one pixel a latent."""
    latents = denoised.float()
    rgb = torch.einsum("bchw,cr->brhw", latents, latents.new_tensor(_RGB)) + latents.new_tensor(_BIAS).view(1, 3, 1, 1)
    return (rgb / 2 + 0.5).clamp(0, 1)
