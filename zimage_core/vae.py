"""Latents <-> images: AutoencoderKL through diffusers, from an explicit configuration.

Latents are in model space everywhere outside this file; the VAE's own scale stays in here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint.detect import CheckpointInfo, inspect_checkpoint
from .checkpoint.load import as_dtype, has_bfloat16, load_module

log = logging.getLogger(__name__)


class VAE:
    """The Flux autoencoder: 8 pixels a side and 16 channels to a latent."""

    def __init__(self, model: Any, info: CheckpointInfo) -> None:
        self.model = model
        self.info = info

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents in model space `[B, 16, h, w]` -> images `[B, 3, 8h, 8w]` in [0, 1], float32."""
        config = self.model.config
        z = latents.to(self.device, torch.float32) / config.scaling_factor + config.shift_factor
        images = self.model.decode(z.to(self.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] -> latents `[B, 16, H/8, W/8]` in model space, float32: the mean, no draw."""
        x = (images.to(self.device, torch.float32) * 2 - 1).to(self.dtype)
        z = self.model.encode(x, return_dict=False)[0].mode()
        return (z.float() - self.model.config.shift_factor) * self.model.config.scaling_factor


def load_vae(path: str | Path, dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu") -> VAE:
    """Load a Flux-type VAE in either key layout from a file or a diffusers folder.

    dtype "auto" is bfloat16 on a GPU that has it and float32 elsewhere; float16 overflows in this VAE.
    Raises CheckpointError if the file is anything else.
    """
    info = inspect_checkpoint(path, kind="vae")
    device = torch.device(device)
    fast = device.type == "cuda" and has_bfloat16(device)
    compute = (torch.bfloat16 if fast else torch.float32) if dtype == "auto" else as_dtype(dtype)
    model = load_module(lambda: _autoencoder(info.config), info, device, compute)
    log.info("loaded %s: %s on %s", info.path.name, compute, device)
    return VAE(model, info)


def _autoencoder(config: dict[str, Any]) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(**config)
