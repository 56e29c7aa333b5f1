"""Pictures of the demo model under a setting, what they are worth, and how they are shown: the tools of `advice.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zimage_core import ZImagePipeline, demo_pipeline, sample, sigmas
from zimage_core.sampling import seeded_noise

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "demo"))
import judge
import world

BATCH = 32
SHOWN = 8  # pictures in a line of a strip


@dataclass(frozen=True)
class Setting:
    """One row of a table."""

    label: str
    variant: str = "turbo"
    steps: int = 8
    cfg: float = 1.0
    shift: float = 3.0
    normalization: float = 0.0
    zeroed: bool = False  # zeros for the negative's features, as ComfyUI's ConditioningZeroOut makes them

    @property
    def forwards(self) -> int:
        return self.steps * (1 if self.cfg == 1 else 2)


TURBO, BASE = Setting("Turbo"), Setting("Base", "base", steps=30, cfg=5.0, shift=6.0)


@cache
def pipeline(variant: str) -> ZImagePipeline:
    return demo_pipeline(variant)


@cache
def scenes(count: int) -> tuple[world.Scene, ...]:
    """Combinations of shape, colour, background and place that no training picture had."""
    rng = np.random.default_rng(5)
    return tuple(world.sample_single(rng, 128, 128, held_out=True) for _ in range(count))


def prompt_of(scene: world.Scene) -> str:
    thing = scene.things[0]
    return f"a {thing.size} {thing.colour} {thing.shape} in the {thing.position} on a {scene.background} background"


def noise(count: int) -> Tensor:
    """Picture i has seed i."""
    return torch.cat([seeded_noise(i, (1, 16, 16, 16)) for i in range(count)])


def run(
    setting: Setting, prompts: Sequence[str], start: Tensor | None = None, *, negative: str = "", strength: float = 1.0,
    model: Any = None,
) -> Tensor:  # fmt: skip
    """Latents `[n, 16, 16, 16]`; `start` are latents to go on from, mixed with noise by `strength`."""
    parts, made = pipeline(setting.variant), []
    x = noise(len(prompts))
    x = x if start is None else (1 - strength) * start + strength * x
    others = parts.text_encoder.encode([negative])
    others = [torch.zeros_like(other) for other in others] if setting.zeroed else others
    for i in range(0, len(prompts), BATCH):
        *_, last = sample(
            model or parts.transformer, x[i : i + BATCH], sigmas(setting.steps, setting.shift, strength),
            parts.text_encoder.encode(list(prompts[i : i + BATCH])), negative=others, cfg=setting.cfg,
            cfg_normalization=setting.normalization,
        )  # fmt: skip
        made.append(last.latents)
    return torch.cat(made)


def decode(latents: Tensor) -> np.ndarray:
    """uint8 `[n, 128, 128, 3]`, one at a time, which is faster on a CPU."""
    images = torch.cat([pipeline("turbo").vae.decode(one) for one in latents.split(1)])
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()


@cache
def latents(setting: Setting, count: int) -> Tensor:
    return run(setting, [prompt_of(scene) for scene in scenes(count)])


@cache
def pictures(setting: Setting, count: int) -> np.ndarray:
    return decode(latents(setting, count))


@dataclass(frozen=True)
class Scores:
    """Of each picture: whether all is as told, the outline's overlap with its ideal, how far its colours are off."""

    right: np.ndarray
    overlap: np.ndarray
    colour: np.ndarray


def scores_of(drawn: np.ndarray) -> Scores:
    """Of pictures of the first scenes."""
    pairs = list(zip(drawn, scenes(len(drawn))))
    return Scores(
        np.array([judge.score(picture, scene)["all"] for picture, scene in pairs], float),
        np.array([judge.judge(picture, 1)[1][0].overlap for picture, _ in pairs]),
        np.array([colour_error(picture, scene) for picture, scene in pairs]),
    )


@cache
def scores(setting: Setting, count: int) -> Scores:
    return scores_of(pictures(setting, count))


def colour_error(picture: np.ndarray, scene: world.Scene) -> float:
    """Mean distance of the background's and the thing's colour from those of the training pictures, of 255."""
    pixels = picture.astype(np.float32)
    ground = judge.background_of(pixels)
    _, colour = judge.presence(pixels, ground)
    errors = [ground - world.BACKGROUNDS[scene.background], colour - world.COLOURS[scene.things[0].colour]]
    return float(np.abs(errors).mean())


def error(values: np.ndarray) -> float:
    """The standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def mean(values: np.ndarray, digits: int = 2) -> str:
    return f"{values.mean():.{digits}f} ± {error(values):.{digits}f}"


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def table(settings: Sequence[Setting], count: int) -> None:
    """Each setting's scores, and how it differs from the first, picture by picture."""
    row("", "forwards", "all right", "overlap", "against the first row", "colours off by")
    row(*["---"] * 6)
    first = scores(settings[0], count)
    for setting in settings:
        found = scores(setting, count)
        against = "" if setting == settings[0] else "{:+.3f} ± {:.3f}".format(*difference(found.overlap, first.overlap))
        overlap, colour = f"{found.overlap.mean():.3f}", f"{found.colour.mean():.1f}"
        row(setting.label, setting.forwards, mean(found.right), overlap, against, colour)
    print()


def difference(values: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """The mean of the pairs' differences and its standard error."""
    return float((values - others).mean()), error(values - others)


def strip(path: Path, rows: Sequence[tuple[str, np.ndarray]], cell: int = 112) -> None:
    """A line of pictures for each row, with its label before it."""
    margin = 116
    sheet = Image.new("RGB", (margin + SHOWN * cell, len(rows) * cell), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for y, (label, shown) in enumerate(rows):
        pen.multiline_text((8, y * cell + cell / 2 - 18), label.replace(", ", "\n"), "black", font)
        for x, picture in enumerate(shown[:SHOWN]):
            small = Image.fromarray(picture).resize((cell - 4, cell - 4), Image.Resampling.LANCZOS)
            sheet.paste(small, (margin + x * cell, y * cell + 2))
    sheet.save(path, quality=82)
