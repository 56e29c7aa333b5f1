"""Stage 3: Turbo, distilled from Base for 8 steps of shift 3 without guidance.

Pictures in the making stay in a pool, each at its own step. The student moves each one a step on; what it should have
said there is the mean velocity of two guided sub-steps of the teacher. So the student learns on the states it meets
when it draws alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import dit as dit_stage
import numpy as np
import tokenizer
import torch
from dit import Batches, Pair, S3DiT, in_bf16, optimisers_for
from optim import Average, Clock, Stage
from torch import Tensor

log = logging.getLogger("demo.turbo")

STEPS, SHIFT, CFG = 8, 3.0, 5.0
REAL_SHARE = 0.3  # of the pictures begin as noised real ones, at any step


def sigma_table(steps: int = STEPS, shift: float = SHIFT) -> Tensor:
    s = 1 - torch.arange(steps + 1) / steps
    return shift * s / (1 + (shift - 1) * s)


def spread(sigma: Tensor) -> Tensor:
    return sigma[:, None, None, None]


@torch.no_grad()
def guided(teacher: S3DiT, x: Tensor, sigma: Tensor, captions: list[Tensor], empty: Tensor) -> Tensor:
    both = in_bf16(teacher, torch.cat((x, x)), torch.cat((sigma, sigma)), captions + [empty] * len(captions))
    positive, negative = both.chunk(2)
    return negative + CFG * (positive - negative)


def teacher_velocity(
    teacher: S3DiT, x: Tensor, start: Tensor, end: Tensor, captions: list[Tensor], empty: Tensor
) -> Tensor:
    """The mean velocity from `start` to `end` in two guided Euler steps."""
    middle = (start + end) / 2
    first = guided(teacher, x, start, captions, empty)
    second = guided(teacher, x + spread(middle - start) * first, middle, captions, empty)
    return (first + second) / 2


@dataclass
class Pool:
    """Pictures of one size in the making."""

    x: Tensor
    step: Tensor
    captions: list[Tensor]


def fresh(pair: Pair, batches: Batches, rng: np.random.Generator, group: int, count: int, first: bool) -> Pool:
    x0, ids = batches.draw_group(rng, group, count, empty=0.02)
    with torch.no_grad():
        captions = pair.features(ids)
    table = sigma_table()
    real = torch.rand(count) < (1.0 if first else REAL_SHARE)
    step = torch.where(real, torch.randint(0, STEPS, (count,)), 0)
    return Pool(torch.lerp(x0, torch.randn_like(x0), spread(table[step])), step, captions)


def advance(pool: Pool, velocity: Tensor, refill) -> None:
    """Moves every picture a step on, and puts fresh ones in the place of finished ones."""
    table = sigma_table()
    pool.x = pool.x + spread(table[pool.step + 1] - table[pool.step]) * velocity
    pool.step = pool.step + 1
    done = (pool.step == STEPS).nonzero().flatten().tolist()
    if done:
        new = refill(len(done))
        pool.x[done], pool.step[done] = new.x, new.step
        for i, caption in zip(done, new.captions):
            pool.captions[i] = caption


def train(work: Path, steps: int | None, minutes: float | None, seed: int = 0, batch: int = 32) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 3))
    vocabulary = tokenizer.write(work / "tokenizer")
    batches = Batches(dit_stage.cache_latents(work, 0), work / "tokenizer")
    base = torch.load(work / "dit.pt", weights_only=False)["average"]
    teacher, student = Pair(vocabulary).eval().requires_grad_(False), Pair(vocabulary).dit
    teacher.load_state_dict(base)
    student.load_state_dict(teacher.dit.state_dict())
    optimisers = optimisers_for(student, None, muon_lr=1.5e-3, adam_lr=5e-4)
    clock = Clock(steps, minutes)
    stage = Stage(work / "turbo.pt", student, optimisers, Average(student, 0.995), clock)
    with torch.no_grad():
        empty = teacher.features([batches.tokens("")])[0]
    pools = [fresh(teacher, batches, rng, group, batch, first=True) for group in range(3)]
    table, total = sigma_table(), 0.0
    while clock.progress < 1:
        group = int(rng.choice(3, p=(0.5, 0.25, 0.25)))
        pool = pools[group]
        start, end = table[pool.step], table[pool.step + 1]
        target = teacher_velocity(teacher.dit, pool.x, start, end, pool.captions, empty)
        velocity = in_bf16(student, pool.x, start, pool.captions)
        loss = (velocity - target).square().mean()
        stage.advance(loss, clock.rate(warmup=30, hold=0.2))
        advance(pool, velocity.detach(), lambda n: fresh(teacher, batches, rng, group, n, first=False))  # noqa: B023
        total += loss.item()
        if clock.step % 25 == 0:
            log.info("step %d, %.0f s, %.1f %%: loss %.4f", clock.step, clock.spent, 100 * clock.progress, total / 25)
            total = 0.0
        if clock.step % 100 == 0 or clock.progress >= 1:
            stage.save()
