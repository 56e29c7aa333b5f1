"""Stage 2: the transformer and its text encoder, trained together by flow matching on cached latents."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import captions
import encoder
import numpy as np
import tokenizer
import torch
import vae as vae_stage
import world
from optim import Average, Clock, Optimisers, Stage
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from zimage_core.model import S3DiT, S3DiTConfig

log = logging.getLogger("demo.dit")

CONFIG = S3DiTConfig(dim=128, n_layers=4, n_refiner_layers=2, n_heads=4, cap_feat_dim=encoder.WIDTH)
BATCH = 32
EMPTY_SHARE = 0.1
SIGMA_SHIFT = 1.75


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention `[B, heads, S, d]` -> `[B, S, heads * d]` by two batched products.

    For 100 tokens on a CPU its backward pass is three times as fast as the fused kernel's.
    """
    if mask is not None:
        raise ValueError("captions of training fit one padded length; a mask was not expected")
    b, h, s, d = q.shape
    q, k, v = (t.reshape(b * h, s, d) for t in (q, k, v))
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha=d**-0.5)
    return torch.bmm(scores.softmax(-1), v).view(b, h, s, d).transpose(1, 2).reshape(b, s, h * d)


class Pair(nn.Module):
    """Transformer and encoder as one module, so that they are averaged and saved as one."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.dit = S3DiT(CONFIG, attention=plain_attention)
        self.encoder = encoder.build(vocabulary)
        self._start_small()

    @torch.no_grad()
    def _start_small(self) -> None:
        """Blocks start with narrow open gates and the output at zero: a calm start, with gradients everywhere."""
        for name, module in self.dit.named_modules():
            if name.endswith("adaLN_modulation.0") and isinstance(module, nn.Linear):
                module.weight.mul_(0.1)
                _, gate_attn, _, gate_ffn = module.bias.zero_().chunk(4)
                gate_attn.fill_(0.3)
                gate_ffn.fill_(0.3)
        nn.init.zeros_(self.dit.final_layer.linear.weight)
        nn.init.zeros_(self.dit.final_layer.linear.bias)
        nn.init.zeros_(self.dit.final_layer.adaLN_modulation[1].weight)
        nn.init.zeros_(self.dit.final_layer.adaLN_modulation[1].bias)

    def features(self, ids: list[list[int]]) -> list[Tensor]:
        return encoder.features(self.encoder, ids)

    def forward(self, latents: Tensor, sigma: Tensor, ids: list[list[int]]) -> Tensor:
        return self.dit(latents, sigma, self.features(ids))


def in_bf16(module: nn.Module, *args: object) -> Tensor:
    """The module's output, computed wholly in bf16 from its float32 weights.

    On a CPU this takes little more than half the time of autocast, which keeps the norms out of their fused kernels.
    """
    for part in module.modules():
        if isinstance(part, S3DiT):
            part.dtype = torch.bfloat16
    weights = {name: p.to(torch.bfloat16) for name, p in module.named_parameters()}
    return torch.func.functional_call(module, weights, args).float()


def optimisers_for(dit: nn.Module, text: nn.Module | None, muon_lr: float, adam_lr: float) -> Optimisers:
    matrices, rest, splits = [], [], {}
    for name, p in dit.named_parameters():
        plain = p.ndim != 2 or name.startswith(("x_embedder", "final_layer.linear", "x_pad", "cap_pad", "t_embedder"))
        (rest if plain else matrices).append(p)
        if name.endswith("qkv.weight"):
            splits[p] = 3
        elif name.endswith("adaLN_modulation.0.weight"):
            splits[p] = 4
    for name, p in text.named_parameters() if text else ():
        if not name.startswith(("layers.2.", "norm.")):
            (rest if p.ndim != 2 or name.startswith("embed_tokens") else matrices).append(p)
    return Optimisers(matrices, rest, muon_lr, adam_lr, splits, decay=0.01)


Cache = list[tuple[list[world.Scene], Tensor]]  # per picture size: scenes and their latents in float16


@torch.no_grad()
def cache_latents(work: Path, count: int, seed: int = 1) -> Cache:
    """Half of the pictures square, a quarter landscape, a quarter portrait; made once, then read back."""
    path = work / "latents.pt"
    if path.exists():
        return torch.load(path, weights_only=False)
    vae = vae_stage.with_weights(torch.load(work / "vae.pt", weights_only=False)["average"])
    rng = np.random.default_rng(seed)
    cache: Cache = []
    for (width, height), share in zip(world.PICTURE_SIZES, (0.5, 0.25, 0.25)):
        scenes = [world.sample_scene(rng, width, height) for _ in range(int(count * share))]
        latents = []
        for i in range(0, len(scenes), 4):  # few at a time: they fit the processor's cache
            pictures = vae_stage.to_tensor(np.stack([world.draw(s) for s in scenes[i : i + 4]]))
            with torch.autocast("cpu", torch.bfloat16):
                latents.append(vae_stage.encode(vae, pictures).half())
        cache.append((scenes, torch.cat(latents)))
        log.info("cached %d latents of %d x %d", len(scenes), width, height)
    torch.save(cache, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return cache


class Batches:
    """Random batches of one picture size each, every picture with a fresh caption at each use."""

    def __init__(self, cache: Cache, folder: Path) -> None:
        self.cache, self.tokenizer = cache, tokenizer.load(folder)
        self.known: dict[str, list[int]] = {}

    def tokens(self, prompt: str) -> list[int]:
        if prompt not in self.known:
            self.known[prompt] = tokenizer.encode(self.tokenizer, prompt)
        return self.known[prompt]

    def draw(self, rng: np.random.Generator, count: int, empty: float) -> tuple[Tensor, list[list[int]]]:
        return self.draw_group(rng, int(rng.choice(3, p=(0.5, 0.25, 0.25))), count, empty)

    def draw_group(
        self, rng: np.random.Generator, group: int, count: int, empty: float
    ) -> tuple[Tensor, list[list[int]]]:
        scenes, latents = self.cache[group]
        chosen = rng.integers(0, len(scenes), count)
        prompts = ["" if rng.random() < empty else captions.sample_caption(rng, scenes[i]) for i in chosen]
        return latents[torch.from_numpy(chosen)].float(), [self.tokens(p) for p in prompts]


def sample_sigmas(count: int) -> Tensor:
    """Stratified over the batch, leaning towards noise, where shapes are decided."""
    u = (torch.arange(count) + torch.rand(count)) / count
    return SIGMA_SHIFT * u / (1 + (SIGMA_SHIFT - 1) * u)


def flow_loss(pair: Pair, x0: Tensor, ids: list[list[int]]) -> Tensor:
    sigma, noise = sample_sigmas(len(x0)), torch.randn_like(x0)
    mixed = torch.lerp(x0, noise, sigma[:, None, None, None])
    velocity = in_bf16(pair, mixed, sigma, ids)
    return (velocity - (noise - x0)).square().mean()


def train(work: Path, steps: int | None, minutes: float | None, seed: int = 0, pictures: int = 8000) -> None:
    vocabulary = tokenizer.write(work / "tokenizer")
    batches = Batches(cache_latents(work, pictures), work / "tokenizer")
    torch.manual_seed(seed)
    pair = Pair(vocabulary)
    optimisers = optimisers_for(pair.dit, pair.encoder, muon_lr=6e-3, adam_lr=2e-3)
    clock = Clock(steps, minutes)
    stage = Stage(work / "dit.pt", pair, optimisers, Average(pair, 0.998), clock)
    total = 0.0
    while clock.progress < 1:
        torch.manual_seed(seed * 1_000_003 + clock.step)
        rng = np.random.default_rng((seed, 2, clock.step))
        loss = flow_loss(pair, *batches.draw(rng, BATCH, EMPTY_SHARE))
        stage.advance(loss, clock.rate(warmup=100, hold=0.3))
        total += loss.item()
        if clock.step % 50 == 0:
            log.info("step %d, %.0f s, %.1f %%: loss %.4f", clock.step, clock.spent, 100 * clock.progress, total / 50)
            total = 0.0
        if clock.step % 200 == 0 or clock.progress >= 1:
            stage.save()
