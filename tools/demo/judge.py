"""Says what a picture shows, from its pixels alone: nothing here is learned.

`python tools/demo/judge.py` checks the judge itself on freshly drawn pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import world

MIN_OVERLAP = 0.75  # of a shape's outline with the best fitting one; below it, it is no shape


@dataclass(frozen=True)
class Finding:
    """What was seen of one thing; `shape` is "?" where nothing fits."""

    shape: str
    colour: str
    position: str
    size: str
    overlap: float


def nearest(colour: np.ndarray, table: dict[str, tuple[int, int, int]]) -> str:
    return min(table, key=lambda name: float(np.abs(np.asarray(table[name]) - colour).sum()))


def background_of(picture: np.ndarray) -> np.ndarray:
    """The median colour of the frame, which no shape fills."""
    frame = np.concatenate([picture[:3].reshape(-1, 3), picture[-3:].reshape(-1, 3),
                            picture[:, :3].reshape(-1, 3), picture[:, -3:].reshape(-1, 3)])  # fmt: skip
    return np.median(frame, axis=0)


def presence(picture: np.ndarray, ground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel is the thing rather than the ground [h, w], and the thing's colour."""
    distance = np.abs(picture - ground).sum(-1)
    inside = distance > max(30.0, 0.6 * float(np.quantile(distance, 0.98)))
    colour = np.median(picture[inside], axis=0) if inside.any() else ground
    axis = colour - ground
    share = (picture - ground) @ axis / max(float(axis @ axis), 1.0)
    return np.clip(share, 0, 1), colour


@cache
def unit_box(shape: str) -> tuple[float, float, float, float]:
    if shape in ("circle", "ring"):
        return (-1.0, -1.0, 1.0, 1.0)
    xs, ys = zip(*world.outline(shape, 0.0, 0.0, 1.0))
    return (min(xs), min(ys), max(xs), max(ys))


def extent(share: np.ndarray, axis: int) -> tuple[float, float] | None:
    """First and last row or column that holds more than a pixel of the thing."""
    filled = np.flatnonzero((share > 0.5).sum(axis) > 1)
    return (float(filled[0]), float(filled[-1]) + 1) if len(filled) else None


def fit(shape: str, share: np.ndarray, box: tuple[float, float, float, float]) -> tuple[float, float]:
    """The shape laid into the box: its overlap (intersection over union) and its radius."""
    x0, y0, x1, y1 = unit_box(shape)
    radius = ((box[2] - box[0]) / (x1 - x0) + (box[3] - box[1]) / (y1 - y0)) / 2
    x = (box[0] + box[2]) / 2 - radius * (x0 + x1) / 2
    y = (box[1] + box[3]) / 2 - radius * (y0 + y1) / 2
    mask = world.coverage(shape, x, y, radius, share.shape[1], share.shape[0])
    overlap = float(np.minimum(mask, share).sum() / max(np.maximum(mask, share).sum(), 1e-6))
    return overlap, radius


def judge_thing(
    picture: np.ndarray,
    ground: np.ndarray,
    places: tuple[str, ...],
    width: int,
    height: int,
    offset: tuple[int, int] = (0, 0),
) -> Finding:
    """Judges the only thing in `picture`, a part at `offset` of a whole of width x height."""
    share, colour = presence(picture, ground)
    columns, rows = extent(share, 0), extent(share, 1)
    if columns is None or rows is None:
        return Finding("?", "?", "?", "?", 0.0)
    box = (columns[0], rows[0], columns[1], rows[1])
    fits = {shape: fit(shape, share, box) for shape in world.SHAPES}
    shape = max(fits, key=lambda s: fits[s][0])
    overlap, radius = fits[shape]
    centre = np.array([(box[0] + box[2]) / 2 + offset[0], (box[1] + box[3]) / 2 + offset[1]])
    position = min(places, key=lambda p: float(np.linalg.norm(centre - world.anchor(p, width, height))))
    limit = 24 * world.scale_of(width, height)
    return Finding(
        shape if overlap >= MIN_OVERLAP else "?", nearest(colour, world.COLOURS), position,
        "large" if radius > limit else "small", overlap,
    )  # fmt: skip


def judge(picture: np.ndarray, things: int) -> tuple[str, list[Finding]]:
    """uint8 [height, width, 3] -> the background's name, and one finding for each of one or two expected things."""
    height, width = picture.shape[:2]
    pixels = picture.astype(np.float32)
    ground = background_of(pixels)
    name = nearest(ground, world.BACKGROUNDS)
    if things == 1:
        return name, [judge_thing(pixels, ground, world.POSITIONS, width, height)]
    places = world.pair_positions(width, height)
    if height > width:
        cut = height // 2
        parts = [(pixels[:cut], (0, 0)), (pixels[cut:], (0, cut))]
    else:
        cut = width // 2
        parts = [(pixels[:, :cut], (0, 0)), (pixels[:, cut:], (cut, 0))]
    return name, [judge_thing(part, ground, places, width, height, offset) for part, offset in parts]


def score(picture: np.ndarray, scene: world.Scene) -> dict[str, bool]:
    """Which of the scene's properties the picture has; `all` is every one of every thing."""
    name, found = judge(picture, len(scene.things))
    result = {"background": name == scene.background}
    for key in ("colour", "position", "size", "shape"):
        if key == "size" and len(scene.things) == 2:
            continue  # the things of a pair have one size between small and large
        result[key] = all(getattr(f, key) == getattr(t, key) for f, t in zip(found, scene.things))
    result["all"] = all(result.values())
    return result


def main() -> None:
    rng = np.random.default_rng(99)
    totals: dict[str, list[bool]] = {}
    for i in range(3000):
        scene = world.sample_scene(rng, *world.PICTURE_SIZES[i % 3])
        result = score(world.draw(scene), scene)
        for key, value in result.items():
            totals.setdefault(key, []).append(value)
    print("judge on 3000 drawn pictures:", {k: round(float(np.mean(v)), 4) for k, v in totals.items()})


if __name__ == "__main__":
    main()
