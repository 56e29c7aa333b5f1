"""The header of a GGUF file: which tensors it holds, where they lie, and its metadata.

Nothing in a header is believed before it is checked against the file's size: no read, loop or allocation follows a
number that the file only claims. Long arrays, such as a tokenizer's words, are walked over and read when asked for.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any

from ..errors import CheckpointError
from .ggml import TYPES, n_bytes

TYPE_NAMES = {kind.code: name for name, kind in TYPES.items()}

# The types of metadata values, by the file's numbers for them.
SCALARS = {number: Struct(f"<{code}") for number, code in enumerate("BbHhIif?")} | {
    10: Struct("<Q"), 11: Struct("<q"), 12: Struct("<d"),
}  # fmt: skip
STRING, ARRAY = 8, 9
U32, U64 = SCALARS[4], SCALARS[10]

SHORT_ARRAY = 64
# Far above what files have, and low enough that a forged header costs no more than a moment.
MAX_HEADER = 100_000_000
MAX_ENTRIES = 65_536
MAX_ALIGNMENT = 1 << 24
MAX_DEPTH = 4


@dataclass(frozen=True)
class Entry:
    """One tensor.

    shape    in torch's order, which is the file's reversed
    type     a name in ggml.TYPES
    offset   of its bytes, from the start of the file
    size     in bytes
    """

    shape: tuple[int, ...]
    type: str
    offset: int
    size: int


@dataclass(frozen=True)
class Array:
    """A long array in the metadata, which still lies in its file: `offset` is its first item's, `kind` their type."""

    path: Path
    offset: int
    kind: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self) -> list[Any]:
        return _mapped(self.path, lambda header: header.at(self.offset).items(self.kind, self.length))


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The tensors of a GGUF file and its metadata: numbers, strings, lists, and `Array` where a list would be long.

    Raises CheckpointError where the file is something else, cut off, damaged, or of a kind that is not known here.
    """
    return _mapped(path, _read)


def tokenizer_parts(metadata: dict[str, Any]) -> tuple[list[str], list[str], list[int]] | None:
    """The tokens, merges and token types of the byte-pair tokenizer in a file's metadata; None if there is none.

    There is a type for each token (1 normal, 3 control, 4 user-defined, ...), or no types at all.
    """
    tokens, merges, types = (_listed(metadata.get(f"tokenizer.ggml.{k}")) for k in ("tokens", "merges", "token_type"))
    strings = all(isinstance(text, str) for text in (*tokens, *merges))
    whole = all(isinstance(number, int) for number in types) and len(types) in (0, len(tokens))
    return (tokens, merges, types) if tokens and merges and strings and whole else None


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Array):
        return value.read()
    return value if isinstance(value, list) else []


def _mapped(path: Path, read: Callable[[_Header], Any]) -> Any:
    """What `read` makes of the file, once its first bytes are those of a GGUF file that can be read here."""
    with path.open("rb") as file:
        start = file.read(24)
        _require_known(path, start)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return read(_Header(path, data))


def _require_known(path: Path, start: bytes) -> None:
    if start[:4] != b"GGUF"[: len(start)]:
        raise CheckpointError(f"{path.name} is not a GGUF file: use a .gguf file")
    if len(start) < 24:
        raise CheckpointError(f"{path.name} is empty or cut off, at {len(start)} bytes: download it again")
    version = int.from_bytes(start[4:8], "little")
    if version and not version & 0xFFFF:
        raise CheckpointError(f"{path.name} is a big-endian GGUF file: use a little-endian one")
    if version not in (2, 3):
        raise CheckpointError(f"{path.name} is a GGUF file of version {version}: use one of version 2 or 3")


class _Header:
    """A place in a mapped file, moved on by each read and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data = path, data
        self.end = min(len(data), MAX_HEADER)
        self.place = 0
        self.nested = 0

    def at(self, place: int) -> _Header:
        self.place = place
        return self

    def damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path.name} is damaged ({why}): download it again")

    def past(self, size: int) -> int:
        """Moves past `size` bytes and says where they start."""
        start = self.place
        if size > self.end - start:
            raise self._too_short()
        self.place = start + size
        return start

    def _too_short(self) -> CheckpointError:
        if self.end < len(self.data):
            return self.damaged(f"its header is longer than {MAX_HEADER:,} bytes")
        return CheckpointError(f"{self.path.name} is cut off in its header, at {self.end:,} bytes: download it again")

    def number(self, kind: Struct) -> Any:
        return kind.unpack_from(self.data, self.past(kind.size))[0]

    def count(self, what: str, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        count = self.number(U64)
        if count > MAX_ENTRIES:
            raise self.damaged(f"it claims {count:,} {what}")
        if count * least > self.end - self.place:
            raise self._too_short()
        return count

    def name(self) -> str:
        size = self.number(U64)
        start = self.past(size)
        try:
            return self.data[start : start + size].decode()
        except UnicodeDecodeError as error:
            raise self.damaged("a name in it is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind != ARRAY:
            return self.items(kind, 1)[0]
        kind, length = self.number(U32), self.number(U64)
        if length <= SHORT_ARRAY and kind != ARRAY:
            return self.items(kind, length)
        start = self.place
        self.skip(kind, length)
        return Array(self.path, start, kind, length)

    def items(self, kind: int, length: int) -> list[Any]:
        """An array's items. Those that are arrays come as `value` gives them."""
        if kind in SCALARS:
            start = self.past(length * SCALARS[kind].size)
            return list(Struct(f"<{length}{SCALARS[kind].format[1:]}").unpack_from(self.data, start))
        self._require_room(kind, length)
        if kind == STRING:
            return self._strings(length)
        return [self.value(ARRAY) for _ in range(length)]

    def skip(self, kind: int, length: int, depth: int = 1) -> None:
        """Walks over an array's items."""
        if kind in SCALARS:
            self.past(length * SCALARS[kind].size)
            return
        self._require_room(kind, length)
        if kind == STRING:
            self._skip_strings(length)
            return
        self.nested += length
        if depth == MAX_DEPTH or self.nested > MAX_ENTRIES:
            raise self.damaged("its metadata has arrays of arrays, too deep or too many")
        for _ in range(length):
            self.skip(self.number(U32), self.number(U64), depth + 1)

    def _skip_strings(self, length: int) -> None:
        # The one loop that is long in honest files: a tokenizer has 300,000 strings.
        data, place, last, unpack = self.data, self.place, self.end - 8, U64.unpack_from
        for _ in range(length):
            if place > last:
                raise self._too_short()
            place += 8 + unpack(data, place)[0]
        self.place = place
        self.past(0)

    def _strings(self, length: int) -> list[str]:
        start = self.place
        self._skip_strings(length)
        data, place, strings = self.data[start : self.place], 0, []
        for _ in range(length):
            begin = place + 8
            place = begin + U64.unpack_from(data, place)[0]
            # Not strictly: other programs write paths and the like in whatever encoding they have.
            strings.append(data[begin:place].decode("utf-8", "replace"))
        return strings

    def _require_room(self, kind: int, length: int) -> None:
        if kind not in (STRING, ARRAY):
            raise self.damaged(f"its metadata has a value of the unknown type {kind}")
        if length * (8 if kind == STRING else 12) > self.end - self.place:
            raise self._too_short()


def _read(header: _Header) -> tuple[dict[str, Entry], dict[str, Any]]:
    header.past(8)
    n_tensors, n_values = header.count("tensors", 24), header.count("metadata values", 13)
    metadata: dict[str, Any] = {}
    for _ in range(n_values):
        key = header.name()
        if key in metadata:
            raise header.damaged(f"it has the metadata key {key[:64]!r} twice")
        metadata[key] = header.value(header.number(U32))
    alignment = _alignment(header, metadata)
    tensors: dict[str, Entry] = {}
    for _ in range(n_tensors):
        name = header.name()
        if name in tensors:
            raise header.damaged(f"it has the tensor {name[:64]!r} twice")
        tensors[name] = _tensor(header, name[:64], alignment)
    start = -(-header.place // alignment) * alignment
    tensors = {n: Entry(e.shape, e.type, start + e.offset, e.size) for n, e in tensors.items()}
    end = max((e.offset + e.size for e in tensors.values()), default=0)
    available = len(header.data)
    if available < end:
        raise CheckpointError(
            f"{header.path.name} is cut off: it has {available:,} of {end:,} bytes; download it again"
        )
    return tensors, metadata


def _alignment(header: _Header, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise header.damaged("its general.alignment is not a power of two")
    return alignment


def _tensor(header: _Header, name: str, alignment: int) -> Entry:
    """One tensor as listed: its offset is from the start of the data."""
    n_dims = header.number(U32)
    if n_dims > 4:
        raise header.damaged(f"the tensor {name!r} has {n_dims} dimensions")
    shape = tuple(header.number(U64) for _ in range(n_dims))[::-1]
    code, offset = header.number(U32), header.number(U64)
    if code not in TYPE_NAMES:
        raise CheckpointError(
            f"{header.path.name} uses the tensor type {code}, which this version does not know: use another type's file"
        )
    if not 0 < math.prod(shape) < 1 << 60:
        raise header.damaged(f"the tensor {name!r} has the shape {shape}")
    if offset % alignment:
        raise header.damaged(f"the tensor {name!r} is not aligned to {alignment} bytes")
    try:
        return Entry(shape, TYPE_NAMES[code], offset, n_bytes(TYPE_NAMES[code], shape))
    except ValueError as error:
        raise header.damaged(f"the tensor {name!r}: {error}") from error
