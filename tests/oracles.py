"""Tiny models from other people's code, and small files in their formats."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
CAP_DIM = 96


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights at which a network's output has a normal size: matrices by fan-in, vectors near 1 or 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = p.shape[1:].numel() ** -0.5 if p.ndim > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1 and name.endswith("weight")))
    return module.eval().requires_grad_(False)


def diffusers_transformer(dim: int = 128, n_layers: int = 3, n_heads: int = 4, seed: int = 0):
    """diffusers' own Z-Image transformer, tiny, with random weights: the oracle for ours."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    quarter = dim // n_heads // 8
    model = ZImageTransformer2DModel(
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        cap_feat_dim=CAP_DIM,
        axes_dims=[2 * quarter, 3 * quarter, 3 * quarter],
        axes_lens=[1536, 512, 512],
    )
    return randomise(model, seed)


def diffusers_velocity(model, latents: torch.Tensor, sigma: torch.Tensor, captions: list[torch.Tensor]):
    """What the oracle predicts, in our conventions: sigma in, `noise - x0` out."""
    images = [image[:, None] for image in latents]
    return -torch.stack([out[:, 0] for out in model(images, 1 - sigma, captions).sample])


def save_canonical(model, path: Path, prefix: str = "", metadata: dict[str, str] | None = None) -> Path:
    save_file({prefix + k: v.contiguous() for k, v in model.state_dict().items()}, str(path), metadata)
    return path


def our_transformer(reference, folder: Path, dtype: str = "float32"):
    """Our model with the oracle's weights, carried over the way a user's are: through a file and the key table."""
    from zimage_core import load_transformer

    return load_transformer(save_canonical(reference, folder / "oracle.safetensors"), dtype=dtype, variant="turbo")


def captions(*lengths: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, CAP_DIM, generator=generator) for length in lengths]


def latents(batch: int, h: int, w: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, 16, h, w, generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())
