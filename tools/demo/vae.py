"""Stage 1: the 16-channel AutoencoderKL.

The shift and the scale of Flux's VAE are true for it: model-space latents have mean 0 and covariance near 1.
An auxiliary loss makes hosts' Flux latent-to-RGB projection show a paler picture of the right colours.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import world
from fast_norm import use_fast_norms
from optim import Average, Clock, Optimisers, Stage
from torch import Tensor, nn

log = logging.getLogger("demo.vae")

SCALE, SHIFT = 0.3611, 0.1159
CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "block_out_channels": (64, 64, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "mid_block_add_attention": True,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": SCALE,
    "shift_factor": SHIFT,
    "sample_size": 128,
}
PREVIEW_CONTRAST = 0.4
# Rows: latent channels; columns: R, G, B in [-1, 1]. Flux's projection, as hosts have it for previews.
PREVIEW = torch.tensor([
    [-.0346, .0244, .0681], [.0034, .0210, .0687], [.0275, -.0668, -.0433], [-.0174, .0160, .0617],
    [.0859, .0721, .0329], [.0004, .0383, .0115], [.0405, .0861, .0915], [-.0236, -.0185, -.0259],
    [-.0245, .0250, .1180], [.1008, .0755, -.0421], [-.0515, .0201, .0011], [.0428, -.0012, -.0036],
    [.0817, .0765, .0749], [-.1264, -.0522, -.1103], [-.0280, -.0881, -.0499], [-.1262, -.0982, -.0778],
])  # fmt: skip
PREVIEW_BIAS = torch.tensor([-0.0329, -0.0718, -0.0851])


def build() -> nn.Module:
    from diffusers.models.autoencoders import AutoencoderKL

    vae = AutoencoderKL(**CONFIG)
    with torch.no_grad():
        vae.encoder.conv_out.bias.fill_(SHIFT)
        vae.encoder.conv_out.weight[:16] /= SCALE
    return vae


def encode(vae: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] to model-space latents (the mean; this VAE samples nothing)."""
    moments = vae.encoder(pictures.contiguous(memory_format=torch.channels_last))
    return (moments[:, :16].float() - SHIFT) * SCALE


def decode(vae: nn.Module, latents: Tensor) -> Tensor:
    z = (latents / SCALE + SHIFT).contiguous(memory_format=torch.channels_last)
    return vae.decoder(z).float()


def to_tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def sample_pictures(rng: np.random.Generator, count: int, width: int, height: int, free: float) -> np.ndarray:
    return np.stack([
        world.draw_free(rng, width, height) if rng.random() < free
        else world.draw(world.sample_scene(rng, width, height, pair_share=0.35))
        for _ in range(count)
    ])  # fmt: skip


def sample_crops(rng: np.random.Generator, count: int, edge: int) -> Tensor:
    """Crops around something worth seeing, each from its own picture."""
    crops = []
    for picture in sample_pictures(rng, count, 128, 128, free=0.35):
        corners = rng.integers(0, 128 - edge + 1, (2, 2))
        pair = [picture[y : y + edge, x : x + edge] for y, x in corners]
        crops.append(max(pair, key=np.std))  # the busier of two: flat surfaces are learned soon enough
    return to_tensor(np.stack(crops))


class Spread:
    """How far the latents are from mean 0 and covariance 1, judged over many batches.

    A single batch holds few colours, so its own covariance says little; the gradient flows through it all the same.
    """

    def __init__(self, share: float = 0.05) -> None:
        self.share, self.mean, self.square = share, torch.zeros(16), torch.eye(16)

    def loss(self, flat: Tensor) -> Tensor:
        mean = self.mean.lerp(flat.mean(0), self.share)
        square = self.square.lerp(flat.T @ flat / len(flat), self.share)
        self.mean, self.square = mean.detach(), square.detach()
        off = square - torch.outer(mean, mean) - torch.eye(16)
        return (mean.square().mean() + off.square().mean()) / self.share


def preview_loss(flat: Tensor, pictures: Tensor) -> Tensor:
    small = F.avg_pool2d(pictures, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    return (flat @ PREVIEW + PREVIEW_BIAS - PREVIEW_CONTRAST * small).square().mean()


def edges(error: Tensor) -> Tensor:
    """Errors of the differences between neighbours: soft edges cost more than a faint cast."""
    down, right = error[:, :, 1:, :-1], error[:, :, :-1, 1:]
    here = error[:, :, :-1, :-1]
    return F.pad((down - here).abs() + (right - here).abs(), (0, 1, 0, 1))


def training_loss(vae: nn.Module, pictures: Tensor, noise: float, spread: Spread) -> tuple[Tensor, dict[str, float]]:
    with torch.autocast("cpu", torch.bfloat16):
        z = encode(vae, pictures)
        strength = torch.rand(len(z), 1, 1, 1) * noise
        out = decode(vae, z + strength * torch.randn_like(z))
    error = out - pictures
    # A white star on pink deserves the care that a black one gets: errors count against the picture's own contrast.
    care = 1 / (pictures.std((1, 2, 3), keepdim=True) + 0.1)
    care = care / care.mean()
    flat = z.permute(0, 2, 3, 1).reshape(-1, 16)
    shape, preview = spread.loss(flat), preview_loss(flat, pictures)
    square = error.square().mean()
    weighted = (care * (error.abs() + 4 * error.square())).mean() + 0.5 * (care * edges(error)).mean()
    loss = weighted + 0.02 * shape + 0.3 * preview
    return loss, {"mse": square.item(), "shape": shape.item() * spread.share, "preview": preview.item()}


def split_parameters(vae: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    ends = ("encoder.conv_in.", "decoder.conv_out.")
    matrices, rest = [], []
    for name, p in vae.named_parameters():
        if not p.requires_grad:
            continue
        (matrices if p.ndim >= 2 and not name.startswith(ends) else rest).append(p)
    return matrices, rest


def psnr(mse: float) -> float:
    """In dB, for errors measured on a range of 2."""
    return float(10 * np.log10(4 / max(mse, 1e-12)))


@torch.no_grad()
def measure(vae: nn.Module, seed: int = 7, count: int = 64) -> dict[str, float]:
    """PSNR over whole world pictures (8 bits, float32 weights), and the statistics of the latents."""
    rng = np.random.default_rng(seed)
    errors, latents = [], []
    for width, height in world.PICTURE_SIZES:
        pictures = to_tensor(sample_pictures(rng, count // 3, width, height, free=0.0))
        z = encode(vae, pictures)
        out = ((decode(vae, z).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        errors += (out - pictures).square().mean((1, 2, 3)).tolist()
        latents.append(z.permute(0, 2, 3, 1).reshape(-1, 16))
    flat = torch.cat(latents)
    return {
        "psnr": psnr(float(np.mean(errors))),
        "worst": psnr(max(errors)),
        "mean": flat.mean(0).abs().max().item(),
        "std_low": flat.std(0).min().item(),
        "std_high": flat.std(0).max().item(),
        "largest": torch.linalg.eigvalsh(torch.cov(flat.T)).max().item(),
    }


def with_weights(weights: dict[str, Tensor]) -> nn.Module:
    vae = build()
    vae.load_state_dict(weights)
    return vae.eval().to(memory_format=torch.channels_last)


def next_pictures(seed: int, clock: Clock, full_from: float) -> Tensor:
    """Crops of 64 px first (four times cheaper), whole pictures of every size from `full_from` on."""
    rng = np.random.default_rng((seed, clock.step))
    if clock.progress < full_from:
        return sample_crops(rng, 8, 64)
    width, height = world.PICTURE_SIZES[clock.step % 3]
    return to_tensor(sample_pictures(rng, 4, width, height, free=0.15))


def report(stage: Stage, parts: dict[str, float], every: int) -> None:
    clock = stage.clock
    if clock.step % 50 == 0:
        text = " ".join(f"{k} {v:.4f}" for k, v in parts.items())
        log.info("step %d, %.0f s: %.1f dB, %s", clock.step, clock.spent, psnr(parts["mse"]), text)
    if clock.step % every == 0 or clock.progress >= 1:
        stage.save()
        quality = measure(with_weights(stage.average.weights))
        log.info("average weights: %s", {k: round(v, 3) for k, v in quality.items()})


def train(work: Path, steps: int | None, minutes: float | None, seed: int = 0) -> None:
    torch.manual_seed(seed)
    vae = use_fast_norms(build()).to(memory_format=torch.channels_last).train()
    optimisers = Optimisers(*split_parameters(vae), muon_lr=2.5e-3, adam_lr=2e-3)
    stage = Stage(work / "vae.pt", vae, optimisers, Average(vae, 0.998), Clock(steps, minutes))
    spread = Spread()
    while stage.clock.progress < 1:
        loss, parts = training_loss(vae, next_pictures(seed, stage.clock, full_from=0.9), noise=0.04, spread=spread)
        stage.advance(loss, stage.clock.rate())
        report(stage, parts, every=400)


def polish(work: Path, steps: int | None, minutes: float | None, seed: int = 0) -> None:
    """The decoder alone, on latents that stay as they are: it may follow the transformer's training."""
    torch.manual_seed(seed)
    vae = use_fast_norms(build()).to(memory_format=torch.channels_last).train()
    vae.load_state_dict(torch.load(work / "vae.pt", weights_only=False)["average"])
    vae.encoder.requires_grad_(False)
    optimisers = Optimisers(*split_parameters(vae), muon_lr=1e-3, adam_lr=5e-4)
    stage = Stage(work / "polish.pt", vae, optimisers, Average(vae, 0.995), Clock(steps, minutes))
    spread = Spread()
    while stage.clock.progress < 1:
        pictures = next_pictures(seed + 1, stage.clock, full_from=0.5)
        loss, parts = training_loss(vae, pictures, noise=0.04, spread=spread)
        stage.advance(loss, stage.clock.rate(hold=0.1))
        report(stage, parts, every=200)
