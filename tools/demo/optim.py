"""Optimisers, weight averaging and the clock of a training stage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest orthogonal matrices of [n, rows, columns], roughly: the quintic iteration of the Muon optimiser."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for matrices and convolution kernels.

    `splits` gives, per parameter, into how many row blocks it is cut first (3 for a fused qkv).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.0,
        splits: dict[Tensor, int] | None = None,
    ) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "decay": decay})
        self.splits = splits or {}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])
            torch._foreach_mul_(params, 1 - group["lr"] * group["decay"])
            torch._foreach_add_(params, self._directions(params, updates), alpha=-group["lr"])

    def _directions(self, params: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
        """Orthogonalised updates; blocks of one shape are iterated together, which makes it fast."""
        blocks = [list(u.flatten(1).chunk(self.splits.get(p, 1), dim=0)) for p, u in zip(params, updates)]
        places: dict[torch.Size, list[tuple[int, int]]] = {}
        for i, parts in enumerate(blocks):
            for j, part in enumerate(parts):
                places.setdefault(part.shape, []).append((i, j))
        for shape, spots in places.items():
            # The factor gives every matrix the update size AdamW would have given it.
            stacked = orthogonalise(torch.stack([blocks[i][j] for i, j in spots])) * (0.2 * max(shape) ** 0.5)
            for (i, j), result in zip(spots, stacked):
                blocks[i][j] = result
        return [torch.cat(parts).view_as(p) for p, parts in zip(params, blocks)]


class Optimisers:
    """Muon for the matrices, AdamW for everything else, stepped and saved as one."""

    def __init__(
        self,
        matrices: list[Tensor],
        rest: list[Tensor],
        muon_lr: float,
        adam_lr: float,
        splits: dict[Tensor, int] | None = None,
        decay: float = 0.0,
    ) -> None:
        self.parts: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=muon_lr, decay=decay, splits=splits),
            torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
        ]
        self.peaks = [muon_lr, adam_lr]
        self.parameters = matrices + rest

    def step(self, factor: float) -> float:
        """One update at `factor` of the peak rates; returns the gradient norm."""
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, peak in zip(self.parts, self.peaks):
            for group in part.param_groups:
                group["lr"] = peak * factor
            part.step()
            part.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


class Average:
    """An exponential moving average of a module's weights, faster at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = module.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [state[k] for k in self.weights], 1 - decay)


class Clock:
    """Progress of a stage from 0 to 1, by steps or by minutes, whichever comes first.

    The machine may be shared, so a stage that is given minutes ends on time with its decay complete.
    """

    def __init__(self, steps: int | None, minutes: float | None) -> None:
        if steps is None and minutes is None:
            raise ValueError("a stage needs steps or minutes")
        self.steps, self.minutes = steps, minutes
        self.step, self.spent, self._mark = 0, 0.0, time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self.step, self.spent, self._mark = self.step + 1, self.spent + now - self._mark, now

    @property
    def progress(self) -> float:
        by_step = self.step / self.steps if self.steps else 0.0
        by_time = self.spent / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_step, by_time))

    def rate(self, warmup: int = 60, hold: float = 0.2) -> float:
        """Learning-rate factor: a short warm-up, a plateau, one long linear decay to zero."""
        decay = min(1.0, (1 - self.progress) / (1 - hold))
        return min(1.0, (self.step + 1) / warmup) * decay

    def state_dict(self) -> dict:
        return {"step": self.step, "spent": self.spent}

    def load_state_dict(self, state: dict) -> None:
        self.step, self.spent, self._mark = state["step"], state["spent"], time.monotonic()


class Stage:
    """What a stage keeps between its steps, in one file: weights, their average, optimiser states, the clock."""

    def __init__(self, path: Path, module: nn.Module, optimisers: Optimisers, average: Average, clock: Clock) -> None:
        self.path, self.module, self.optimisers, self.average, self.clock = path, module, optimisers, average, clock
        if path.exists():
            saved = torch.load(path, weights_only=False)
            module.load_state_dict(saved["module"])
            optimisers.load_state_dict(saved["optimisers"])
            clock.load_state_dict(saved["clock"])
            average.weights, average.steps = saved["average"], clock.step

    def advance(self, loss: Tensor, factor: float) -> None:
        loss.backward()
        self.optimisers.step(factor)
        self.average.update(self.module)
        self.clock.tick()

    def save(self) -> None:
        """Whole or not at all: a stage may be stopped at any moment."""
        part = self.path.with_suffix(".part")
        torch.save(
            {
                "module": self.module.state_dict(),
                "average": self.average.weights,
                "optimisers": self.optimisers.state_dict(),
                "clock": self.clock.state_dict(),
            },
            part,
        )
        part.replace(self.path)
