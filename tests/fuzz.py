"""Damages files in every way that a seed finds, and opens them: `python fuzz.py SEED COUNT FOLDER` prints a summary.

A process of its own, so that its memory can be limited: what a header claims must not be believed.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path

import torch
import writers
from safetensors.torch import save_file

from zimage_core import CheckpointError, inspect_checkpoint, load_transformer
from zimage_core.model import S3DiT, S3DiTConfig

ROOM = 1 << 30
NUMBERS = [b"-1", b"0", b"1", b"2", b"99999999999999999999", b"1e9", b"1.5", b"null", b'"x"', b"[]", b"true", b"4096"]
WORDS = [b'"F32"', b'"F64"', b'"U8"', b'"F8_E4M3"', b'"F4"', b'"I8"', b'"BOOL"', b"{", b"}", b"[", b",", b"\\u0000"]


def corpus(folder: Path) -> list[Path]:
    """Small whole files of each container, with everything in them that a reader looks at."""
    config = S3DiTConfig(dim=32, n_layers=1, n_refiner_layers=1, n_heads=1, cap_feat_dim=32, adaln_dim=32, time_dim=32)
    state = S3DiT(config).state_dict()
    files = [folder / name for name in ("fp8.safetensors", "marked.safetensors", "plain.safetensors", "q8.gguf")]
    writers.fp8_scaled("metadata")(state, files[0], "model.diffusion_model.")
    writers.fp8_scaled("comfy_quant")(writers.diffusers_transformer(state), files[1])
    save_file({k: v.half() for k, v in state.items()}, str(files[2]), {"modelspec.title": "turbo"})
    metadata = {"general.name": "turbo", "some.list": ["a", "b"], "qwen3.rope.freq_base": 1e6}
    writers.ggml("Q8_0", metadata=metadata)(state, files[3])
    index = folder / "shards" / "model.safetensors.index.json"
    index.parent.mkdir()
    names = sorted(state)
    for i in (1, 2):
        part = names[: len(names) // 2] if i == 1 else names[len(names) // 2 :]
        save_file({n: state[n] for n in part}, str(index.parent / f"model-0000{i}-of-00002.safetensors"))
    weight_map = {n: f"model-0000{1 + names.index(n) // (len(names) // 2) % 2}-of-00002.safetensors" for n in names}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}), encoding="utf-8")
    return [*files, index]


def header_end(data: bytes, path: Path) -> int:
    """Where a file's header ends: damage to weights is not for a reader to see."""
    if path.suffix == ".safetensors":
        return 8 + int.from_bytes(data[:8], "little")
    return len(data) if path.suffix == ".json" else min(len(data), 6000)


def damage(data: bytes, end: int, chance: random.Random, text: bool) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at = chance.randrange(min(end, max(len(out), 1)))
        way = chance.randrange(8)
        if way == 0:
            out[at : at + 1] = bytes([chance.randrange(256)])
        elif way == 1:
            del out[at:]
        elif way == 2:
            del out[at : at + chance.choice([1, 2, 8, 100])]
        elif way == 3:
            out[at:at] = bytes(out[at : at + chance.choice([1, 8, 64, 300])])
        elif way == 4 and not text:
            number = chance.choice([0, 1, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
            out[at : at + 8] = number.to_bytes(8, "little")
        elif way <= 5 and text:
            numbers = list(re.finditer(rb"\d+", out[8:end]))
            if numbers:
                found = chance.choice(numbers)
                out[8 + found.start() : 8 + found.end()] = chance.choice(NUMBERS)
        elif way == 6 and text:
            quoted = list(re.finditer(rb'"[^"]*"', out[8:end]))
            if quoted:
                found = chance.choice(quoted)
                out[8 + found.start() : 8 + found.end()] = chance.choice([*WORDS, bytes(chance.choice(quoted)[0])])
        else:
            out[at : at + 1] = bytes([out[at] ^ (1 << chance.randrange(8))]) if at < len(out) else b""
    if text and chance.random() < 0.7 and len(out) > 8 and out[8:9] == b"{":
        # Otherwise nearly every change of length would end at the first check.
        out[:8] = max(len(out) - len(data) + end - 8, 0).to_bytes(8, "little")
    return bytes(out)


ODD = [-1, 0, 1, 3, 1 << 20, 1 << 62, 10**30, 1.5, None, True, "x", [], {}, [1], [0, 1 << 50], "F8_E5M2", "U8", "F4"]


def lie(data: bytes, end: int, chance: random.Random) -> bytes:
    """A header that can be read and says what is not so."""
    header = json.loads(data[8:end])
    for _ in range(chance.choice([1, 1, 2, 5])):
        name = chance.choice(list(header))
        entry = header[name]
        way = chance.randrange(6)
        if way == 0:
            header[name.replace(str(chance.randrange(3)), str(chance.choice([1, 7, 99999999])))] = header.pop(name)
        elif way == 1:
            header[chance.choice([name + ".x", name[:-1], "", "\ud800", "layers.0.é", name * 40])] = header.pop(name)
        elif way == 2 or not isinstance(entry, dict):
            header[name] = deepcopy(chance.choice(ODD))
        elif way == 3 and isinstance(entry.get("shape"), list) and entry["shape"]:
            entry["shape"][chance.randrange(len(entry["shape"]))] = deepcopy(chance.choice(ODD))
        elif way == 4 and entry.get("data_offsets"):
            begin = chance.randrange(1 << 16)
            entry["data_offsets"] = chance.choice([[begin, begin + 64], [64, 0], [begin], [-64, 0], [0, 1 << 60], "ab"])
            entry["shape"] = chance.choice([entry.get("shape"), [16], [1, 16], [16, 1], [0, 1 << 60], [2, 2, 2, 2]])
        else:
            entry[chance.choice(["dtype", "shape", "data_offsets"])] = deepcopy(chance.choice(ODD))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[end:]


def main(seed: int, count: int, folder: Path) -> dict:
    files = corpus(folder)
    whole = {path: path.read_bytes() for path in files}
    chance = random.Random(seed)
    limit_memory()
    ends: Counter[str] = Counter()
    strange: list[str] = []
    slowest = 0.0
    for i in range(count):
        path = files[i % len(files)]
        text = path.suffix != ".gguf"
        victim = path.with_name("victim" + "".join(path.suffixes[-2:] if text else path.suffixes))
        end = header_end(whole[path], path)
        liar = path.suffix == ".safetensors" and chance.random() < 0.6
        data = lie(whole[path], end, chance) if liar else damage(whole[path], end, chance, text)
        victim.write_bytes(data)
        start = time.perf_counter()
        try:
            opened = load_transformer if i % 3 == 0 else inspect_checkpoint
            opened(victim)
            ends["read"] += 1
        except CheckpointError as error:
            ends["refused"] += 1
            if not any(name in str(error) for name in ("victim", "model-0000")) or "\n" in str(error):
                strange.append(f"{i}: names no file: {error}"[:300])
        except Exception as error:
            strange.append(f"{i}: {type(error).__name__}: {error}"[:300])
        slowest = max(slowest, time.perf_counter() - start)
    return {**ends, "strange": strange[:20], "slowest": round(slowest, 2)}


def limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if Path("/proc").is_dir() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
