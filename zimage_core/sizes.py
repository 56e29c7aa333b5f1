"""Picture sizes: the official ones, the legal ones, the nearest fit to a picture, and what a size needs in memory.

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
# The sides of the smallest and the largest square of the official range, whose areas bound any aspect.
OFFICIAL_SIDES = (512, 2048)

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

    @property
    def in_official_range(self) -> bool:
        least, largest = OFFICIAL_SIDES
        return least**2 <= self.width * self.height <= largest**2

    def swapped(self) -> Size:
        """Portrait for landscape, and the other way round."""
        return Size(self.height, self.width, self.group, ":".join(reversed(self.aspect.split(":"))))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _expand() -> Iterable[Size]:
    for group, sizes in _LANDSCAPE.items():
        for aspect, (width, height) in sizes.items():
            yield Size(width, height, group, aspect)
            if width != height:
                yield Size(width, height, group, aspect).swapped()


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


def snap_size(width: int, height: int) -> Size:
    """Any size from 16 to 8192 a side, at the nearest multiples of 16. Raises ValueError beyond that."""
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        check_size(width, height)
    return round_size(width, height)


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

    return fit(min(sizes(group) if group else OFFICIAL, key=misfit), width, height)


def fit(size: Size, width: int, height: int) -> Fit:
    """`size` for a picture of `width` by `height`, scaled to cover it; what then sticks out is cropped."""
    scale = max(size.width / width, size.height / height)
    return Fit(size, scale, round(width * scale) - size.width, round(height * scale) - size.height)


# At its peak, in the attention of a block that refines image tokens, the transformer holds 14 tensors of the model's
# width for each of them, and half as many for the tokens of the prompt, here 128.
_DRAWING = 14 * 3840
# At its peak the VAE's decoder holds 3 tensors of 256 channels at the picture's full size.
_DECODING = 3 * 256
_CAPTION = 128 // 2
_BYTES = 2  # bfloat16


@dataclass(frozen=True)
class Memory:
    """Bytes beside the weights: for drawing a batch, and for decoding one picture of it."""

    drawing: int
    decoding: int


def memory(width: int, height: int, batch: int = 1) -> Memory:
    """What the real model and its VAE hold at once in 16-bit types, in bytes beside the weights.

    It is the size of the tensors that are alive at the peak, in closed form: both grow with the area, since attention
    keeps no table of all pairs. Above cfg 1 positive and negative run together, and drawing takes twice as much. It is
    not what a card must have free: libraries add workspace of their own, and ComfyUI sets about 2.2 times this aside
    for drawing and 2.8 times for decoding before it moves weights out of the way. The demo needs far less.
    """
    tokens = math.ceil(Size(width, height).tokens / 32) * 32 + _CAPTION
    return Memory(batch * tokens * _DRAWING * _BYTES, width * height * _DECODING * _BYTES)
