"""The tables and pictures of the page "Advice you will meet" (`js/docs/ZImageAdvice.md`), from the demo model.

`python benchmarks/advice.py [--count N] [--folder FOLDER] [--only steps,cfg,...]`. Every row draws the same scenes with
the same noise, so that rows differ by their setting alone; what follows a ± is a standard error, that of a difference
is of the pairs. `tools/demo/judge.py` says what a picture shows, from its pixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import advice_lora as lora
import numpy as np
import torch
from advice_pictures import (
    BASE,
    BATCH,
    TURBO,
    Setting,
    decode,
    difference,
    error,
    judge,
    latents,
    mean,
    noise,
    pictures,
    pipeline,
    prompt_of,
    row,
    run,
    scenes,
    scores,
    scores_of,
    strip,
    table,
    world,
)  # fmt: skip

from zimage_core import demo_pipeline, sample, sigmas

FOLDER = Path(__file__).resolve().parents[1] / "js" / "docs" / "ZImageAdvice"


def drawn(settings: Sequence[Setting], count: int) -> list[tuple[str, np.ndarray]]:
    return [(setting.label, pictures(setting, count)) for setting in settings]


def schedules(count: int, folder: Path) -> None:
    """No model: the noise levels of a few runs, and how many of their steps begin above 0.8."""
    row("steps", "shift", "noise levels", "steps that begin at 0.8 or above")
    row(*["---"] * 4)
    for steps, shift in ((8, 3), (4, 3), (9, 3), (12, 3), (8, 1), (8, 6)):
        levels = sigmas(steps, shift)
        words = ", ".join(f"{level:.3f}".rstrip("0").rstrip(".") for level in levels.tolist())
        row(steps, shift, words, f"{int((levels >= 0.8).sum())} of {steps}")
    for shift in (3, 6):
        row(30, shift, "", f"{int((sigmas(30, shift) >= 0.8).sum())} of 30")
    print()


def steps(count: int, folder: Path) -> None:
    turbo = [replace(TURBO, label=f"Turbo, {n} steps", steps=n) for n in (8, 2, 4, 6, 9, 12, 16)]
    base = [replace(BASE, label=f"Base, {n} steps", steps=n) for n in (30, 8, 15, 50)]
    table(turbo, count)
    table(base, count)
    strip(folder / "steps.jpg", drawn([*turbo[1:3], turbo[0], turbo[5], base[1], base[0]], count))


def cfg(count: int, folder: Path) -> None:
    turbo = [replace(TURBO, label=f"Turbo, cfg {c:g}", cfg=c) for c in (1.0, 1.2, 1.5, 2.0, 3.0)]
    turbo += [replace(old, label=f"{old.label}, zeroed negative", zeroed=True) for old in turbo[2:4]]
    base = [replace(BASE, label=f"Base, cfg {c:g}", cfg=c) for c in (5.0, 1.0, 2.0, 3.0, 4.0, 8.0)]
    table(turbo, count)
    table(base, count)
    strip(folder / "cfg.jpg", drawn([turbo[0], *turbo[2:5], base[1], base[0]], count))


def shift(count: int, folder: Path) -> None:
    turbo = [replace(TURBO, label=f"Turbo, shift {s:g}", shift=s) for s in (3.0, 1.0, 6.0, 12.0)]
    base = [replace(BASE, label=f"Base, shift {s:g}", shift=s) for s in (6.0, 1.0, 3.0, 12.0)]
    table(turbo, count)
    table(base, count)
    strip(folder / "shift.jpg", drawn([turbo[1], turbo[0], turbo[2], base[1], base[2], base[0]], count))


def normalisation(count: int, folder: Path) -> None:
    settings = [
        replace(BASE, label=f"cfg {c:g}{', normalised' if on else ''}", cfg=c, normalization=float(on))
        for c in (5.0, 8.0, 12.0)
        for on in (False, True)
    ]
    table(settings, count)
    for setting in settings[::2]:
        print(f"{setting.label}: {held_back(setting, min(count, BATCH))}")
    print()
    strip(folder / "normalisation.jpg", drawn(settings, count))


def held_back(setting: Setting, count: int) -> str:
    """How often normalisation at 1 would act on this run, and how much."""
    parts, ratios = pipeline(setting.variant), []

    def model(x: torch.Tensor, sigma: float, captions: Any) -> torch.Tensor:
        velocity = parts.transformer(x, sigma, captions)
        positive, negative = velocity.float().chunk(2)
        guided = negative + setting.cfg * (positive - negative)
        ratios.append(guided.flatten(1).norm(dim=1) / positive.flatten(1).norm(dim=1))
        return velocity

    captions = parts.text_encoder.encode([prompt_of(scene) for scene in scenes(count)])
    other, levels = parts.text_encoder.encode([""]), sigmas(setting.steps, setting.shift)
    list(sample(model, noise(count), levels, captions, negative=other, cfg=setting.cfg))
    found = torch.stack(ratios)
    acts = found > 1
    return f"normalisation acts on {acts.float().mean():.0%} of steps, and there scales by {1 / found[acts].mean():.2f}"


def negative(count: int, folder: Path) -> None:
    """A prompt that leaves the background open, and two negatives that speak of it: how bright it becomes, of 255."""
    prompt, count = "a red circle", min(count, BATCH)
    others = ("", "a red circle on a white background", "a red circle on a black background")
    row("", "negative: empty", *(f"negative: {other}" for other in others[1:]))
    row(*["---"] * 4)
    shown, kept = [], []
    for setting in (*(replace(TURBO, label=f"Turbo, cfg {c:g}", cfg=c) for c in (1.0, 1.5, 2.0)), BASE):
        made = [decode(run(setting, [prompt] * count, negative=other)) for other in others]
        bright = [np.array([judge.background_of(p.astype(float)).mean() for p in part]) for part in made]
        same = ", the same pixels" if np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2]) else ""
        row(setting.label + same, *(mean(values, 0) for values in bright))
        shown.append((setting.label, np.concatenate([made[0][:2], made[1][:3], made[2][:3]])))
        kept.append(f"{setting.label}: {asked_for(setting, count):.2f}")
    print(f"\nBlue things under the negative 'a blue square', where the prompt asks for one: {'; '.join(kept)}\n")
    strip(folder / "negative.jpg", shown)


def asked_for(setting: Setting, count: int) -> float:
    """The share of pictures that keep what their prompt asks for and their negative speaks against."""
    prompt = "a red circle and a blue square on a white background"
    made = decode(run(setting, [prompt] * count, negative="a blue square on a white background"))
    return float(np.mean([judge.judge(picture, 2)[1][1].colour == "blue" for picture in made]))


def refine(count: int, folder: Path) -> None:
    """Turbo's latents carried on by Base, from a noise level below 1."""
    first, before = scores(TURBO, count), pictures(TURBO, count).astype(float)
    row("", "all right", "overlap", "against Turbo's", "pixels moved by")
    row(*["---"] * 5)
    row("Turbo alone", mean(first.right), f"{first.overlap.mean():.3f}", "", "")
    shown = [("Turbo", pictures(TURBO, count))]
    for strength in (0.3, 0.5, 0.7, 0.9):
        prompts = [prompt_of(scene) for scene in scenes(count)]
        made = decode(run(BASE, prompts, latents(TURBO, count), strength=strength))
        found = scores_of(made)
        against = "{:+.3f} ± {:.3f}".format(*difference(found.overlap, first.overlap))
        moved = float(np.sqrt(((made - before) ** 2).mean()))
        row(f"strength {strength:g}", mean(found.right), f"{found.overlap.mean():.3f}", against, f"{moved:.1f}")
        shown.append((f"strength {strength:g}", made))
    print()
    strip(folder / "refine.jpg", shown)


def loras(count: int, folder: Path) -> None:
    """A style of Base's (a brown background, said by no prompt) added to both, at several strengths."""
    count = min(count, BATCH)
    things = [s for s in scenes(480) if s.background != lora.STYLE and s.things[0].position == "centre"][:count]
    prompts = [lora.caption(scene) for scene in things]
    trained = lora.train(demo_pipeline("base", dtype="float32"))
    print(f"Turbo's weights are {lora.apart(*(pipeline(v).transformer for v in ('base', 'turbo'))):.0%} from Base's\n")
    row("", "brown backgrounds", "background off by", "thing's colour right", "overlap")
    row(*["---"] * 5)
    shown = []
    for setting in (BASE, TURBO):
        for strength in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0):
            model = lora.applied(demo_pipeline(setting.variant, dtype="float32").transformer, trained, strength)
            made = decode(run(setting, prompts, model=model))
            found = [judge.judge(picture, 1) for picture in made]
            grounds = np.array([judge.background_of(picture.astype(float)) for picture in made])
            off = np.abs(grounds - world.BACKGROUNDS[lora.STYLE]).mean(1)
            coloured = [f[0].colour == s.things[0].colour for (_, f), s in zip(found, things)]
            brown = np.mean([ground == lora.STYLE for ground, _ in found])
            overlap = np.array([f[0].overlap for _, f in found])
            label = f"{setting.label}, strength {strength:g}"
            row(
                label, f"{brown:.2f}", f"{off.mean():.1f} ± {error(off):.1f}", f"{np.mean(coloured):.2f}", mean(overlap)
            )
            if strength in (0.0, 0.5, 1.0):
                shown.append((label, made))
    print()
    strip(folder / "lora.jpg", shown)


SECTIONS = {
    "schedules": schedules, "steps": steps, "cfg": cfg, "negative": negative, "shift": shift,
    "normalisation": normalisation, "refine": refine, "lora": loras,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64, help="pictures in a row of a table")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by their names")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.only.split(","):
        start = time.perf_counter()
        print(f"## {name}\n")
        SECTIONS[name](args.count, args.folder)
        print(
            f"({time.perf_counter() - start:.0f} s, {args.count} pictures a row unless it says otherwise)\n", flush=True
        )


if __name__ == "__main__":
    main()
