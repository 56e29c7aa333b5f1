"""Prompts -> CONDITIONING by the user's CLIP, with the last few kept: who edits one prompt waits for that one alone."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import comfy.utils

from ...zimage_core.text_encoder import MAX_TOKENS
from .conditions import EMPTY, batch_of
from .report import tell

KEPT = 8
# By the encoder's module, with which they go: a few conditionings, the last used at the end.
_kept: weakref.WeakKeyDictionary[Any, OrderedDict[Hashable, Any]] = weakref.WeakKeyDictionary()


def encode_prompts(clip: Any, prompts: Mapping[str, str], hidden: Any) -> tuple[list[Any], str]:
    """A CONDITIONING for each prompt, and what the node says: how long they are, and whether that is too long."""
    made, lengths = _encoded(clip, prompts, KEPT)
    said = ", ".join(f"{name} {length} tokens" for name, length in lengths.items())
    return made, tell("Z-Image Text Encode", [f"{said[0].upper()}{said[1:]}.", *_long_prompts(lengths)], hidden)


def encode_batch(clip: Any, prompts: str, negative: str, hidden: Any) -> tuple[list[Any], list[Any], int, str]:
    """A prompt a line -> one CONDITIONING in which picture i has prompt i, the negative of all, how many, and words."""
    texts = [line.strip() for line in prompts.splitlines() if line.strip()]
    if not texts:
        raise ValueError("there is no prompt: write one on each line of prompts")
    named = {f"{i}.": text for i, text in enumerate(texts, start=1)} | {"negative": negative}
    made, lengths = _encoded(clip, named, KEPT + len(named))
    of_all = made.pop()
    # An encoder with a schedule (hooks) has several entries for a prompt, each for its part of the run.
    positive = [batch_of([c[0] for c, _ in entries], entries[0][1]) for entries in zip(*made)]
    *each, of_negative = lengths.values()
    said = f"{len(texts)} prompts of {min(each)} to {max(each)} tokens, negative {of_negative} tokens."
    text = tell("Z-Image Prompt Batch", [said, *_long_prompts(lengths)], hidden)
    return positive, of_all, len(texts), text


def _encoded(clip: Any, prompts: Mapping[str, str], keep: int) -> tuple[list[Any], dict[str, int]]:
    """A CONDITIONING for each prompt, and their lengths by name."""
    if clip is None:
        raise ValueError("there is no text encoder: this checkpoint holds none, so use Load Z-Image Text Encoder")
    progress = comfy.utils.ProgressBar(len(prompts))
    made, lengths = [], {}
    for name, text in prompts.items():
        tokens = clip.tokenize(text)
        lengths[name] = max(sum(len(part) for part in parts) for parts in tokens.values())
        encoded = encode(clip, tokens, keep)
        made.append(encoded if text.strip() else [[features, rest | {EMPTY: True}] for features, rest in encoded])
        progress.update(1)
    return made, lengths


def encode(clip: Any, tokens: Mapping[str, Any], keep: int = KEPT) -> list[Any]:
    """The host's own encoding. Kept results are handed out as copies, since other nodes add to conditionings."""
    key = _key(clip, tokens)
    if key is None:
        encoded: list[Any] = clip.encode_from_tokens_scheduled(tokens)
        return encoded
    kept = _kept.setdefault(clip.cond_stage_model, OrderedDict())
    if key not in kept:
        kept[key] = clip.encode_from_tokens_scheduled(tokens)
        while len(kept) > keep:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return [[features, dict(rest)] for features, rest in kept[key]]


def _key(clip: Any, tokens: Mapping[str, Any]) -> Hashable | None:
    """All that the features depend on; None where that cannot be told, and nothing is kept then.

    The patcher's uuid changes with every LoRA or other patch. Tokens stand for the text and the tokenizer's options.
    """
    patcher = clip.patcher
    objects = getattr(patcher, "object_patches", {})
    hooked = getattr(patcher, "forced_hooks", None) is not None or clip.apply_hooks_to_conds is not None
    if hooked or set(objects) - {"manual_cast_dtype"} or _has_options(patcher):
        return None
    flat = [
        (name, index, *token) for name, parts in tokens.items() for index, part in enumerate(parts) for token in part
    ]
    if not all(isinstance(part, str | int | float) for token in flat for part in token):
        return None  # an embedding (textual inversion) stands there as a tensor
    return patcher.patches_uuid, clip.layer_idx, str(objects.get("manual_cast_dtype")), tuple(flat)


def _has_options(patcher: Any) -> bool:
    """Whether other nodes gave the encoder wrappers, overrides or injections."""
    options = patcher.model_options
    wrapped = any(any(by_key.values()) for by_key in getattr(patcher, "wrappers", {}).values())
    others = set(options) - {"transformer_options"}
    return bool(others or options.get("transformer_options") or wrapped or getattr(patcher, "injections", {}))


def _long_prompts(lengths: Mapping[str, int]) -> list[str]:
    return [
        f"The {name} prompt is longer than the official {MAX_TOKENS} tokens: ComfyUI does not cut it, so all "
        f"of it counts, but the model has not learned prompts of this length (the official pipeline would "
        f"drop the last {length - MAX_TOKENS})."
        for name, length in lengths.items()
        if length > MAX_TOKENS
    ]
