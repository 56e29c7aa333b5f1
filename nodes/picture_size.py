"""The size that was chosen, where it is from, and the words that say what it costs."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from ..zimage_core.sizes import OFFICIAL_SIDES, Fit, Size, fit, memory, nearest_size, snap_size
from .settings import sentences

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A size, and where it is from: what was asked for if it had to be snapped, or the picture that it fits."""

    size: Size
    asked: tuple[int, int] | None = None
    picture: tuple[int, int] | None = None
    fit: Fit | None = None

    @property
    def beyond(self) -> bool:
        """Whether it lies beyond the official range. The demo's sizes are its own."""
        return self.size.group != "demo" and not self.size.in_official_range

    def words(self, batch: int) -> list[str]:
        """What it is and what it costs, then a sentence for each thing to know."""
        size, need = self.size, memory(self.size.width, self.size.height, batch)
        megapixels = math.floor(size.width * size.height / 1e4 + 0.5) / 100
        count = f", {batch} pictures" if batch > 1 else ""
        return [
            f"{size}, {megapixels:g} megapixels, {size.tokens} image tokens{count}.",
            f"About {amount(need.drawing)} to draw ({amount(2 * need.drawing)} above cfg 1) and "
            f"{amount(need.decoding)} to decode, beside the weights.",
            *sentences(self._notes()),
        ]

    def _notes(self) -> list[str]:
        found = []
        if self.asked:
            found.append(f"{_sides(self.asked)} was snapped to {self.size}: sides are multiples of 16")
        if self.picture and self.fit:
            found.append(
                f"{_sides(self.picture)} -> {self.size}: scaled by {round(self.fit.scale, 3):g}, {_cropped(self.fit)}"
            )
        if self.beyond:
            least, largest = OFFICIAL_SIDES
            found.append(
                f"{self.size} is beyond the official range, the areas from {least}x{least} to {largest}x{largest}: "
                f"the picture may fall apart or repeat itself"
            )
        return found

    def facts(self, batch: int) -> dict[str, Any]:
        """The same as numbers, for the panel in the browser, which says them in the user's language."""
        found: dict[str, Any] = {
            "width": self.size.width, "height": self.size.height, "batch": batch,
            "demo": self.size.group == "demo", "asked": self.asked, "picture": self.picture,
        }  # fmt: skip
        if self.fit:
            found |= {"scale": self.fit.scale, "crop": (self.fit.crop_width, self.fit.crop_height)}
        return found


def listed(size: Size, swap: bool) -> Chosen:
    return Chosen(size.swapped() if swap else size)


def custom(width: int, height: int, swap: bool) -> Chosen:
    """Any size, at the nearest multiples of 16; ValueError if it is beyond what can be drawn."""
    asked = (height, width) if swap else (width, height)
    size = snap_size(*asked)
    return Chosen(size, asked=None if asked == (size.width, size.height) else asked)


def fitted(width: int, height: int, group: str | None, swap: bool) -> Chosen:
    """The official size nearest to a picture; swapped, the picture is cropped to the other orientation."""
    near = nearest_size(width, height, group)
    if swap:
        near = fit(near.size.swapped(), width, height)
    return Chosen(near.size, picture=(width, height), fit=near)


def show(chosen: Chosen, batch: int) -> dict[str, Any]:
    """Into the log; and what the node hands to the browser: words for all, numbers for our own panel.

    The panel stands on the node before anything runs, so there is no text beside it that says the same again.
    """
    words = chosen.words(batch)
    log.info("Z-Image Empty Latent: %s", " ".join(words))
    return {"text": ("\n".join(words),), "zimage_size": (chosen.facts(batch),)}


def amount(size: int) -> str:
    """Bytes as a person rounds them: 30 MB, 1.6 GB."""
    if size < 0.95e9:
        return f"{max(math.floor(size / 1e7 + 0.5), 1) * 10} MB"
    return f"{math.floor(size / 1e8 + 0.5) / 10:g} GB"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _cropped(fit: Fit) -> str:
    parts = [f"{n} px of the {side}" for n, side in ((fit.crop_width, "width"), (fit.crop_height, "height")) if n]
    return f"{' and '.join(parts)} cropped" if parts else "nothing cropped"
