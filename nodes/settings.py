"""What a run will do: the widgets and the model resolved into numbers, and the words that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..zimage_core.variants import VariantGuess, notes

MODES = ("auto", "Turbo", "Base")


@dataclass(frozen=True)
class Guidance:
    """cfg in ComfyUI's units, and what the official pipeline does to it."""

    cfg: float
    normalization: float = 0.0
    truncation: float = 1.0


@dataclass(frozen=True)
class Shift:
    """The shift of a run and where it is from; `value` is None where another node brings a schedule of its own."""

    value: float | None
    source: str

    def __str__(self) -> str:
        return f"shift {self.value:g} ({self.source})" if self.value is not None else f"schedule {self.source}"


@dataclass(frozen=True)
class Run:
    """One run of the sampler, resolved."""

    mode: str
    variant: VariantGuess
    steps: int
    guidance: Guidance
    shift: Shift
    strength: float
    solver: str
    seed: int
    notes: tuple[str, ...]

    def summary(self, forwards: int) -> list[str]:
        """Two lines of facts, as many as a node shows at once, then each note.

        They read as sentences, since the browser's newer nodes run lines together.
        """
        cfg = self.guidance.cfg
        guided = [f"{self.steps} steps", f"cfg {cfg:g} (guidance {cfg - 1:g})"]
        if cfg != 1 and self.guidance.normalization:
            guided.append("normalised")
        if cfg != 1 and self.guidance.truncation < 1:
            guided.append(f"until {self.guidance.truncation:g}")
        stepped = [f"{self.shift}", self.solver, f"{forwards} forwards"]
        if self.strength < 1:
            stepped.insert(0, f"strength {self.strength:g}")
        facts = [f"{', '.join([str(self.variant), *guided])},", f"{', '.join(stepped)}."]
        return facts + [f"{note[0].upper()}{note[1:]}." for note in self.notes]

    def record(self, width: int, height: int, count: int, forwards: int) -> dict[str, Any]:
        """For a PNG, under the names that the command `zimage` uses too."""
        return {
            "width": width, "height": height, "count": count, "steps": self.steps, "cfg": self.guidance.cfg,
            "guidance": round(self.guidance.cfg - 1, 6), "cfg_normalization": self.guidance.normalization,
            "cfg_truncation": self.guidance.truncation, "shift": self.shift.value, "shift_source": self.shift.source,
            "strength": self.strength, "seed": self.seed, "solver": self.solver, "forwards": forwards,
            "variant": self.variant.name, "variant_source": self.variant.source, "variant_detail": self.variant.detail,
            "mode": self.mode, "notes": list(self.notes),
        }  # fmt: skip


def resolve(
    mode: Mapping[str, Any] | None, variant: VariantGuess, shift: Shift, *, seed: int, solver: str, strength: float,
    has_negative: bool, always_both: bool = False,
) -> Run:  # fmt: skip
    """`mode` is the dynamic combo's value: its key under "mode", and its widgets.

    `always_both` says that another node has the negative prediction made at cfg 1 too.
    Raises ValueError for what cannot be run; what is unusual for the variant is run as set, and noted.
    """
    if mode is None or "mode" not in mode:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; its own settings are mode.steps, mode.cfg, ...")
    steps = mode.get("steps", 0) or variant.variant.steps
    guidance = Guidance(
        cfg=float(mode.get("cfg", 0.0)) or variant.variant.cfg,
        normalization=float(mode.get("cfg_normalization", False)),
        truncation=float(mode.get("cfg_truncation", 1.0)),
    )
    if guidance.cfg < 1:
        raise ValueError(
            f"cfg is {guidance.cfg:g}: it must be at least 1, which turns guidance off "
            f"(the official guidance is cfg - 1), or 0 in mode auto for the model's own"
        )
    if guidance.cfg != 1 and not has_negative:
        raise ValueError(
            f"cfg {guidance.cfg:g} needs a negative prompt: connect a second CLIP Text Encode to negative "
            f"(it may be empty), or set cfg to 1"
        )
    found = notes(variant.variant, guidance.cfg, has_negative and not always_both)
    if mode["mode"] not in ("auto", variant.variant.title):
        found.append(f"mode {mode['mode']} on a {variant.variant.title} model: run as set")
    if shift.source == "from the model" and shift.value is not None and shift.value != variant.variant.shift:
        own = variant.variant.shift
        found.append(
            f"{variant.variant.title} was made for shift {own:g}, and this model comes with {shift.value:g}: "
            f"set shift to {own:g}, or load it with Load Z-Image Model"
        )
    return Run(mode["mode"], variant, steps, guidance, shift, strength, solver, seed, tuple(found))
