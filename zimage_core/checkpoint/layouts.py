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
from functools import lru_cache

Rules = list[tuple[str, "str | None"]]


@dataclass(frozen=True)
class Layout:
    """`markers` are keys that only this layout has (all of them must be there), `rules` lead to canonical names."""

    markers: tuple[str, ...]
    rules: Rules


# Any transformer block. What no rule matches keeps its name.
_BLOCK = r"((?:layers|noise_refiner|context_refiner)\.\d+)"
_HALF = r"(encoder|decoder)\."
_DEEP = r"(model\.)?"

# Keys that files carry and no model has: a normalisation without weights in old single files (its numbers are
# arbitrary), the mark of scaled FP8 (the scales themselves say as much), tables that are computed, a tied head.
_JUNK: dict[str, Rules] = {
    "transformer": [(r"norm_final\.weight", None), (r"scaled_fp8", None), (r"freqs_cis", None), (r"__\w+__", None)],
    "text_encoder": [
        (_DEEP + r"lm_head\..+", None), (r"output\.weight", None), (r"scaled_fp8", None),
        (r"(.+\.)?rotary_emb\..+", None), (r"rope_freqs\.weight", None), (r"logit_scale", None),
    ],
    "vae": [(r"loss\..+", None), (r"model_ema\..+", None), (r"scaled_fp8", None)],
}  # fmt: skip

_TRANSFORMER_DIFFUSERS: Rules = [
    (r"all_x_embedder\.2-1\.(.+)", r"x_embedder.\1"),
    (r"all_final_layer\.2-1\.(.+)", r"final_layer.\1"),
    (_BLOCK + r"\.attention\.to_q\.(.+)", r"\1.attention.qkv.\2[0/3]"),
    (_BLOCK + r"\.attention\.to_k\.(.+)", r"\1.attention.qkv.\2[1/3]"),
    (_BLOCK + r"\.attention\.to_v\.(.+)", r"\1.attention.qkv.\2[2/3]"),
    (_BLOCK + r"\.attention\.to_out\.0\.(.+)", r"\1.attention.out.\2"),
    (_BLOCK + r"\.attention\.norm_(q|k)\.(.+)", r"\1.attention.\2_norm.\3"),
]

# stable-diffusion.cpp numbers the projections that it was given apart.
_TRANSFORMER_SDCPP: Rules = [
    (_BLOCK + r"\.attention\.qkv\.(\w+)", r"\1.attention.qkv.\2[0/3]"),
    (_BLOCK + r"\.attention\.qkv\.(\w+)\.1", r"\1.attention.qkv.\2[1/3]"),
    (_BLOCK + r"\.attention\.qkv\.(\w+)\.2", r"\1.attention.qkv.\2[2/3]"),
]

_TEXT_ENCODER_LLAMACPP: Rules = [
    (r"token_embd\.(.+)", r"embed_tokens.\1"),
    (r"output_norm\.(.+)", r"norm.\1"),
    (r"blk\.(\d+)\.attn_norm\.(.+)", r"layers.\1.input_layernorm.\2"),
    (r"blk\.(\d+)\.ffn_norm\.(.+)", r"layers.\1.post_attention_layernorm.\2"),
    (r"blk\.(\d+)\.attn_(q|k)_norm\.(.+)", r"layers.\1.self_attn.\2_norm.\3"),
    (r"blk\.(\d+)\.attn_(q|k|v)\.(.+)", r"layers.\1.self_attn.\2_proj.\3"),
    (r"blk\.(\d+)\.attn_output\.(.+)", r"layers.\1.self_attn.o_proj.\2"),
    (r"blk\.(\d+)\.ffn_(gate|up|down)\.(.+)", r"layers.\1.mlp.\2_proj.\3"),
]

# diffusers once named the attention's matrices as the first release of its VAE did.
_VAE_DIFFUSERS: Rules = [
    (_HALF + r"mid_block\.attentions\.0\.query\.(.+)", r"\1.mid_block.attentions.0.to_q.\2"),
    (_HALF + r"mid_block\.attentions\.0\.key\.(.+)", r"\1.mid_block.attentions.0.to_k.\2"),
    (_HALF + r"mid_block\.attentions\.0\.value\.(.+)", r"\1.mid_block.attentions.0.to_v.\2"),
    (_HALF + r"mid_block\.attentions\.0\.proj_attn\.(.+)", r"\1.mid_block.attentions.0.to_out.0.\2"),
]

_VAE_LDM: Rules = [
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.nin_shortcut\.(.+)", r"encoder.down_blocks.\1.resnets.\2.conv_shortcut.\3"),
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", r"encoder.down_blocks.\1.resnets.\2.\3"),
    (r"encoder\.down\.(\d+)\.downsample\.conv\.(.+)", r"encoder.down_blocks.\1.downsamplers.0.conv.\2"),
    # {-1} counts decoder levels from the other end: LDM numbers them by resolution, diffusers by order.
    (r"decoder\.up\.(\d+)\.block\.(\d+)\.nin_shortcut\.(.+)", r"decoder.up_blocks.{-\1}.resnets.\2.conv_shortcut.\3"),
    (r"decoder\.up\.(\d+)\.block\.(\d+)\.(.+)", r"decoder.up_blocks.{-\1}.resnets.\2.\3"),
    (r"decoder\.up\.(\d+)\.upsample\.conv\.(.+)", r"decoder.up_blocks.{-\1}.upsamplers.0.conv.\2"),
    (_HALF + r"mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
    (_HALF + r"mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
    (_HALF + r"mid\.attn_1\.norm\.(.+)", r"\1.mid_block.attentions.0.group_norm.\2"),
    (_HALF + r"mid\.attn_1\.(q|k|v)\.(.+)", r"\1.mid_block.attentions.0.to_\2.\3"),
    (_HALF + r"mid\.attn_1\.proj_out\.(.+)", r"\1.mid_block.attentions.0.to_out.0.\2"),
    (_HALF + r"norm_out\.(.+)", r"\1.conv_norm_out.\2"),
]

# In the order in which they are tried: a layout whose markers are a part of another's comes after it.
LAYOUTS: dict[str, dict[str, Layout]] = {
    "transformer": {
        "sd.cpp": Layout(("cap_embedder.1.weight", "layers.0.attention.qkv.weight.1"), _TRANSFORMER_SDCPP),
        "original": Layout(("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight"), []),
        "diffusers": Layout(
            ("all_x_embedder.2-1.weight", "noise_refiner.0.attention.norm_k.weight"), _TRANSFORMER_DIFFUSERS
        ),
    },
    "text_encoder": {
        "transformers": Layout(
            ("embed_tokens.weight", "layers.0.self_attn.q_norm.weight", "layers.0.post_attention_layernorm.weight"), []
        ),
        "llama.cpp": Layout(
            ("token_embd.weight", "blk.0.attn_q_norm.weight", "blk.0.ffn_norm.weight"), _TEXT_ENCODER_LLAMACPP
        ),
    },
    "vae": {
        "ldm": Layout(("decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight"), _VAE_LDM),
        "diffusers": Layout(("decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.norm1.weight"), _VAE_DIFFUSERS),
    },
}

# Prefixes that a whole component may carry, longest first; the empty one is always tried last.
PREFIXES: dict[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.", ""),
    "text_encoder": (
        "text_encoders.qwen3_4b.transformer.model.", "text_encoders.qwen3_4b.model.", "text_encoders.llm.model.",
        "text_encoders.llm.", "qwen3_4b.transformer.model.", "text_encoder.model.", "text_encoder.", "model.", "",
    ),
    "vae": ("first_stage_model.", "vae.", ""),
}  # fmt: skip
# What the other components of an all-in-one file begin with: none of it belongs to a component without a prefix.
_FOREIGN = (
    "model.diffusion_model.", "diffusion_model.", "text_encoders.", "text_encoder.", "cond_stage_model.",
    "conditioner.", "first_stage_model.", "vae.",
)  # fmt: skip


def canonical(names: Iterable[str], kind: str, layout: str, prefix: str = "") -> dict[str, tuple[str | None, ...]]:
    """Map the file keys under `prefix` to canonical names: for each, the keys of its parts in order.

    A part that the file lacks is None. Keys that are dropped on purpose are left out.
    """
    names = list(names)
    rules = LAYOUTS[kind][layout].rules + _JUNK[kind]
    levels = _levels(names)
    parts: dict[str, dict[int, str]] = {}
    totals: dict[str, int] = {}
    for name in names:
        if not name.startswith(prefix) or (not prefix and name.startswith(_FOREIGN)):
            continue
        target = rename(name[len(prefix) :], rules)
        if target is None:
            continue
        target = re.sub(r"\{-(\d+)\}", lambda m: str(levels - 1 - int(m[1])), target)
        match = re.fullmatch(r"(.+)\[(\d)/(\d)\]", target)
        base, index, total = (match[1], int(match[2]), int(match[3])) if match else (target, 0, 1)
        totals[base] = total
        parts.setdefault(base, {})[index] = name
    return {base: tuple(keys.get(i) for i in range(totals[base])) for base, keys in parts.items()}


def rename(name: str, rules: Rules) -> str | None:
    """One key by the first rule that matches all of it; unchanged if none does, None if it is to be dropped."""
    for pattern, target in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return None if target is None else match.expand(target)
    return name


def find_layout(names: Mapping[str, object], kind: str) -> tuple[str, str] | None:
    """The layout and prefix under which `names` hold a component of `kind`."""
    for name, layout in LAYOUTS[kind].items():
        for prefix in PREFIXES[kind]:
            if all(prefix + marker in names for marker in layout.markers):
                return name, prefix
    return None


def _levels(names: Iterable[str]) -> int:
    """How many resolution levels an LDM decoder has."""
    found = {int(m[1]) for name in names if (m := re.search(r"decoder\.up\.(\d{1,3})\.", name))}
    return len(found)


# The layout of each kind whose names are the canonical ones.
CANONICAL = {"transformer": "original", "text_encoder": "transformers", "vae": "diffusers"}
_GROUP = r"\((?:[^()]|\(\?:[^()]*\))*\)"


def file_keys(name: str, kind: str, layout: str, levels: int = 0) -> tuple[str, ...]:
    """The other way round: under which keys a layout stores a canonical tensor, several where it splits the tensor.

    `levels` is how many resolution levels a VAE has. Nothing is prefixed.
    """
    if layout == CANONICAL[kind]:
        return (name,)
    for pattern, templates in _inverse(kind, layout).items():
        match = re.fullmatch(pattern, name)
        if match:
            keys = (match.expand(template) for template in templates)
            return tuple(re.sub(r"\{-(\d+)\}", lambda m: str(levels - 1 - int(m[1])), key) for key in keys)
    return (name,)


@lru_cache
def _inverse(kind: str, layout: str) -> dict[str, tuple[str, ...]]:
    """A layout's rules turned round: pattern of the canonical name -> templates of the keys, parts in order.

    A rule's pattern is literal but for its groups, and its target has these in the same order.
    """
    inverse: dict[str, tuple[str, ...]] = {}
    for pattern, target in LAYOUTS[kind][layout].rules:
        if target is not None:
            turned, template = _turned(pattern, target)
            inverse[turned] = (*inverse.get(turned, ()), template)
    return inverse


def _turned(pattern: str, target: str) -> tuple[str, str]:
    groups = re.findall(_GROUP, pattern)
    pieces = re.split(r"(?:\{-)?\\(\d)\}?", re.sub(r"\[\d/\d\]", "", target))
    turned = "".join(groups[int(piece) - 1] if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))
    literals = re.split(_GROUP, pattern.replace(r"\.", "."))
    references = [rf"{{-\{i}}}" if rf"{{-\{i}}}" in target else rf"\{i}" for i in range(1, len(groups) + 1)]
    return turned, "".join(a + b for a, b in zip(literals, [*references, ""]))
