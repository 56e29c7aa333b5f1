"""Open a checkpoint in any of its forms: safetensors or GGUF; one file, shards, or a folder.

Only headers are read here; `Checkpoint.reader` fetches one tensor at a time from a memory-mapped file.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import gguf_file

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# Sizes of what safetensors can hold and we have no use for.
_OTHER_SIZES = {"U16": 2, "U32": 4, "U64": 8, "F8_E8M0": 1, "C64": 8, "F4": 0.5, "F6_E2M3": 0.75, "F6_E3M2": 0.75}
MAX_DIMS = 8

# The parts of a diffusers folder, by the kind of module they hold.
COMPONENT_FOLDERS = {"transformer": "transformer", "text_encoder": "text_encoder", "vae": "vae"}
SUFFIXES = (".safetensors", ".sft", ".gguf")
MAX_HEADER = 100_000_000
# diffusers and transformers put a variant's name (fp16, bf16) into the index's at one place or another.
_INDEX = re.compile(r"\.safetensors\.index(\.\w+)?\.json$")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|gguf)")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its file's header describes it.

    `dtype` is the header's own word, such as "BF16" or "Q4_K"; `shape` counts elements of that dtype, or weights where
    a GGML type packs them; the bytes lie at `offset` in the file, `size` of them.
    """

    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, wherever they lie.

    path       what the user named
    tensors    every tensor's header entry
    metadata   the metadata of the file, or of the first shard: strings, and in a GGUF file other values too
    config     config.json beside the weights, where there is one
    scheduler  scheduler_config.json of the diffusers folder around them, where there is one
    config_is_own   whether that config must be of these weights: in a folder of downloads it may be anyone's
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    config_is_own: bool = False

    def reader(self) -> Callable[[str], Tensor]:
        """A function that reads tensors by name, each file opened once and kept mapped while the function lives.

        What GGML packs comes as uint8, a row of bytes for a row of weights. Tensors may share the mapped file's
        memory: they are not to be written to.
        """
        handles: dict[Path, Callable[[str], Tensor]] = {}

        def read(name: str) -> Tensor:
            path = self.tensors[name].file
            if path not in handles:
                handles[path] = _gguf_reader(path, self.tensors) if is_gguf(path) else _safetensors_reader(path)
            return handles[path](name)

        return read


def _safetensors_reader(path: Path) -> Callable[[str], Tensor]:
    from safetensors import SafetensorError, safe_open

    handle: Any = None

    def read(name: str) -> Tensor:
        nonlocal handle
        try:
            handle = handle or safe_open(str(path), framework="pt")
            return handle.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path.name} is damaged ({error}): download it again") from error

    return read


def _gguf_reader(path: Path, tensors: Mapping[str, TensorInfo]) -> Callable[[str], Tensor]:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def read(name: str) -> Tensor:
        info = tensors[name]
        # A storage for each tensor: one over the whole file would be copied and saved with every one of them.
        data = torch.frombuffer(mapped, dtype=torch.uint8, count=info.size, offset=info.offset)
        dtype = DTYPES.get(info.dtype)
        if dtype is None:
            return data.reshape(*info.shape[:-1], -1)
        aligned = info.offset % dtype.itemsize == 0
        return (data if aligned else data.clone()).view(dtype).reshape(info.shape)

    return read


def open_checkpoint(path: str | Path, kind: str | None = None) -> Checkpoint:
    """Open a safetensors or GGUF file, an index of shards, any one shard, or a folder that holds one of these.

    `kind` ("transformer", "text_encoder" or "vae") picks the part of a diffusers folder. Raises CheckpointError
    with what was found and what is needed instead.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"there is no file or folder {path}")
    files = _files_of(_component(path, kind) if path.is_dir() else path)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    for file in files:
        header, file_metadata = read_header(file)
        metadata = metadata or file_metadata
        tensors |= header
    folder, own = files[0].parent, _is_of_a_folder(path, files[0])
    return Checkpoint(
        path=path,
        tensors=tensors,
        metadata=metadata,
        config=read_json(folder / "config.json", strict=own),
        config_is_own=own,
        scheduler=read_json(folder.parent / "scheduler" / "scheduler_config.json"),
    )


def _is_of_a_folder(path: Path, file: Path) -> bool:
    """Whether a file has a folder of its own, with its config.json in it."""
    return path.is_dir() or path.suffix == ".json" or file.name.startswith(("diffusion_pytorch_model", "model"))


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """A file's tensors and its metadata. Raises CheckpointError for anything that is neither safetensors nor GGUF."""
    if is_gguf(path):
        entries, metadata = gguf_file.read_header(path)
        return {n: TensorInfo(e.shape, e.type, path, e.offset, e.size) for n, e in entries.items()}, metadata
    return _read_safetensors_header(path)


def _read_safetensors_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    available = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(256)
        size = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{" or size > MAX_HEADER:
            raise CheckpointError(f"{path.name} is {_what_starts_with(start)}")
        if 8 + size > available:
            raise CheckpointError(f"{path.name} is cut off in its header, at {available:,} bytes: download it again")
        file.seek(8)
        text = file.read(size)
    try:
        entries = json.loads(text)
        metadata = {str(k): str(v) for k, v in (entries.pop("__metadata__", None) or {}).items()}
        tensors = {str(name): _tensor_info(entry, 8 + size, path) for name, entry in entries.items()}
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not a safetensors file (its header cannot be read)") from error
    end = max((info.offset + info.size for info in tensors.values()), default=0)
    if available < end:
        raise CheckpointError(f"{path.name} is cut off: it has {available:,} of {end:,} bytes; download it again")
    return tensors, metadata


def _tensor_info(entry: Mapping[str, Any], start: int, path: Path) -> TensorInfo:
    """A header's claims about one tensor, checked against each other. Raises ValueError where they disagree."""
    shape, dtype, (begin, end) = tuple(entry["shape"]), entry["dtype"], entry["data_offsets"]
    if len(shape) > MAX_DIMS or not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, end)):
        raise ValueError("shapes and offsets are whole numbers")
    if not isinstance(dtype, str) or begin > end:
        raise ValueError("a tensor has no type, or ends before it begins")
    element = DTYPES[dtype].itemsize if dtype in DTYPES else _OTHER_SIZES[dtype]
    if prod(shape) * element != end - begin:
        raise ValueError("a tensor's bytes do not fit its shape")
    return TensorInfo(shape, dtype, path, start + begin, end - begin)


def _what_starts_with(start: bytes) -> str:
    """What a file without a header is, and the way out."""
    text = start.lstrip().lower()
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "a pickled PyTorch file, which can run code when opened: use a .safetensors file"
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer and not the file itself: run `git lfs pull`, or download it from its page"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page saved under that name: download it again, signed in if its page asks for that"
    if start[4:8] == b"ftyp" or start[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0"):
        return "a picture or video: use a .safetensors or .gguf file"
    if len(start) < 9:
        return f"empty or cut off, at {len(start)} bytes: download it again"
    if not start.strip(b"\0"):
        return "full of zeros, as a download that has not finished: download it again"
    return "not a safetensors file and not a GGUF file: use one of these"


def read_json(path: Path, strict: bool = True) -> dict[str, Any]:
    """A JSON object from a file, or an empty one where there is no such file, or none that can be read if not strict.

    Raises CheckpointError for a file that is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if not strict:
            return {}
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    return data if isinstance(data, dict) else {}


def _component(folder: Path, kind: str | None) -> Path:
    """The folder that holds the weights of `kind`: `folder` itself, or its part in a diffusers folder."""
    part = folder / COMPONENT_FOLDERS[kind] if kind else folder
    if part.is_dir():
        return part
    present = [name for name in COMPONENT_FOLDERS.values() if (folder / name).is_dir()]
    if kind is not None and present and not _weights_in(folder):
        raise CheckpointError(f"{folder} has no {kind} folder; it has {', '.join(present)}")
    return folder


def _weights_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(SUFFIXES) and _is_visible(file))


def _is_visible(file: Path) -> bool:
    """macOS leaves `._name` beside files on other systems' drives."""
    return file.is_file() and not file.name.startswith(".")


def _files_of(path: Path) -> list[Path]:
    """The files that together make up `path`: a file, an index, one of several shards, or a folder."""
    if path.is_dir():
        return _files_in(path)
    if _INDEX.search(path.name):
        return _indexed(path)
    shard = _SHARD.fullmatch(path.name)
    if shard is None or int(shard[3]) == 1:
        return [path]
    stem, _, variant = shard[1].partition(".")
    names = [f"{shard[1]}.safetensors.index.json", f"{stem}.safetensors.index.{variant}.json"]
    index = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
    return _indexed(index) if index else _numbered(path, shard)


def _files_in(folder: Path) -> list[Path]:
    # The one without a variant's name first: it is what the folder is known for.
    for index in sorted((file for file in folder.iterdir() if _INDEX.search(file.name)), key=lambda f: len(f.name)):
        return _indexed(index)
    files = _weights_in(folder)
    shard = _SHARD.fullmatch(files[0].name) if files else None
    if shard and len(files) == int(shard[3]):
        return _numbered(files[0], shard)
    stems = {file.name.partition(".")[0] for file in files}
    if len(stems) == 1:  # one model in several variants
        return [min(files, key=lambda file: len(file.name))]
    if not files:
        parts = [name for name in COMPONENT_FOLDERS.values() if (folder / name).is_dir()]
        hint = f"; name one of its parts: {', '.join(parts)}" if parts else ""
        pickles = [file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(pattern)]
        hint = f"; {pickles[0]} is a pickle, which can run code when opened" if pickles else hint
        raise CheckpointError(f"{folder} holds no .safetensors file and no .gguf file{hint}")
    raise CheckpointError(f"{folder} holds {len(files)} files of weights and no index: name one of them")


def _numbered(path: Path, shard: re.Match[str]) -> list[Path]:
    """Shards without an index, by their numbers: GGUF files have none."""
    total = int(shard[3])
    files = [path.with_name(f"{shard[1]}-{i:05}-of-{total:05}.{shard[4]}") for i in range(1, total + 1)]
    _require([file for file in files if not file.is_file()], path.name, total)
    return files


def _indexed(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index.name} names shards that are not files beside it: download it again")
    files = sorted({index.parent / name for name in names})
    if not files:
        raise CheckpointError(f"{index.name} names no shards: download it again")
    _require([file for file in files if not file.is_file()], index.name, len(files))
    return files


def _require(missing: list[Path], named_by: str, total: int) -> None:
    if missing:
        names = ", ".join(file.name for file in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(f"{named_by} belongs to {total} shards, and {names} is missing: download it too")
