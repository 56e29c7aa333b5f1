"""GGUF headers: files of the gguf package's writer against its reader, and files that lie."""

from __future__ import annotations

import itertools
import random
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from zimage_core import CheckpointError
from zimage_core.checkpoint import gguf_file
from zimage_core.checkpoint.ggml import TYPES
from zimage_core.checkpoint.gguf_file import Array, Entry, read_header, tokenizer_parts

Q = gguf.GGMLQuantizationType
V = gguf.GGUFValueType
WORDS = [f"wörd{i}" for i in range(150)]
MERGES = [f"{a} {b}" for a, b in itertools.pairwise(WORDS)]
SCALARS = {
    V.UINT8: 250, V.INT8: -5, V.UINT16: 65000, V.INT16: -300, V.UINT32: 1 << 31, V.INT32: -(1 << 31),
    V.UINT64: 1 << 63, V.INT64: -(1 << 62), V.FLOAT32: 0.5, V.FLOAT64: 0.1, V.BOOL: True, V.STRING: "né",
}  # fmt: skip
SHAPES = [(7,), (3, 256), (2, 3, 512), (2, 1, 3, 256), (1,), (5, 7, 64)]


def write(path: Path, alignment: int = 0) -> Path:
    """A file of everything: each kind of value and of array, a tokenizer, and tensors of many types."""
    writer = gguf.GGUFWriter(str(path), "lumina2")
    if alignment:
        writer.add_custom_alignment(alignment)
    for kind, value in SCALARS.items():
        writer.add_key_value(f"scalar.{kind.name}", value, kind)
        writer.add_key_value(f"list.{kind.name}", [value] * 3, V.ARRAY, kind)
        writer.add_key_value(f"array.{kind.name}", [value] * 100, V.ARRAY, kind)
    writer.add_token_list(WORDS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([1] * 149 + [3])
    weights = np.random.default_rng(0)
    for i, shape in enumerate(SHAPES):
        writer.add_tensor(f"dense.{i}", weights.standard_normal(shape).astype([np.float32, np.float16][i % 2]))
        for name in ("Q8_0", "Q4_K", "IQ4_XS", "BF16"):
            kind = TYPES[name]
            if shape[-1] % kind.weights == 0:
                rows = (*shape[:-1], shape[-1] // kind.weights * kind.bytes)
                data = weights.integers(0, 256, rows, dtype=np.uint8)
                writer.add_tensor(f"{name}.{i}", data, raw_dtype=Q[name])
    writer.add_tensor("whole", np.arange(5, dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(string: str | bytes) -> bytes:
    raw = string.encode() if isinstance(string, str) else string
    return struct.pack("<Q", len(raw)) + raw


def value(key: str, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def array(kind: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + payload


def tensor(name: str = "w", dims: tuple[int, ...] = (256,), kind: int = 12, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def made(path: Path, values: list[bytes] = [], tensors: list[bytes] = [], data: int = 144, **header: int) -> Path:  # noqa: B006
    """A file by hand, in which any number can be a lie."""
    version, n_tensors = header.get("version", 3), header.get("n_tensors", len(tensors))
    start = b"GGUF" + struct.pack("<IQQ", version, n_tensors, header.get("n_values", len(values)))
    whole = start + b"".join(values) + b"".join(tensors)
    path.write_bytes(whole + bytes(-len(whole) % header.get("alignment", 32) + data))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.gguf"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "whole.gguf")


@pytest.mark.parametrize("alignment", [0, 64, 4096])
def test_tensors_are_those_of_the_gguf_packages_reader(path, alignment):
    tensors, _ = read_header(write(path, alignment))
    theirs = gguf.GGUFReader(path).tensors
    assert list(tensors) == [t.name for t in theirs] and len(tensors) > 20
    data = path.read_bytes()
    for t in theirs:
        entry = tensors[t.name]
        assert entry == Entry(tuple(t.shape[::-1].tolist()), t.tensor_type.name, t.data_offset, t.n_bytes)
        assert data[entry.offset : entry.offset + entry.size] == t.data.tobytes()
        assert entry.offset % (alignment or 32) == 0


def test_metadata_comes_as_python_values(whole):
    _, metadata = read_header(whole)
    assert metadata["general.architecture"] == "lumina2"
    for kind, want in SCALARS.items():
        assert metadata[f"scalar.{kind.name}"] == want and type(metadata[f"scalar.{kind.name}"]) is type(want)
        assert metadata[f"list.{kind.name}"] == [want] * 3
        long = metadata[f"array.{kind.name}"]
        assert isinstance(long, Array) and len(long) == 100 and long.read() == [want] * 100
    assert metadata.keys() == {key for key in gguf.GGUFReader(whole).fields if not key.startswith("GGUF.")}


def test_the_tokenizer_is_read_when_asked_for(whole):
    _, metadata = read_header(whole)
    assert tokenizer_parts(metadata) == (WORDS, MERGES, [1] * 149 + [3])
    assert tokenizer_parts({k: v for k, v in metadata.items() if "token_type" not in k}) == (WORDS, MERGES, [])
    assert tokenizer_parts({k: v for k, v in metadata.items() if "merges" not in k}) is None
    assert tokenizer_parts(metadata | {"tokenizer.ggml.tokens": metadata["array.INT32"]}) is None
    assert tokenizer_parts(metadata | {"tokenizer.ggml.token_type": [1, 2]}) is None
    assert tokenizer_parts({}) is None


def test_a_large_tokenizer_costs_nothing_until_it_is_read(path):
    words = b"".join(text(str(i)) for i in range(150_000))
    made(path, [value("tokenizer.ggml.tokens", 9, array(8, 150_000, words))], [tensor()])
    start = time.perf_counter()
    tensors, metadata = read_header(path)
    assert time.perf_counter() - start < 0.3
    assert tensors["w"].shape == (256,) and len(metadata["tokenizer.ggml.tokens"]) == 150_000
    assert metadata["tokenizer.ggml.tokens"].read()[-1] == "149999"


def test_both_versions_and_empty_things_are_read(path):
    values = [value("", 8, text("")), value("none", 9, array(4, 0)), value("latin-1", 8, text(b"caf\xe9"))]
    tensors, metadata = read_header(made(path, values, [tensor("", (), 0)], version=2))
    assert tensors[""].shape == () and tensors[""].size == 4
    assert metadata == {"": "", "none": [], "latin-1": "caf\ufffd"}
    assert read_header(made(path, data=0)) == ({}, {})


def test_arrays_of_arrays_are_read_to_a_depth(path):
    inner = array(4, 2, struct.pack("<II", 1, 2)) + array(8, 1, text("x"))
    _, metadata = read_header(made(path, [value("nested", 9, array(9, 2, inner))]))
    assert metadata["nested"].read() == [[1, 2], ["x"]]
    deep = array(4, 0)
    for _ in range(50):
        deep = array(9, 1, deep)
    refused(made(path, [value("deep", 9, deep)]), "arrays of arrays, too deep")


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    for word in (path.name, *words):
        assert word in str(error.value)
    assert len(str(error.value)) < 300


HUGE = 1 << 62
LIES = {
    "more tensors than it can hold": {"n_tensors": 9},
    "tensors without number": {"n_tensors": HUGE},
    "values without number": {"n_values": (1 << 64) - 1},
    "a string beyond the end": {"values": [value("k", 8, struct.pack("<Q", HUGE))]},
    "a key beyond the end": {"values": [struct.pack("<Q", (1 << 64) - 1)]},
    "numbers beyond the end": {"values": [value("k", 9, array(12, HUGE))]},
    "a few numbers beyond the end": {"values": [value("k", 9, array(12, 60))]},
    "strings beyond the end": {"values": [value("k", 9, array(8, HUGE))]},
    "a string of many beyond the end": {"values": [value("k", 9, array(8, 70, struct.pack("<Q", HUGE) * 70))]},
    "arrays beyond the end": {"values": [value("k", 9, array(9, HUGE))]},
    "an unknown kind of value": {"values": [value("k", 77, bytes(64))]},
    "an array of an unknown kind": {"values": [value("k", 9, array(13, 2, bytes(64)))]},
    "a key that is not UTF-8": {"values": [text(b"\xff") + struct.pack("<IB", 0, 0)]},
    "a key twice": {"values": [value("k", 0, b"1")] * 2},
    "a tensor twice": {"tensors": [tensor(), tensor(offset=160)], "data": 999},
    "five dimensions": {"tensors": [tensor(dims=(256, 1, 1, 1, 1))]},
    "dimensions without number": {"tensors": [text("w") + struct.pack("<IQQ", 0xFFFFFFFF, 256, 0)]},
    "no weights": {"tensors": [tensor(dims=(256, 0))]},
    "a shape that overflows": {"tensors": [tensor(dims=(1 << 32, 1 << 32), kind=0)]},
    "part of a block": {"tensors": [tensor(dims=(128, 2))]},
    "an offset that is not aligned": {"tensors": [tensor(offset=16)], "data": 999},
    "an alignment of no power of two": {"values": [value("general.alignment", 4, struct.pack("<I", 48))]},
    "an alignment of zero": {"values": [value("general.alignment", 4, struct.pack("<I", 0))]},
    "an alignment without measure": {"values": [value("general.alignment", 10, struct.pack("<Q", HUGE))]},
    "an alignment in words": {"values": [value("general.alignment", 8, text("32"))]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(path, lie):
    refused(made(path, **{"tensors": [tensor()], **LIES[lie]}), "download it again")


def test_the_same_file_without_a_lie_is_read(path):
    tensors, _ = read_header(made(path, tensors=[tensor()]))
    assert tensors == {"w": Entry((256,), "Q4_K", 64, 144)}


def test_a_type_that_is_not_known_is_named(path):
    refused(made(path, tensors=[tensor(kind=99)]), "uses the tensor type 99, which this version does not know")
    assert 99 not in gguf_file.TYPE_NAMES


def test_a_file_that_is_cut_off_says_by_how_much(path):
    made(path, tensors=[tensor(dims=(256, 10))], data=1000)
    refused(path, "is cut off: it has 1,096 of 1,536 bytes; download it again")


def test_every_shorter_file_is_refused(path, whole):
    data = whole.read_bytes()
    end = max(entry.offset + entry.size for entry in read_header(whole)[0].values())
    assert len(data) - 64 < end < len(data)  # the writer pads the last tensor too, which nobody needs
    for size in [*range(0, 2000, 7), *range(2000, end, 997), end - 1]:
        path.write_bytes(data[:size])
        refused(path, "cut off", "download it again")


def test_other_files_and_versions_are_refused_by_name(path, whole):
    data = whole.read_bytes()
    path.write_bytes(b"\x80\x04" + data)
    refused(path, "is not a GGUF file: use a .gguf file")
    path.write_bytes(b"<html>")
    refused(path, "is not a GGUF file")
    refused(made(path, version=1), "a GGUF file of version 1: use one of version 2 or 3")
    refused(made(path, version=4), "a GGUF file of version 4")
    writer = gguf.GGUFWriter(str(path), "lumina2", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(path, "is a big-endian GGUF file: use a little-endian one")


def test_a_header_has_a_greatest_size(path, monkeypatch, whole):
    monkeypatch.setattr(gguf_file, "MAX_HEADER", 500)
    refused(whole, "is damaged (its header is longer than 500 bytes): download it again")


def test_an_array_whose_file_has_changed_is_refused(path):
    made(path, [value("k", 9, array(8, 100, text("x") * 100))])
    _, metadata = read_header(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"file.gguf is cut off .* download it again"):
        metadata["k"].read()


INTERESTING = [0, 1, 7, 8, 9, 31, 32, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
INTERESTING += [1 << 32, 1 << 48, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1]


def mutated(data: bytes, chance: random.Random, end: int) -> bytes:
    """`data` with a few bytes changed, cut out, doubled or put in before `end`, or cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at, width = chance.randrange(end), chance.choice([1, 2, 4, 8])
        what = chance.randrange(8)
        if what < 3:
            number = chance.choice([*INTERESTING, len(data), chance.getrandbits(64)]) % (1 << 8 * width)
            changed[at : at + width] = number.to_bytes(width, "little")
        elif what < 5:
            changed[at : at + 1] = bytes([chance.getrandbits(8)])
        elif what == 5:
            del changed[at : at + chance.choice([1, 4, 8, 100])]
        elif what == 6:
            changed[at:at] = changed[at - 24 : at + 8]
        elif chance.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def fuzz(source: Path, target: Path, seed: int) -> str:
    """One mutated file: what came of it. Anything but a result or a proper refusal is an exception."""
    data = source.read_bytes()
    chance = random.Random(seed)
    target.write_bytes(mutated(data, chance, chance.choice([200, 4000, 12000, len(data)])))
    try:
        tensors, metadata = read_header(target)
        tokenizer_parts(metadata)
        for long in metadata.values():
            if isinstance(long, Array):
                assert len(long.read()) == len(long)
    except CheckpointError as error:
        assert target.name in str(error) and len(str(error)) < 400
        assert any(way in str(error) for way in ("download it again", "use a ", "use one ", "use another "))
        return "refused"
    size = target.stat().st_size
    assert all(e.size > 0 and 0 < e.offset <= size - e.size for e in tensors.values())
    return "read"


def test_random_damage_does_no_harm(path, whole):
    # Twenty thousand were tried by hand; here are as many as a test run has time for.
    results = [fuzz(whole, path, seed) for seed in range(600)]
    assert results.count("read") > 50 and results.count("refused") > 200
