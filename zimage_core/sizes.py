"""Picture sizes: the official ones, the legal ones, and the nearest fit to a picture.

Every size is a multiple of 16 (the VAE's 8 times the patch size 2). 10 of the 33 official sizes are not multiples of
32, so nothing here ever rounds to 32 or 64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

MULTIPLE = 16
SMALLEST, LARGEST = 16, 8192

# Class (the side of its square) -> landscape sizes by aspect; portraits are their transposes. Source: the official
# spaces Tongyi-MAI/Z-Image-Turbo (1024, 1280, 1536) and Z-Image (720 also).
_LANDSCAPE: dict[str, dict[str, tuple[int, int]]] = {
    "720": {"1:1": (720, 720), "16:9": (896, 512), "3:2": (832, 544), "4:3": (800, 576)},
    "1024": {
        "1:1": (1024, 1024), "9:7": (1152, 896), "4:3": (1152, 864),
        "3:2": (1248, 832), "16:9": (1280, 720), "21:9": (1344, 576),
    },
    "1280": {
        "1:1": (1280, 1280), "9:7": (1440, 1120), "4:3": (1472, 1104),
        "3:2": (1536, 1024), "16:9": (1536, 864), "21:9": (1680, 720),
    },
    "1536": {
        "1:1": (1536, 1536), "9:7": (1728, 1344), "4:3": (1728, 1296),
        "3:2": (1872, 1248), "16:9": (2048, 1152), "21:9": (2016, 864),
    },
    "demo": {"1:1": (128, 128), "5:3": (160, 96)},
}  # fmt: skip

# The names and sizes of fal's API, which many scripts already use.
NAMES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
}


@dataclass(frozen=True)
class Size:
    """A picture size in pixels, its class and its aspect as width:height."""

    width: int
    height: int
    group: str = ""
    aspect: str = ""

    @property
    def tokens(self) -> int:
        """Image tokens the transformer sees, before padding to a multiple of 32."""
        return (self.width // MULTIPLE) * (self.height // MULTIPLE)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _expand() -> Iterable[Size]:
    for group, sizes in _LANDSCAPE.items():
        for aspect, (width, height) in sizes.items():
            yield Size(width, height, group, aspect)
            if width != height:
                yield Size(height, width, group, ":".join(reversed(aspect.split(":"))))


# Every listed size; the official ones are all but the demo's.
SIZES: tuple[Size, ...] = tuple(_expand())
CLASSES: tuple[str, ...] = tuple(_LANDSCAPE)
OFFICIAL: tuple[Size, ...] = tuple(size for size in SIZES if size.group not in ("demo",))


def sizes(group: str) -> tuple[Size, ...]:
    """The sizes of a class: "720", "1024", "1280", "1536" or "demo"."""
    if group not in CLASSES:
        raise ValueError(f"there is no size class {group!r}; there are {', '.join(CLASSES)}")
    return tuple(size for size in SIZES if size.group == group)


def size(group: str, aspect: str) -> Size:
    """One size by class and aspect, `size("1280", "16:9")` -> 1536x864."""
    for candidate in sizes(group):
        if candidate.aspect == aspect:
            return candidate
    raise ValueError(f"class {group} has no aspect {aspect!r}; it has {', '.join(s.aspect for s in sizes(group))}")


def check_size(width: int, height: int) -> None:
    """Raise a ValueError that names the nearest legal size unless both sides are multiples of 16, from 16 to 8192."""
    if all(side % MULTIPLE == 0 and SMALLEST <= side <= LARGEST for side in (width, height)):
        return
    near = round_size(width, height)
    raise ValueError(
        f"size {width}x{height} cannot be drawn: both sides must be multiples of {MULTIPLE} "
        f"from {SMALLEST} to {LARGEST}; the nearest such size is {near}"
    )


def round_size(width: int, height: int) -> Size:
    """Any size, rounded to the nearest legal one."""

    def legal(side: int) -> int:
        return min(max(math.floor(side / MULTIPLE + 0.5) * MULTIPLE, SMALLEST), LARGEST)

    return Size(legal(width), legal(height))


def parse_size(text: str) -> Size:
    """ "1280x720", a name such as "landscape_16_9", or a class and an aspect such as "1280 16:9".

    Raises a ValueError for anything else, and for sizes that are not legal.
    """
    text = text.strip().lower()
    if text in NAMES:
        return Size(*NAMES[text])
    if match := re.fullmatch(r"(\d+)\s*[x×*]\s*(\d+)", text):
        width, height = int(match[1]), int(match[2])
        check_size(width, height)
        return Size(width, height)
    if match := re.fullmatch(r"(\w+)[\s@]+(\d+:\d+)", text):
        return size(match[1], match[2])
    raise ValueError(
        f"size {text!r} is not understood: write WIDTHxHEIGHT (1280x720), a name ({', '.join(NAMES)}), "
        f'or a class and an aspect ("1280 16:9")'
    )


@dataclass(frozen=True)
class Fit:
    """An official size for a picture, and the pixels of the scaled picture that would be cropped on each axis."""

    size: Size
    scale: float
    crop_width: int
    crop_height: int


def nearest_size(width: int, height: int, group: str | None = None) -> Fit:
    """The official size that a picture of `width` by `height` fits best: nearest aspect, then nearest area.

    The picture is scaled to cover the size; what then sticks out is cropped. `group` keeps to one class.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height} has no size to fit")

    def misfit(candidate: Size) -> tuple[float, float]:
        aspect = abs(math.log(candidate.width / candidate.height * height / width))
        area = abs(math.log(candidate.width * candidate.height / (width * height)))
        return round(aspect, 6), area

    best = min(sizes(group) if group else OFFICIAL, key=misfit)
    scale = max(best.width / width, best.height / height)
    return Fit(best, scale, round(width * scale) - best.width, round(height * scale) - best.height)
