"""The synthetic world the demo model is trained on: what a picture can hold, and how it is drawn.

Everything random comes from the `numpy.random.Generator` that the caller seeds.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (250, 145, 30),
    "yellow": (252, 218, 50),
    "green": (34, 150, 70),
    "blue": (38, 84, 220),
    "purple": (130, 56, 180),
    "pink": (246, 130, 186),
    "white": (250, 250, 250),
    "black": (18, 18, 20),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": COLOURS["white"],
    "black": COLOURS["black"],
    "grey": (134, 136, 140),
    "yellow": COLOURS["yellow"],
    "green": COLOURS["green"],
    "blue": COLOURS["blue"],
    "pink": COLOURS["pink"],
    "light blue": (166, 212, 246),
    "brown": (122, 80, 48),
}
POSITIONS = ("centre", "top left", "top right", "bottom left", "bottom right")
PAIR_WORDS = ("left", "right", "top", "bottom")
SIZES = ("small", "large")
PICTURE_SIZES = ((128, 128), (160, 96), (96, 160))  # width, height
RADIUS = {"small": 18.0, "large": 30.0}
PAIR_RADIUS = 25.0
SUPERSAMPLING = 4
HELD_OUT_SHARE = 0.1

Combination = tuple[str, str, str, str]  # shape, colour, background, position


@dataclass(frozen=True)
class Thing:
    """One shape; `position` is a word of POSITIONS, or left, right, top, bottom in a pair."""

    shape: str
    colour: str
    position: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    background: str
    things: tuple[Thing, ...]

    def combination(self) -> Combination:
        thing = self.things[0]
        return (thing.shape, thing.colour, self.background, thing.position)


def _held_out() -> frozenset[Combination]:
    every = [c for c in itertools.product(SHAPES, COLOURS, BACKGROUNDS, POSITIONS) if c[1] != c[2]]
    order = np.random.default_rng(20251120).permutation(len(every))
    return frozenset(every[i] for i in order[: round(len(every) * HELD_OUT_SHARE)])


HELD_OUT = _held_out()  # never drawn for training


def scale_of(width: int, height: int) -> float:
    """How much smaller things are in a picture whose short side is below 128."""
    return math.sqrt(min(width, height) / 128)


def anchor(position: str, width: int, height: int) -> tuple[float, float]:
    """The middle of the place a position word names, in pixels."""
    margin = RADIUS["large"] * scale_of(width, height) + 5
    inset_x, inset_y = max(margin, 0.28 * width), max(margin, 0.28 * height)
    if position in PAIR_WORDS:
        inset_x, inset_y = 0.26 * width, 0.26 * height
    x = inset_x if "left" in position else width - inset_x if "right" in position else width / 2
    y = inset_y if "top" in position else height - inset_y if "bottom" in position else height / 2
    return x, y


def pair_positions(width: int, height: int) -> tuple[str, str]:
    return ("top", "bottom") if height > width else ("left", "right")


def place(
    rng: np.random.Generator, shape: str, colour: str, position: str, size: str, width: int, height: int
) -> Thing:
    """A thing at its place, with a little jitter so that the model sees a continuum."""
    radius = (PAIR_RADIUS if position in PAIR_WORDS else RADIUS[size]) * scale_of(width, height)
    x, y = anchor(position, width, height)
    dx, dy = rng.uniform(-2.0, 2.0, 2)
    return Thing(shape, colour, position, size, x + dx, y + dy, radius * rng.uniform(0.95, 1.05))


def pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def sample_single(rng: np.random.Generator, width: int, height: int, held_out: bool = False) -> Scene:
    while True:
        position = "centre" if rng.random() < 0.3 else pick(rng, POSITIONS)
        shape, colour, background = pick(rng, SHAPES), pick(rng, list(COLOURS)), pick(rng, list(BACKGROUNDS))
        if colour == background or ((shape, colour, background, position) in HELD_OUT) != held_out:
            continue
        size = "large" if rng.random() < 0.6 else "small"
        return Scene(width, height, background, (place(rng, shape, colour, position, size, width, height),))


def sample_pair(rng: np.random.Generator, width: int, height: int) -> Scene:
    background = pick(rng, list(BACKGROUNDS))
    colours = [c for c in COLOURS if c != background]
    things = tuple(
        place(rng, pick(rng, SHAPES), pick(rng, colours), position, "large", width, height)
        for position in pair_positions(width, height)
    )
    return Scene(width, height, background, things)


def sample_scene(rng: np.random.Generator, width: int, height: int, pair_share: float = 0.2) -> Scene:
    """A training scene: never a held-out combination."""
    if rng.random() < pair_share:
        return sample_pair(rng, width, height)
    return sample_single(rng, width, height)


def outline(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """Corners of a shape of visual radius r (circles and rings are drawn as ellipses instead)."""
    if shape == "square":
        a = 0.87 * r
        return [(x - a, y - a), (x + a, y - a), (x + a, y + a), (x - a, y + a)]
    if shape == "triangle":
        top, base = y - 1.02 * r, y + 0.85 * r
        return [(x, top), (x + 1.08 * r, base), (x - 1.08 * r, base)]
    if shape == "star":
        radii = [1.12 * r if i % 2 == 0 else 0.46 * r for i in range(10)]
        angles = [-math.pi / 2 + i * math.pi / 5 for i in range(10)]
        return [(x + q * math.cos(a), y + 0.05 * r + q * math.sin(a)) for q, a in zip(radii, angles)]
    if shape == "cross":
        a, b = 1.0 * r, 0.32 * r
        half = [
            (-b, -a),
            (b, -a),
            (b, -b),
            (a, -b),
            (a, b),
            (b, b),
            (b, a),
            (-b, a),
            (-b, b),
            (-a, b),
            (-a, -b),
            (-b, -b),
        ]
        return [(x + dx, y + dy) for dx, dy in half]
    raise ValueError(f"no outline for the shape {shape!r}")


def coverage(shape: str, x: float, y: float, radius: float, width: int, height: int) -> np.ndarray:
    """How much of each pixel the shape covers: float32 [height, width] in 0 to 1."""
    s = SUPERSAMPLING
    canvas = Image.new("L", (width * s, height * s), 0)
    draw = ImageDraw.Draw(canvas)
    # PIL's coordinates name pixel centres; ours name points of the plane.
    cx, cy, r = x * s - 0.5, y * s - 0.5, radius * s
    if shape in ("circle", "ring"):
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
        if shape == "ring":
            q = 0.56 * r
            draw.ellipse((cx - q, cy - q, cx + q, cy + q), fill=0)
    else:
        draw.polygon(outline(shape, cx, cy, r), fill=255)
    return np.asarray(canvas.reduce(s), dtype=np.float32) / 255


def paint(picture: np.ndarray, mask: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    return picture + mask[..., None] * (np.asarray(colour, np.float32) - picture)


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8 [height, width, 3]."""
    picture = np.empty((scene.height, scene.width, 3), np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    for t in scene.things:
        mask = coverage(t.shape, t.x, t.y, t.radius, scene.width, scene.height)
        picture = paint(picture, mask, COLOURS[t.colour])
    return np.rint(picture).astype(np.uint8)


def draw_free(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Any colours, any places: widens what the VAE can hold beyond the captioned world."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = rng.uniform(0, 255, 3)
    if rng.random() < 0.3:  # a soft ramp, so that not every surface is flat
        ramp = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
        picture = picture * (1 - ramp) + rng.uniform(0, 255, 3).astype(np.float32) * ramp
    for _ in range(int(rng.integers(1, 5))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 34)
        picture = paint(picture, coverage(pick(rng, SHAPES), x, y, r, width, height), tuple(rng.uniform(0, 255, 3)))
    return np.rint(picture).astype(np.uint8)
