"""What Turbo and Base are, as one table, and how to tell which of the two a file is.

The two have the same tensors, so a file cannot be told apart by its keys. `detect_variant` asks, in this order, the
scheduler's configuration, the file's metadata, its name, and last a statistic of its weights, which is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """The settings a model was made for. cfg is in ComfyUI's units (official guidance + 1).

    `draft_steps` are for a first look at a picture that is drawn in full later, the same in its composition.
    """

    name: str
    title: str
    steps: int
    cfg: float
    shift: float
    draft_steps: int


# Turbo still draws at half its steps. Base was never distilled: with fewer steps than about 8 at its full cfg, objects
# go missing or swap colours (the demo, four prompts, mean difference from 30 steps: 57, 26, 4.6 and 1.7 of 255 for the
# worst at 4, 6, 8 and 10 steps), so its draft is a third of its steps.
VARIANTS = {
    "turbo": Variant("turbo", "Turbo", steps=8, cfg=1.0, shift=3.0, draft_steps=4),
    "base": Variant("base", "Base", steps=30, cfg=5.0, shift=6.0, draft_steps=10),
}

# ComfyUI allows float16 where the standard deviation of this norm's weight is below this. By all reports Turbo lies
# below it and Base above, which makes it the one visible difference between the two.
STATISTIC_KEY = "layers.{}.ffn_norm1.weight"
STATISTIC_LIMIT = 0.42


@dataclass(frozen=True)
class VariantGuess:
    """Which variant a file is; `source` is "scheduler", "metadata", "name", "weights", "user" or "default"."""

    name: str
    source: str
    detail: str = ""

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.name]

    def __str__(self) -> str:
        return f"{self.variant.title} ({self.detail or self.source})"


def detect_variant(
    *,
    scheduler: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    name: str = "",
    statistic: float | None = None,
) -> VariantGuess:
    """Tell Turbo from Base by the first of these that says something.

    scheduler   a scheduler_config.json (shift 3 is Turbo's, 6 is Base's)
    metadata    a safetensors file's metadata
    name        a file or folder name
    statistic   the standard deviation of the weight of `layers.{n_layers - 2}.ffn_norm1`
    """
    return (
        _from_scheduler(scheduler or {})
        or _from_metadata(metadata or {})
        or _from_name(name)
        or _from_statistic(statistic)
        or VariantGuess("turbo", "default", "assumed: nothing in the file or its name tells")
    )


def _from_scheduler(config: Mapping[str, Any]) -> VariantGuess | None:
    shift = config.get("shift")
    for variant in VARIANTS.values():
        if shift == variant.shift:
            return VariantGuess(variant.name, "scheduler", f"from its scheduler: shift {shift:g}")
    return None


def _from_metadata(metadata: Mapping[str, Any]) -> VariantGuess | None:
    own = str(metadata.get("zimage.variant", "")).lower()
    if own in VARIANTS:
        return VariantGuess(own, "metadata", "from its metadata")
    for key in ("modelspec.architecture", "modelspec.title", "ss_base_model_version", "general.name"):
        # Only a word that says which: trainers write the bare family name for both.
        name = _word_for_variant(str(metadata.get(key, "")))
        if name:
            return VariantGuess(name, "metadata", f"from its metadata: {key}")
    return None


def _from_name(name: str) -> VariantGuess | None:
    found = variant_in_name(name)
    return VariantGuess(found, "name", f"from its name: {name}") if found else None


def _from_statistic(statistic: float | None) -> VariantGuess | None:
    if statistic is None:
        return None
    sign, name = ("<", "turbo") if statistic < STATISTIC_LIMIT else (">=", "base")
    return VariantGuess(name, "weights", f"a guess from its weights: {statistic:.3f} {sign} {STATISTIC_LIMIT}")


def variant_in_name(name: str) -> str | None:
    """The variant that a file name speaks of, or None: "turbo", "base", or a bare `z_image`, which is Base."""
    stem = re.sub(r"\.(safetensors|gguf|sft)$", "", name.lower())
    formats = r"bf16|fp16|fp32|fp8|e4m3fn|e5m2|scaled|mixed|int8|convrot|nvfp4|mxfp8|q\d(_[\dksml])*"
    bare = re.fullmatch(rf"z[-_ ]?image([-_.]({formats}))*", stem)
    return _word_for_variant(name) or ("base" if bare else None)


def _word_for_variant(text: str) -> str | None:
    text = text.lower()
    if re.search(r"(?<![a-z])de[-_ ]?turbo", text):  # Turbo with its distillation undone: runs as Base does
        return "base"
    if "turbo" in text or re.search(r"(?<![a-z])zit(?![a-z])", text):
        return "turbo"
    is_base = re.search(r"(?<![a-z])(z[-_ ]?image[-_ ]?)?base(?![a-z])|(?<![a-z])zib(?![a-z])", text)
    return "base" if is_base else None


def notes(variant: Variant, cfg: float, has_negative: bool) -> list[str]:
    """What a user should know about the settings they chose. The settings are run as given either way."""
    found = []
    if variant.name == "turbo" and cfg != 1:
        found.append(
            f"Turbo was made for cfg 1; cfg {cfg:g} is run as set, at two forwards a step, and may over-saturate"
        )
    if has_negative and cfg == 1:
        found.append("the negative prompt has no effect at cfg 1 and is not evaluated")
    return found
