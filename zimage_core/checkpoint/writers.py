"""Write a file of tensors piece by piece: its header from names and shapes alone, then each tensor's bytes in place.

A file is written under a temporary name beside its own, and gets its own when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CheckpointError
from ..lock import alone
from . import ggml
from .encode import Put
from .files import DTYPES, is_gguf, read_header


@dataclass(frozen=True)
class Entry:
    """A tensor of the new file: `dtype` and `shape` are those that its header will say."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        if self.dtype in DTYPES:
            return prod(self.shape) * DTYPES[self.dtype].itemsize
        return ggml.n_bytes(self.dtype, self.shape)


Entries = Mapping[str, Entry]
# Where each tensor's bytes begin, and where the file ends.
Places = tuple[dict[str, int], int]


def write_safetensors_header(path: Path, entries: Entries, metadata: Mapping[str, Any]) -> Places:
    """The largest dtypes come first, so that every tensor is aligned to its own numbers without a gap."""
    order = sorted(entries, key=lambda name: -DTYPES[entries[name].dtype].itemsize)
    header: dict[str, Any] = {"__metadata__": {str(key): str(value) for key, value in metadata.items()}}
    places, end = {}, 0
    for name in order:
        entry = entries[name]
        places[name], end = end, end + entry.size
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [places[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    start = 8 + len(text)
    return {name: start + place for name, place in places.items()}, start + end


def write_gguf_header(path: Path, entries: Entries, metadata: Mapping[str, Any]) -> Places:
    """Written by the gguf package. `metadata` has "general.architecture"; empty values are left out."""
    gguf = _gguf()
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture" and value not in ("", []):
            _add_value(writer, key, value)
    for name, entry in entries.items():
        code = gguf.GGMLQuantizationType[entry.dtype]
        # Any dtype but uint8, which would say that the shape counts bytes.
        writer.add_tensor_info(name, entry.shape, np.dtype("float32"), entry.size, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    pad = writer.data_alignment
    places, end = {}, -(-path.stat().st_size // pad) * pad
    for name, entry in entries.items():
        places[name], end = end, end + -(-entry.size // pad) * pad
    return places, end


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError("a GGUF file is written with the gguf package: pip install gguf") from error
    return gguf


def _add_value(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        add = writer.add_int64 if value < 0 else writer.add_uint32 if value < 1 << 32 else writer.add_uint64
        add(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_string(key, str(value).encode("utf-8", "replace").decode())


WRITERS: dict[str, Callable[[Path, Entries, Mapping[str, Any]], Places]] = {
    ".safetensors": write_safetensors_header,
    ".gguf": write_gguf_header,
}


@contextlib.contextmanager
def new_file(target: Path, entries: Entries, metadata: Mapping[str, Any]) -> Iterator[Put]:
    """A file of these tensors that takes the name `target` once all of them are written, and is gone if they are not.

    Gives a function that writes a tensor. What a killed run has left under the temporary name is cleared away first.
    Raises OSError where nothing can be written.
    """
    temporary = temporary_name(target)
    with alone(temporary, OSError(errno.EBUSY, "another run is writing it, wait for that", str(temporary))):
        temporary.unlink(missing_ok=True)
        try:
            places, end = WRITERS[target.suffix.lower()](temporary, entries, metadata)
            with temporary.open("r+b") as file:
                file.truncate(end)  # what a file system cannot hold, it refuses now
                yield partial(_put, file, places)
            _check(temporary, entries)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _put(file: BinaryIO, places: Mapping[str, int], name: str, pieces: Iterable[Tensor]) -> None:
    file.seek(places[name])
    for piece in pieces:
        file.write(piece.contiguous().flatten().view(torch.uint8).numpy().data)


def temporary_name(target: Path) -> Path:
    """The same for every run that writes `target`, so that the next one finds what a killed one has left."""
    return target.with_name(f"{target.name}.zimage-convert.tmp")


def _check(path: Path, entries: Entries) -> None:
    """The finished file, read back by its header."""
    header, _ = read_header(path)
    if {name: Entry(info.dtype, info.shape) for name, info in header.items()} != dict(entries):
        raise CheckpointError(f"{path.name} does not read back as it was written")
    if not is_gguf(path):
        with safe_open(str(path), framework="pt"):
            pass  # it checks the offsets against each other and against the file's size
