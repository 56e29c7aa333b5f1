"""Which files the loaders offer: from every folder where people keep them, what loads first, the demo model last."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import folder_paths

from ...zimage_core.checkpoint.detect import LAYOUTS, inspect_checkpoint
from ...zimage_core.checkpoint.files import COMPONENT_FOLDERS, MAX_HEADER, SUFFIXES, is_gguf, read_header
from ...zimage_core.checkpoint.load import check
from ...zimage_core.errors import CheckpointError

log = logging.getLogger(__name__)

FOLDERS = {"transformer": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}
TITLES = {"transformer": "models", "text_encoder": "text encoders", "vae": "VAEs"}
# Where else a file may lie: folders that other packs register for GGUF (mostly the same ones again), all-in-one
# checkpoints, diffusers folders. Only what is recognised is offered from there.
_ELSEWHERE = {"transformer": ["unet_gguf"], "text_encoder": ["clip_gguf"], "vae": []}
_SHARED = ["checkpoints", "diffusers"]

INDEX = ".safetensors.index.json"
PIPELINE = "model_index.json"
SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
# Names that say nothing of what is in the file: every diffusers folder has them.
_NAMELESS = re.compile(r"(diffusion_pytorch_model|model)(\.\w+)*")

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

# The places of a list: what loads, what is recognised and does not (incomplete, or in a format of a later version),
# and everything else.
_LOADABLE, _KNOWN, _OTHER = range(3)


@dataclass(frozen=True)
class Entry:
    """One line of a list. Saved graphs hold the label: a path below a folder as the host shows it, and behind it, in
    brackets, the folder's key where that is not the loader's own."""

    label: str
    path: Path
    rank: int
    own: bool


def choices(kind: str) -> tuple[list[str], str]:
    """What a loader of `kind` offers, and its default: the first file that loads, or the demo where there is none."""
    listed = entries(kind)
    loadable = [entry.label for entry in listed if entry.rank == _LOADABLE]
    demo = list(DEMO[kind])
    return [entry.label for entry in listed] + demo, (loadable + demo)[0]


def has_models() -> bool:
    """Whether there is a Z-Image transformer of the user's own."""
    return choices("transformer")[1] not in DEMO["transformer"]


def path_of(kind: str, choice: str) -> Path:
    """The file behind a choice, which may come from an old graph, from another computer's or from a script.

    Raises ValueError, with what there is, where it is not to be found.
    """
    if choice in DEMO[kind]:
        return _DEMO_FOLDER / DEMO[kind][choice]
    listed = entries(kind)
    exact = [entry for entry in listed if entry.label == choice]
    if not exact and (path := folder_paths.get_full_path(FOLDERS[kind], choice)):
        return Path(path)  # not listed: one of several shards, for example
    found = exact or _alike(listed, choice)
    if len(found) > 1:
        names = " and ".join(entry.label for entry in found)
        raise ValueError(f"{choice!r} may be {names}: choose one of them")
    if not found:
        raise ValueError(_not_here(kind, choice, listed))
    return found[0].path


def stamp(kind: str, choice: str) -> str:
    """Changes when the file does, so that the host loads it again."""
    try:
        return f"{choice} {_status(kind, path_of(kind, choice))}"
    except (OSError, ValueError):
        return choice  # loading will say what is wrong


def entries(kind: str) -> list[Entry]:
    """Everything that is offered, in the order of the list."""
    found: dict[str, Entry] = {}
    seen: set[str] = set()
    for key, directory, name in _places(kind):
        own = key == FOLDERS[kind]
        path = os.path.normcase(Path(directory, name))
        label = name if own else f"{name} [{key}]"
        if label in found or (path in seen and not own):
            continue  # the host takes the first of two equal names, too
        rank = _rank_of(kind, Path(directory, name))
        if rank == _OTHER and not (own and name.lower().endswith((*SUFFIXES, INDEX))):
            continue
        seen.add(path)
        found[label] = Entry(label, Path(directory, name), rank, own)
    return sorted(found.values(), key=lambda entry: (entry.rank, not entry.own, entry.label.lower()))


def _places(kind: str) -> Iterator[tuple[str, str, str]]:
    """Folder keys, their directories, and what is in them, by name. Keys that nobody has registered are left alone."""
    for key in (FOLDERS[kind], *_ELSEWHERE[kind], *_SHARED):
        if key not in folder_paths.folder_names_and_paths:
            continue
        for directory in folder_paths.get_folder_paths(key):
            place = os.path.realpath(directory)
            for name in _openable(_files_below(place)):
                yield key, place, name


_walks: dict[str, tuple[list[str], dict[str, float]]] = {}


def _files_below(directory: str) -> list[str]:
    """By the host's own walk, since its lists leave out .gguf and .json; once, until a folder changes."""
    files, folders = _walks.get(directory, ([], {}))
    if not folders or any(_changed(folder, then) for folder, then in folders.items()):
        files, folders = _walks[directory] = folder_paths.recursive_search(directory, [".git"])
    return files


def _changed(folder: str, then: float) -> bool:
    try:
        return Path(folder).stat().st_mtime != then
    except OSError:
        return True


def _openable(files: list[str]) -> list[str]:
    """Names by which checkpoints are opened: a file, the index or the first of its shards, a diffusers folder."""
    pipelines = {str(Path(file).parent) for file in files if Path(file).name == PIPELINE} - {"."}
    names, shards = set(files), set()
    opened = sorted(pipelines)
    for file in sorted(files):
        if any(part in pipelines for part in map(str, list(Path(file).parents)[1:])):
            continue  # in a part of a diffusers folder
        stem = SHARD.sub("", file)
        if file.lower().endswith(SUFFIXES) and stem != file:
            if stem in shards or stem + ".index.json" in names:
                continue
            shards.add(stem)
        if file.lower().endswith((*SUFFIXES, INDEX)):
            opened.append(file)
    return opened


def _alike(listed: list[Entry], choice: str) -> list[Entry]:
    """Entries that a label from elsewhere may mean: with the other slash, or the same name in another folder."""
    for part in (_spelled, _named):
        wanted = part(choice)
        found = [entry for entry in listed if part(entry.label) == wanted] if wanted else []
        if found:
            return [entry for entry in found if entry.rank == found[0].rank]
    return []


def _spelled(label: str) -> str:
    return re.sub(r" \[\w+\]$", "", label).replace("\\", "/").casefold()


def _named(label: str) -> str:
    """The base name, which all shards and their index share; nothing where it does not tell one model from another."""
    name = SHARD.sub("", PurePosixPath(_spelled(label)).name).removesuffix(".index.json")
    return "" if _NAMELESS.fullmatch(name) else name


def _not_here(kind: str, choice: str, listed: list[Entry]) -> str:
    here = [entry.label for entry in listed if entry.rank != _OTHER][:12] + list(DEMO[kind])
    return (
        f"there is no file {choice!r} in ComfyUI's folder {FOLDERS[kind]}; the Z-Image {TITLES[kind]} here are "
        f"{', '.join(here)}: choose one, or put the file there and press R"
    )


def _rank_of(kind: str, path: Path) -> int:
    try:
        return _rank(kind, path, _status(kind, path))
    except OSError:
        return _OTHER


def _status(kind: str, path: Path) -> tuple[int, int]:
    """The newest change and the bytes of all files that a checkpoint may be of: its shards lie beside one another."""
    if path.is_dir():
        files = list((path / COMPONENT_FOLDERS[kind]).iterdir())
    elif SHARD.search(path.name) or path.name.endswith(INDEX):
        files = [file for file in path.parent.iterdir() if file.suffix in (*SUFFIXES, ".json")]
    else:
        files = [path]
    states = [file.stat() for file in files]
    return max((state.st_mtime_ns for state in states), default=0), sum(state.st_size for state in states)


@functools.lru_cache(maxsize=4096)
def _rank(kind: str, path: Path, _state: tuple[int, int]) -> int:
    try:
        if not _may_be(kind, path):
            return _OTHER
        info = inspect_checkpoint(path, kind=kind)
    except Exception as error:  # a list must come up whatever lies in the folder
        log.debug("%s is listed after the Z-Image files: %s", path.name, error)
        return _OTHER
    try:
        check(info)
    except CheckpointError as error:
        log.debug("%s is listed after the files that load: %s", path.name, error)
        return _KNOWN
    return _LOADABLE


def _may_be(kind: str, path: Path) -> bool:
    """Whether the header names the tensors that mark this kind: a look without parsing it, since folders are long."""
    if path.is_dir() or path.suffix == ".json" or SHARD.search(path.name):
        return True  # the tensors may be in another file
    if is_gguf(path):
        header = "\n".join(read_header(path)[0]).encode()
    else:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(size) if size <= MAX_HEADER else b""
    return any(all(marker.encode() in header for marker in layout.markers) for layout in LAYOUTS[kind].values())
