"""Solvers, and the loop that turns noise into latents.

A solver is a generator `solver(denoise, x, sigmas)` that yields after every forward of the model. The ordinary
differential equation is `dx/dsigma = v(x, sigma)`; with `denoised = x - sigma * v` it is linear in log sigma, which
is what the exponential solver uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .guidance import combine, is_guided

MAX_SEED = 2**64 - 1

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Step:
    """The state after one forward of the model.

    index      counts forwards from 0 (heun takes two forwards a step)
    sigma      the noise level that `latents` now have
    latents    `[B, 16, h, w]`, float32
    denoised   the model's current estimate of the clean latents, for previews
    """

    index: int
    sigma: float
    latents: Tensor
    denoised: Tensor


Solver = Callable[[Velocity, Tensor, Sequence[float]], Iterator[tuple[float, Tensor, Tensor]]]


def euler(velocity: Velocity, x: Tensor, sigmas: Sequence[float]) -> Iterator[tuple[float, Tensor, Tensor]]:
    """First order, one forward a step: what the official pipeline computes."""
    for sigma, target in pairwise(sigmas):
        v = velocity(x, sigma)
        denoised = x - sigma * v
        x = x + (target - sigma) * v
        yield target, x, denoised


def heun(velocity: Velocity, x: Tensor, sigmas: Sequence[float]) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Second order, two forwards a step but the last: an Euler step, then the mean of the slopes at both ends."""
    for sigma, target in pairwise(sigmas):
        v = velocity(x, sigma)
        denoised = x - sigma * v
        predicted = x + (target - sigma) * v
        yield target, predicted, denoised
        if target == 0:
            return
        v_end = velocity(predicted, target)
        x = x + (target - sigma) * (v + v_end) / 2
        yield target, x, predicted - target * v_end


def res_multistep(velocity: Velocity, x: Tensor, sigmas: Sequence[float]) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Second order, one forward a step: an exponential Adams-Bashforth method in lambda = -log(sigma).

    With `d = denoised`, `dx/dlambda = d - x`. Between two steps d is taken as the line through its last two values,
    and the linear equation is then solved exactly.
    """
    previous: tuple[float, Tensor] | None = None
    for sigma, target in pairwise(sigmas):
        denoised = x - sigma * velocity(x, sigma)
        if target == 0:
            x = denoised
        else:
            h = math.log(sigma / target)
            decay = target / sigma
            x_next = decay * x + (1 - decay) * denoised
            if previous is not None:
                slope = (denoised - previous[1]) / math.log(previous[0] / sigma)
                x_next = x_next + (h - (1 - decay)) * slope
            x = x_next
        previous = (sigma, denoised)
        yield target, x, denoised


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "res_multistep": res_multistep}


def seeded_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """The noise of one picture: drawn on the CPU, so the same for every device; past the largest seed comes 0."""
    generator = torch.Generator("cpu").manual_seed(seed % (MAX_SEED + 1))
    return torch.randn(*shape, generator=generator)


def forwards(solver: str, steps: int) -> int:
    """How many times `solver` evaluates the (guided) model in `steps` steps that end at sigma 0."""
    return max(0, 2 * steps - 1) if solver == "heun" else steps


def sample(
    model: Any,
    noise: Tensor,
    sigmas: Tensor,
    captions: Any,
    *,
    negative: Any = None,
    cfg: float = 1.0,
    cfg_normalization: float = 0.0,
    cfg_truncation: float | None = 1.0,
    solver: str = "euler",
) -> Iterator[Step]:
    """Integrate from `noise` at `sigmas[0]` down the noise levels; yields a `Step` after each forward.

    model      an `S3DiT`, or any callable `(latents, sigma, captions) -> velocity`
    noise      `[B, 16, h, w]`: pure noise where `sigmas[0]` is 1, else `(1 - s) * x0 + s * noise`
    sigmas     `[steps + 1]`, falling, as `schedule.sigmas` makes them
    captions   B caption features `[L_i, D]`, or one for all; without guidance also what `model.prepare` returned
    negative   as `captions`; needed where cfg is not 1, and not evaluated where it is

    Positive and negative run as one batch. Latents are float32 between steps, whatever the model's type.
    """
    if solver not in SOLVERS:
        raise ValueError(f"there is no solver {solver!r}; there are {', '.join(SOLVERS)}")
    if cfg != 1.0 and negative is None:
        raise ValueError(f"cfg {cfg:g} needs a negative caption (that of an empty prompt will do); cfg 1 needs none")
    truncation = 1.0 if cfg_truncation is None else cfg_truncation
    velocity = _guided(model, noise, captions, negative, cfg, cfg_normalization, truncation)
    return _steps(SOLVERS[solver], velocity, noise.float(), [float(s) for s in sigmas])


@torch.no_grad()
def _steps(solver: Solver, velocity: Velocity, x: Tensor, sigmas: Sequence[float]) -> Iterator[Step]:
    for index, (sigma, latents, denoised) in enumerate(solver(velocity, x, sigmas)):
        yield Step(index, sigma, latents, denoised)


def _guided(
    model: Any, noise: Tensor, captions: Any, negative: Any, cfg: float, normalization: float, truncation: float
) -> Velocity:
    """The velocity field that the solver sees; what does not depend on the step is prepared once, when first used."""
    batch, _, h, w = noise.shape
    prepare = getattr(model, "prepare", None)
    prepared: dict[bool, Any] = {}

    def context(guided: bool) -> Any:
        if guided not in prepared:
            both = _each(captions, batch) + _each(negative, batch) if guided else captions
            prepared[guided] = prepare(both, h, w) if prepare else both
        return prepared[guided]

    def velocity(x: Tensor, sigma: float) -> Tensor:
        if not is_guided(sigma, cfg, truncation):
            return model(x, sigma, context(False)).float()
        positive, other = model(torch.cat((x, x)), sigma, context(True)).float().chunk(2)
        return combine(positive, other, cfg, normalization)

    return velocity


def _each(captions: Sequence[Tensor], batch: int) -> list[Tensor]:
    """One caption for each of `batch` samples."""
    if not isinstance(captions, Sequence):
        raise ValueError("a guided run takes lists of captions, which it prepares itself, positive and negative in one")
    if len(captions) not in (1, batch):
        raise ValueError(f"{len(captions)} captions for a batch of {batch}: give one, or one for each")
    return list(captions) * (batch if len(captions) == 1 else 1)
