"""Every known key layout, as tables that lead to the canonical names.

A layout is a list of rules; a rule is a pattern and where it leads. The canonical names are those of the modules
that receive the tensors: the original (ComfyUI) layout for the transformer, transformers' Qwen3 for the text
encoder, diffusers' AutoencoderKL for the VAE. A rule that ends in `[i/n]` fills part i of n of a tensor that the
canonical layout stores fused, parts joined along the first axis. A rule that leads to None is a key to drop on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Rules = list[tuple[str, "str | None"]]

# Any transformer block. What no rule matches keeps its name.
_BLOCK = r"((?:layers|noise_refiner|context_refiner)\.\d+)"

TRANSFORMER_LAYOUTS: dict[str, Rules] = {
    "original": [(r"norm_final\.weight", None)],
    "diffusers": [
        (r"all_x_embedder\.2-1\.(.+)", r"x_embedder.\1"),
        (r"all_final_layer\.2-1\.(.+)", r"final_layer.\1"),
        (_BLOCK + r"\.attention\.to_q\.(.+)", r"\1.attention.qkv.\2[0/3]"),
        (_BLOCK + r"\.attention\.to_k\.(.+)", r"\1.attention.qkv.\2[1/3]"),
        (_BLOCK + r"\.attention\.to_v\.(.+)", r"\1.attention.qkv.\2[2/3]"),
        (_BLOCK + r"\.attention\.to_out\.0\.(.+)", r"\1.attention.out.\2"),
        (_BLOCK + r"\.attention\.norm_(q|k)\.(.+)", r"\1.attention.\2_norm.\3"),
        (r"norm_final\.weight", None),
    ],
}

TEXT_ENCODER_LAYOUTS: dict[str, Rules] = {"transformers": [(r"lm_head\..+", None), (r"rotary_emb\..+", None)]}

_HALF = r"(encoder|decoder)\."
VAE_LAYOUTS: dict[str, Rules] = {
    "diffusers": [],
    "ldm": [
        (
            r"encoder\.down\.(\d+)\.block\.(\d+)\.nin_shortcut\.(.+)",
            r"encoder.down_blocks.\1.resnets.\2.conv_shortcut.\3",
        ),
        (r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", r"encoder.down_blocks.\1.resnets.\2.\3"),
        (r"encoder\.down\.(\d+)\.downsample\.conv\.(.+)", r"encoder.down_blocks.\1.downsamplers.0.conv.\2"),
        # {-1} counts decoder levels from the other end: LDM numbers them by resolution, diffusers by order.
        (
            r"decoder\.up\.(\d+)\.block\.(\d+)\.nin_shortcut\.(.+)",
            r"decoder.up_blocks.{-\1}.resnets.\2.conv_shortcut.\3",
        ),
        (r"decoder\.up\.(\d+)\.block\.(\d+)\.(.+)", r"decoder.up_blocks.{-\1}.resnets.\2.\3"),
        (r"decoder\.up\.(\d+)\.upsample\.conv\.(.+)", r"decoder.up_blocks.{-\1}.upsamplers.0.conv.\2"),
        (_HALF + r"mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
        (_HALF + r"mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
        (_HALF + r"mid\.attn_1\.norm\.(.+)", r"\1.mid_block.attentions.0.group_norm.\2"),
        (_HALF + r"mid\.attn_1\.(q|k|v)\.(.+)", r"\1.mid_block.attentions.0.to_\2.\3"),
        (_HALF + r"mid\.attn_1\.proj_out\.(.+)", r"\1.mid_block.attentions.0.to_out.0.\2"),
        (_HALF + r"norm_out\.(.+)", r"\1.conv_norm_out.\2"),
    ],
}  # fmt: skip

# Prefixes that a whole component may carry, longest first; the empty one is always tried last.
PREFIXES: dict[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.", ""),
    "text_encoder": (
        "text_encoders.qwen3_4b.transformer.model.", "text_encoders.qwen3_4b.model.", "text_encoder.model.",
        "text_encoder.", "model.", "",
    ),
    "vae": ("first_stage_model.", "vae.", ""),
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a canonical tensor comes from: file keys in the order in which they are joined along the first axis."""

    keys: tuple[str, ...]


def canonical(names: Iterable[str], rules: Rules, prefix: str = "") -> dict[str, Source]:
    """Map the file keys that start with `prefix` to canonical names by `rules`.

    Dropped keys are left out, and so is a fused tensor of which the file lacks a part.
    """
    names = list(names)
    parts: dict[str, dict[int, str]] = {}
    totals: dict[str, int] = {}
    levels = _levels(names)
    for name in names:
        if not name.startswith(prefix):
            continue
        target = rename(name[len(prefix) :], rules)
        if target is None:
            continue
        target = re.sub(r"\{-(\d+)\}", lambda m: str(levels - 1 - int(m[1])), target)
        match = re.fullmatch(r"(.+)\[(\d)/(\d)\]", target)
        base, index, total = (match[1], int(match[2]), int(match[3])) if match else (target, 0, 1)
        totals[base] = total
        parts.setdefault(base, {})[index] = name
    return {
        base: Source(tuple(keys[i] for i in sorted(keys))) for base, keys in parts.items() if len(keys) == totals[base]
    }


def rename(name: str, rules: Rules) -> str | None:
    """One key by the first rule that matches all of it; unchanged if none does, None if it is to be dropped."""
    for pattern, target in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return None if target is None else match.expand(target)
    return name


def find_prefix(names: Mapping[str, object], kind: str, marker: str) -> str | None:
    """The prefix under which a component of `kind` has the key `marker`, or None."""
    return next((prefix for prefix in PREFIXES[kind] if prefix + marker in names), None)


def _levels(names: Iterable[str]) -> int:
    """How many resolution levels an LDM decoder has."""
    found = [re.search(r"decoder\.up\.(\d+)\.", name) for name in names]
    return 1 + max((int(m[1]) for m in found if m), default=0)
