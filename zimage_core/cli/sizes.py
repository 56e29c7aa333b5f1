"""`zimage sizes`: the official picture sizes, and the nearest to a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..sizes import CLASSES, NAMES, nearest_size, sizes
from .common import InputError, input_errors

EXAMPLE = """examples:
  zimage sizes
  zimage sizes --class 1280
  zimage sizes --fit holiday.jpg
  zimage sizes --fit 1920x1080 --class 1536"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "sizes",
        help="list the official picture sizes, or find the nearest",
        description="List the official picture sizes. Any other multiple of 16 can be drawn too.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--class", dest="group", choices=CLASSES, help="one class only")
    parser.add_argument("--fit", metavar="PICTURE", help="a picture file, or WIDTHxHEIGHT: the nearest official size")


def run(args: argparse.Namespace) -> int:
    if args.fit:
        return _fit(args.fit, args.group)
    for group in [args.group] if args.group else CLASSES:
        print(f"{group}:")
        for size in sizes(group):
            print(f"  {size.aspect:>5}  {size!s:>9}  {size.tokens:>6} tokens")
    if not args.group:
        print("names:")
        for name, (width, height) in NAMES.items():
            print(f"  {name:<15} {width}x{height}")
    return 0


def _fit(picture: str, group: str | None) -> int:
    width, height = _dimensions(picture)
    with input_errors():
        fit = nearest_size(width, height, group)
    print(f"{width}x{height} fits {fit.size} ({fit.size.group}, {fit.size.aspect}), scaled by {fit.scale:.3f}")
    print(f"cropped: {fit.crop_width} px of the width, {fit.crop_height} px of the height")
    return 0


def _dimensions(picture: str) -> tuple[int, int]:
    path = Path(picture).expanduser()
    if path.is_file():
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as image:
                return image.size
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{path} is not a picture that can be opened") from error
    width, _, height = picture.lower().partition("x")
    if width.isdigit() and height.isdigit():
        return int(width), int(height)
    raise InputError(f"there is no picture {picture}, and it is no size either (WIDTHxHEIGHT)")
