"""Open a checkpoint in any of its forms: one safetensors file, shards with an index, or a folder.

Only headers are read here; `Checkpoint.read` fetches one tensor at a time from a memory-mapped file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

# The parts of a diffusers folder, by the kind of module they hold.
COMPONENT_FOLDERS = {"transformer": "transformer", "text_encoder": "text_encoder", "vae": "vae"}
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its file's header describes it. `dtype` is the header's own word, such as "BF16"."""

    shape: tuple[int, ...]
    dtype: str
    file: Path


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, wherever they lie.

    path       what the user named
    tensors    every tensor's header entry
    metadata   the safetensors metadata of the file, or of the first shard
    config     config.json beside the weights, where there is one
    scheduler  scheduler_config.json of the diffusers folder around them, where there is one
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    def reader(self) -> Callable[[str], Tensor]:
        """A function that reads tensors by name, each file opened once and kept mapped while the function lives."""
        from safetensors import SafetensorError, safe_open

        handles: dict[Path, Any] = {}

        def read(name: str) -> Tensor:
            path = self.tensors[name].file
            try:
                if path not in handles:
                    handles[path] = safe_open(str(path), framework="pt")
                return handles[path].get_tensor(name)
            except SafetensorError as error:
                raise CheckpointError(f"{path.name} is damaged ({error}): download it again") from error

        return read


def open_checkpoint(path: str | Path, kind: str | None = None) -> Checkpoint:
    """Open a safetensors file, an index of shards, any one shard, or a folder that holds one of these.

    `kind` ("transformer", "text_encoder" or "vae") picks the part of a diffusers folder. Raises CheckpointError
    with what was found and what is needed instead.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"there is no file or folder {path}")
    files = _files_of(_component(path, kind) if path.is_dir() else path)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for file in files:
        header, file_metadata = read_header(file)
        metadata = metadata or file_metadata
        tensors |= header
    folder = files[0].parent
    return Checkpoint(
        path=path,
        tensors=tensors,
        metadata=metadata,
        config=read_json(folder / "config.json"),
        scheduler=read_json(folder.parent / "scheduler" / "scheduler_config.json"),
    )


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The header of a safetensors file: its tensors and its metadata. Raises CheckpointError for any other file."""
    with path.open("rb") as file:
        start = file.read(9)
        size = int.from_bytes(start[:8], "little")
        if len(start) < 9:
            raise CheckpointError(f"{path.name} is empty or cut off, at {len(start)} bytes: download it again")
        if start[8:] != b"{" or size > MAX_HEADER:
            raise CheckpointError(f"{path.name} is {_what_starts_with(start)}: use a .safetensors file")
        text = b"{" + file.read(size - 1)
    try:
        entries = json.loads(text)
        metadata = dict(entries.pop("__metadata__", None) or {})
        tensors = {name: TensorInfo(tuple(e["shape"]), e["dtype"], path) for name, e in entries.items()}
        end = 8 + size + max((e["data_offsets"][1] for e in entries.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path.name} is not a safetensors file (its header cannot be read)") from error
    if path.stat().st_size < end:
        raise CheckpointError(
            f"{path.name} is cut off: it has {path.stat().st_size:,} of {end:,} bytes; download it again"
        )
    return tensors, {str(k): str(v) for k, v in metadata.items()}


def _what_starts_with(start: bytes) -> str:
    if start[:4] == b"GGUF":
        return "a GGUF file, which this version does not load"
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "a pickled PyTorch file, which can run code when opened"
    return "not a safetensors file"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one where there is no such file."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    return data if isinstance(data, dict) else {}


def _component(folder: Path, kind: str | None) -> Path:
    """The folder that holds the weights of `kind`: `folder` itself, or its part in a diffusers folder."""
    part = folder / COMPONENT_FOLDERS[kind] if kind else folder
    if part.is_dir():
        return part
    present = [name for name in COMPONENT_FOLDERS.values() if (folder / name).is_dir()]
    if kind is not None and present and not list(folder.glob("*.safetensors*")):
        raise CheckpointError(f"{folder} has no {kind} folder; it has {', '.join(present)}")
    return folder


def _files_of(path: Path) -> list[Path]:
    """The safetensors files that together make up `path`: a file, an index, one of several shards, or a folder."""
    if path.is_dir():
        return _files_in(path)
    if path.name.endswith(".index.json"):
        return _indexed(path)
    shard = re.fullmatch(r"(.+)-\d{5}-of-\d{5}\.safetensors", path.name)
    if shard:
        index = path.with_name(f"{shard[1]}.safetensors.index.json")
        if not index.is_file():
            raise CheckpointError(
                f"{path.name} is one of several shards, and their index {index.name} is not beside it"
            )
        return _indexed(index)
    return [path]


def _files_in(folder: Path) -> list[Path]:
    for index in sorted(folder.glob("*.safetensors.index.json")):
        return _indexed(index)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if not files:
        parts = [name for name in COMPONENT_FOLDERS.values() if (folder / name).is_dir()]
        hint = f"; name one of its parts: {', '.join(parts)}" if parts else ""
        raise CheckpointError(f"{folder} holds no .safetensors file{hint}")
    raise CheckpointError(f"{folder} holds {len(files)} .safetensors files and no index: name one of them")


def _indexed(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    files = sorted({index.parent / str(name) for name in names})
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise CheckpointError(f"{index.name} names {len(files)} shards, and {', '.join(missing) or 'none'} is missing")
    return files
