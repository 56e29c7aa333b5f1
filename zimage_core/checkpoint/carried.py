"""What a converted file says of itself: what its source said, as far as that still holds, and what readers ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from .detect import CheckpointInfo
from .geometry import Shapes, geometry
from .gguf_file import Array

# By kind, as the readers of GGUF files know them.
ARCHITECTURES = {"transformer": "lumina2", "text_encoder": "qwen3"}
# GGUF's number for what most of a file is.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}

# What a new file must not repeat: how the old one's numbers were stored, and sums over its bytes.
_STALE = re.compile(
    r"_quantization_metadata|quantization_config|format|.*hash.*|zimage\.variant|(lumina2|qwen3)\..*|split\..*|"
    r"general\.(architecture|alignment|file_type|quantization_version)"
)
# A variant that was told so may have been told wrong.
GUESSED = ("weights", "default")

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


def safetensors_metadata(info: CheckpointInfo) -> dict[str, str]:
    said = {key: value for key, value in info.checkpoint.metadata.items() if isinstance(value, str)}
    kept = {key: value for key, value in said.items() if not _STALE.fullmatch(key) and not key.startswith("tokenizer.")}
    return {**kept, **_variant(info), "format": "pt"}


def gguf_metadata(info: CheckpointInfo, main: str, tokenizer: Any = None) -> dict[str, Any]:
    """`main` is the format of most of the file. A tokenizer in the source is kept; else the given one is written."""
    said = {key: _listed(value) for key, value in info.checkpoint.metadata.items() if not _STALE.fullmatch(key)}
    said = {key: value for key, value in said.items() if not isinstance(value, list) or _is_plain(value)}
    values: dict[str, Any] = {"general.architecture": ARCHITECTURES[info.kind], "general.quantization_version": 2}
    if main in _FILE_TYPES:
        values["general.file_type"] = _FILE_TYPES[main]
    if info.kind == "text_encoder":
        values |= _qwen3(info.config)
        if tokenizer is not None and "tokenizer.ggml.tokens" not in said:
            values |= tokenizer_metadata(tokenizer, info.config["vocab_size"])
    return {**said, **values, **_variant(info)}


def lost(info: CheckpointInfo, metadata: Mapping[str, Any]) -> list[str]:
    """What of the source's configuration a file with this metadata does not tell: names and values."""
    shapes = Shapes({name: source.shape for name, source in info.sources.items()}, info.path.name)
    alone = geometry(info.kind, shapes, replace(info.checkpoint, config={}, metadata=metadata))
    old, new = (config if isinstance(config, dict) else asdict(config) for config in (info.config, alone))
    return [f"{name} {value}" for name, value in old.items() if new[name] != value]


def tokenizer_metadata(tokenizer: Any, size: int) -> dict[str, Any]:
    """A `tokenizers.Tokenizer` of byte pairs as GGUF files carry it; nothing if it is not one for `size` tokens."""
    parts = json.loads(tokenizer.to_str())
    words = {number: word for word, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    if parts["model"].get("type") != "BPE" or max(words) >= size:
        return {}
    types = dict.fromkeys(words, _NORMAL)
    types |= {token["id"]: _CONTROL if token["special"] else _USER_DEFINED for token in parts["added_tokens"]}
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [words.get(i, f"[PAD{i}]") for i in range(size)],
        "tokenizer.ggml.token_type": [types.get(i, _UNUSED) for i in range(size)],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in parts["model"]["merges"]],
        "tokenizer.ggml.add_bos_token": False,
    }
    special = {"bos": "<|endoftext|>", "eos": "<|im_end|>", "padding": "<|endoftext|>"}
    ids = {name: tokenizer.token_to_id(word) for name, word in special.items()}
    return values | {f"tokenizer.ggml.{name}_token_id": i for name, i in ids.items() if i is not None}


def _variant(info: CheckpointInfo) -> dict[str, str]:
    told = info.told
    return {"zimage.variant": told.name} if told and told.source not in GUESSED else {}


def _listed(value: Any) -> Any:
    return value.read() if isinstance(value, Array) else value


def _is_plain(items: list[Any]) -> bool:
    """Whether the gguf package can write them: it takes every whole number for one of 32 bits."""
    small = all(abs(item) < 1 << 31 for item in items if isinstance(item, int))
    return small and all(isinstance(item, str | int | float) for item in items)


def _qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "qwen3.block_count": config["num_hidden_layers"],
        "qwen3.context_length": config["max_position_embeddings"],
        "qwen3.embedding_length": config["hidden_size"],
        "qwen3.feed_forward_length": config["intermediate_size"],
        "qwen3.attention.head_count": config["num_attention_heads"],
        "qwen3.attention.head_count_kv": config["num_key_value_heads"],
        "qwen3.attention.key_length": config["head_dim"],
        "qwen3.attention.value_length": config["head_dim"],
        "qwen3.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "qwen3.rope.freq_base": config["rope_theta"],
        "qwen3.vocab_size": config["vocab_size"],
    }
