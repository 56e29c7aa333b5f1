"""Two models at the same seed: each with its own settings through the sampler's loop, then decoded side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..seeds import Seeds
from ..settings import Run, resolve, sentences, size_notes
from .checks import check_latent, feature_width
from .guider import always_both
from .report import report
from .sampling import indices_of, integrate
from .schedule import shift_of, variant_of

SIDES = ("a", "b")
# The gap between two pictures, as a part of their width: enough to see it, whatever the size.
_GAP = 1 / 128


def compare(
    model_a: Any, model_b: Any, positive: Any, negative: Any | None, latent: Mapping[str, Any], vae: Any, *, seed: int,
    hidden: Any,
) -> tuple[tuple[Tensor, Tensor, Tensor], str]:  # fmt: skip
    """The node's pictures (side by side, a, b), and its words.

    Raises ValueError before the first step if either of the models cannot be run.
    """
    if vae is None:
        raise ValueError("there is no VAE: this checkpoint holds none, so use Load Z-Image VAE")
    check_latent(latent["samples"])
    models = (model_a, model_b)
    seeds = Seeds(seed, indices_of(latent))
    runs = [_resolved(model, negative, latent, seeds) for model in models]
    before, total = 0, sum(run.steps for run in runs)
    drawn, lines, counts, records = [], [], [], {}
    said: list[str] = []  # of the previews, which are the same for both
    for side, model, run in zip(SIDES, models, runs):
        avoid = negative if run.guidance.cfg != 1 or always_both(model.model_options) else None
        samples, forwards, said = integrate(model, positive, avoid, latent, run, "auto", (before, total))
        before += run.steps
        drawn.append(samples)
        lines.append(_line(side, model, run))
        counts.append(forwards)
        records[side] = run.record(samples.shape[-1] * 8, samples.shape[-2] * 8, len(samples), forwards)
    lines += [_details(runs, counts), *_notes(runs), *sentences(said)]
    report(lines, records, hidden, name="Z-Image Compare")
    a, b = (_decoded(vae, samples) for samples in drawn)  # only now: the VAE moves models out where memory is short
    return (beside(a, b), a, b), "\n".join(lines)


def _resolved(model: Any, negative: Any | None, latent: Mapping[str, Any], seeds: Seeds) -> Run:
    """The model's own settings, as the sampler's mode `auto` finds them.

    The negative is there for the model that is guided: that the other does without is no news.
    """
    variant = variant_of(model)
    run = resolve(
        {"mode": "auto"}, variant, shift_of(model, 0.0), seeds=seeds, solver="euler", strength=1.0,
        has_negative=negative is not None and variant.variant.cfg != 1,
    )  # fmt: skip
    height, width = (side * 8 for side in latent["samples"].shape[-2:])
    return run.with_notes(size_notes(width, height, feature_width(model)))


def _line(side: str, model: Any, run: Run) -> str:
    """What a side ran, short enough for the line or two that a node shows; a LoRA shows as weights that are patched."""
    own = run.shift.source == "from the model" and run.shift.value is not None
    shift = f"shift {run.shift.value:g}" if own else f"{run.shift}"
    facts = [run.variant.variant.title, f"{run.steps} steps", f"cfg {run.guidance.cfg:g}", shift]
    if count := len(model.patches):
        facts.append(f"{count} weight{'s' if count > 1 else ''} patched")
    return f"{side}: {', '.join(facts)}."


def _details(runs: list[Run], forwards: list[int]) -> str:
    first, second = runs
    seeds = f"{first.solver}, {first.seeds}, {forwards[0]} and {forwards[1]} forwards"
    return f"Both {seeds}; a is {first.variant}, b is {second.variant}."


def _notes(runs: list[Run]) -> list[str]:
    """What holds for both is said once."""
    first, second = (sentences(run.notes) for run in runs)
    both = [note for note in first if note in second]
    of_one = [f"{side}: {note}" for side, found in zip(SIDES, (first, second)) for note in found if note not in both]
    return [*of_one, *both]


def _decoded(vae: Any, samples: Tensor) -> Tensor:
    """As the host's VAE Decode: pictures `[B, H, W, C]`."""
    images: Tensor = vae.decode(samples)
    return images.flatten(0, 1) if images.ndim == 5 else images


def beside(left: Tensor, right: Tensor) -> Tensor:
    """`[B, H, W, C]` of both -> `[B, H, 2 W + gap, C]`: picture i of both in row i, with a grey gap between."""
    gap = left.new_full((*left.shape[:2], max(round(left.shape[2] * _GAP), 2), left.shape[3]), 0.5)
    return torch.cat((left, gap, right), dim=2)
