"""Write pictures: PNG with their settings as text, whole or not at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def check_target(path: str | Path) -> Path:
    """The path of a PNG that can be written; ValueError, before any work is done, if it cannot."""
    path = Path(path).expanduser()
    if path.suffix.lower() != ".png":
        raise ValueError(f"output {path} is not a .png: pictures are written as PNG, which carries their settings")
    if path.is_dir():
        raise ValueError(f"output {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"output {path} cannot be written: there is no folder {path.parent}")
    try:
        _temporary(path).unlink()
    except OSError as error:
        raise ValueError(f"output {path} cannot be written: {error.strerror or error}") from error
    return path


def numbered(path: Path, count: int) -> list[Path]:
    """`count` paths: the path itself, or picture.png as picture-1.png, picture-2.png, ..."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, count + 1)]


def save_png(image: Image, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a PNG with its settings: as JSON under "zimage", and as the line of text that other tools read."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("zimage", json.dumps(settings, ensure_ascii=False))
    text.add_itxt("parameters", parameters(settings))
    temporary = _temporary(path)
    try:
        image.save(temporary, format="PNG", pnginfo=text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def parameters(settings: Mapping[str, Any]) -> str:
    """Settings in the form that picture browsers know: the prompt, the negative prompt, then one line of the rest."""
    lines = [settings["prompt"]]
    if settings["negative"]:
        lines.append(f"Negative prompt: {settings['negative']}")
    rest = {
        "Steps": settings["steps"],
        "Sampler": settings["solver"],
        "CFG scale": f"{settings['cfg']:g}",
        "Seed": settings["seed"],
        "Size": f"{settings['width']}x{settings['height']}",
        "Model": settings["model"],
        "Shift": f"{settings['shift']:g}",
    }
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in rest.items())])


def _temporary(path: Path) -> Path:
    """A new empty file beside `path`, so that moving it into place cannot cross file systems.

    Not one of `tempfile`'s, which nobody else may read.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
    temporary.touch(exist_ok=False)
    return temporary
