"""Which files the loaders offer: ComfyUI's own folders, what we recognise first, the demo model last."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path

import folder_paths

from ...zimage_core.checkpoint.detect import LAYOUTS, CheckpointInfo, inspect_checkpoint
from ...zimage_core.checkpoint.files import MAX_HEADER

log = logging.getLogger(__name__)

FOLDERS = {"transformer": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}
SUFFIXES = (".safetensors", ".sft")
SHARD = re.compile(r"-\d{5}-of-\d{5}\.")

_DEMO_FOLDER = Path(__file__).parents[2] / "zimage_core" / "demo"
# Saved graphs hold these labels: they stay as they are.
DEMO = {
    "transformer": {
        "demo: simple shapes (Turbo)": "demo_turbo.safetensors",
        "demo: simple shapes (Base)": "demo_base.safetensors",
    },
    "text_encoder": {"demo: simple shapes": "demo_text_encoder.safetensors"},
    "vae": {"demo: simple shapes": "demo_vae.safetensors"},
}

REAL_ENCODER = {"hidden_size": 2560, "num_hidden_layers": 36}
OTHER_QWEN3 = {1024: "0.6B", 2048: "1.7B", 4096: "8B", 5120: "14B and 32B"}
# The places of a list: Z-Image files that load, those whose format comes with a later version, everything else.
_LOADABLE, _KNOWN, _OTHER = range(3)


def choices(kind: str) -> tuple[list[str], str]:
    """What a loader of `kind` offers, and its default: the first Z-Image file, or the demo where there is none."""
    names = [name for name in folder_paths.get_filename_list(FOLDERS[kind]) if name.lower().endswith(SUFFIXES)]
    ranks = {name: _rank_of(kind, name) for name in names}
    files = sorted(names, key=lambda name: (ranks[name], name.lower()))
    demo = list(DEMO[kind])
    known = bool(files) and ranks[files[0]] != _OTHER
    return files + demo, files[0] if known else demo[0]


def has_models() -> bool:
    """Whether there is a Z-Image transformer of the user's own."""
    return choices("transformer")[1] not in DEMO["transformer"]


def path_of(kind: str, choice: str) -> Path:
    """The file behind a choice, which may come from an old graph or from a script: checked again."""
    if choice in DEMO[kind]:
        return _DEMO_FOLDER / DEMO[kind][choice]
    path = folder_paths.get_full_path(FOLDERS[kind], choice)
    if path is None:
        raise ValueError(
            f"there is no file {choice!r} in ComfyUI's folder {FOLDERS[kind]}: "
            f"put it there and press R, or choose another file"
        )
    return Path(path)


def stamp(kind: str, choice: str) -> str:
    """Changes when the file does, so that the host loads it again."""
    try:
        status = path_of(kind, choice).stat()
    except (OSError, ValueError):
        return choice  # loading will say what is wrong
    return f"{choice} {status.st_mtime_ns} {status.st_size}"


def _rank_of(kind: str, name: str) -> int:
    try:
        path = Path(folder_paths.get_full_path(FOLDERS[kind], name) or "")
        # What a shard is depends on its siblings and their index, which may arrive later.
        status = (path.parent if SHARD.search(name) else path).stat()
        return _rank(kind, path, status.st_mtime_ns, status.st_size)
    except OSError:
        return _OTHER


@functools.lru_cache(maxsize=4096)
def _rank(kind: str, path: Path, _mtime: int, _size: int) -> int:
    try:
        if not _may_be(kind, path):
            return _OTHER
        info = inspect_checkpoint(path, kind=kind)
    except Exception as error:  # a list must come up whatever lies in the folder
        log.debug("%s is listed after the Z-Image files: %s", path.name, error)
        return _OTHER
    if not _is_z_image(info):
        return _OTHER
    return _KNOWN if info.quantization == "quantized" else _LOADABLE


def _may_be(kind: str, path: Path) -> bool:
    """Whether the header names the tensors that mark this kind: a look without parsing it, since folders are long."""
    if SHARD.search(path.name):
        return True  # the tensors may be in another shard
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= MAX_HEADER else b""
    return any(all(marker.encode() in header for marker in markers) for markers, _ in LAYOUTS[kind].values())


def _is_z_image(info: CheckpointInfo) -> bool:
    """The other published sizes of Qwen3 have the same keys, and are no text encoder of Z-Image."""
    return info.kind != "text_encoder" or info.config["hidden_size"] not in OTHER_QWEN3
