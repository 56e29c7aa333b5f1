"""A strip with a few words under each picture of a batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LEAST = 18  # pixels of a strip; its letters still read on a picture of 128
PART = 11  # of a large picture's shorter side


def labelled(images: Tensor, labels: Sequence[Sequence[str]], dim: Collection[int] = ()) -> Tensor:
    """IMAGE `[B, H, W, C]` -> the same with a strip under each picture, those of `dim` dark.

    `labels` has for each picture the words to write, the longest first: the first that fits is taken.
    """
    height, width = images.shape[1:3]
    tall = max(LEAST, round(min(height, width) / PART))
    strips = [_strip(words, width, tall, place in dim) for place, words in enumerate(labels)]
    grey = torch.from_numpy(np.stack(strips)).to(images) / 255
    return torch.cat([images, grey.unsqueeze(-1).expand(-1, -1, -1, images.shape[-1])], dim=1)


def _strip(words: Sequence[str], width: int, height: int, dim: bool) -> np.ndarray:
    size, room = height * 0.72, width * 0.94
    fitting = [word for word in words if _length(word, size) <= room]
    text = fitting[0] if fitting else words[-1]
    if not fitting:
        size *= room / _length(text, size)
    back, ink = (40, 150) if dim else (255, 0)
    strip = Image.new("L", (width, height), back)
    ImageDraw.Draw(strip).text((width / 2, height / 2), text, fill=ink, font=_font(size), anchor="mm")
    return np.asarray(strip)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _length(text: str, size: float) -> float:
    return _font(size).getlength(text)
