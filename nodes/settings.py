"""What a run will do: the widgets and the model resolved into numbers, and the words that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..zimage_core.sizes import LARGEST, OFFICIAL_SIDES
from ..zimage_core.variants import Variant, VariantGuess, notes
from .seeds import Seeds

MODES = ("auto", "Turbo", "Base")


@dataclass(frozen=True)
class Guidance:
    """cfg in ComfyUI's units, and what the official pipeline does to it. As asked for, cfg 0 is the model's own."""

    cfg: float
    normalization: float = 0.0
    truncation: float = 1.0

    def resolved(self, variant: Variant, has_negative: bool) -> Guidance:
        """Raises ValueError for what cannot be run."""
        cfg = self.cfg or variant.cfg
        if cfg < 1:
            raise ValueError(
                f"cfg is {cfg:g}: it must be at least 1, which turns guidance off "
                f"(the official guidance is cfg - 1), or 0 for the model's own"
            )
        if cfg != 1 and not has_negative:
            raise ValueError(
                f"cfg {cfg:g} needs a negative prompt: connect a second CLIP Text Encode to negative "
                f"(it may be empty), or set cfg to 1"
            )
        return replace(self, cfg=cfg)

    def words(self) -> list[str]:
        said = [f"cfg {self.cfg:g} (guidance {self.cfg - 1:g})"]
        if self.cfg != 1 and self.normalization:
            said.append("normalised")
        if self.cfg != 1 and self.truncation < 1:
            said.append(f"until {self.truncation:g}")
        return said


@dataclass(frozen=True)
class Shift:
    """The shift of a run and where it is from; `value` is None where another node brings a schedule of its own."""

    value: float | None
    source: str

    def __str__(self) -> str:
        return f"shift {self.value:g} ({self.source})" if self.value is not None else f"schedule {self.source}"


@dataclass(frozen=True)
class Run:
    """One run of the sampler, resolved. `full_steps` is what it would run if it were no draft."""

    mode: str
    variant: VariantGuess
    steps: int
    full_steps: int
    guidance: Guidance
    shift: Shift
    strength: float
    solver: str
    seeds: Seeds
    notes: tuple[str, ...]

    @property
    def draft(self) -> bool:
        return self.steps < self.full_steps

    def summary(self, forwards: int) -> list[str]:
        """Two lines of facts, as many as a node shows at once, then each note.

        They read as sentences, since the browser's newer nodes run lines together.
        """
        steps = ["draft", f"{self.steps} of {self.full_steps} steps"] if self.draft else [f"{self.steps} steps"]
        guided = [*steps, *self.guidance.words()]
        stepped = [f"{self.shift}", self.solver, f"{forwards} forwards"]
        if self.seeds.told and forwards:
            stepped.append(f"{self.seeds}" if self.seeds.alone else f"first noise of {self.seeds}")
        if self.strength < 1:
            stepped.insert(0, f"strength {self.strength:g}")
        facts = [f"{', '.join([str(self.variant), *guided])},", f"{', '.join(stepped)}."]
        return [*facts, *sentences(self.notes)]

    def with_notes(self, notes: Iterable[str]) -> Run:
        return replace(self, notes=(*self.notes, *notes))

    def record(self, width: int, height: int, count: int, forwards: int) -> dict[str, Any]:
        """For a PNG, under the names that the command `zimage` uses too."""
        return {
            "width": width, "height": height, "count": count, "steps": self.steps, "cfg": self.guidance.cfg,
            "guidance": round(self.guidance.cfg - 1, 6), "cfg_normalization": self.guidance.normalization,
            "cfg_truncation": self.guidance.truncation, "shift": self.shift.value, "shift_source": self.shift.source,
            "strength": self.strength, "seed": self.seeds.first, "seeds": self.seeds.values,
            "solver": self.solver, "forwards": forwards,
            "variant": self.variant.name, "variant_source": self.variant.source, "variant_detail": self.variant.detail,
            "mode": self.mode, "draft": self.draft, "notes": list(self.notes),
        }  # fmt: skip


def resolve(
    mode: Mapping[str, Any] | None, variant: VariantGuess, shift: Shift, *, seeds: Seeds, solver: str, strength: float,
    has_negative: bool, draft: bool = False, missed: bool = False,
) -> Run:  # fmt: skip
    """`mode` is the dynamic combo's value: its key under "mode", and its widgets.

    A draft runs no more steps than were asked for; where it would run as many, it is none.
    `missed` says that the user would miss the negative prompt where cfg 1 leaves it out.
    Raises ValueError for what cannot be run; what is unusual for the variant is run as set, and noted.
    """
    if mode is None or "mode" not in mode:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; its own settings are mode.steps, mode.cfg, ...")
    full = mode.get("steps", 0) or variant.variant.steps
    steps = min(full, variant.variant.draft_steps) if draft else full
    asked = Guidance(
        cfg=float(mode.get("cfg", 0.0)),
        normalization=float(mode.get("cfg_normalization", False)),
        truncation=float(mode.get("cfg_truncation", 1.0)),
    )
    guidance = asked.resolved(variant.variant, has_negative)
    found = notes(variant.variant, guidance.cfg, missed)
    if mode["mode"] not in ("auto", variant.variant.title):
        found.append(f"mode {mode['mode']} on a {variant.variant.title} model: run as set")
    if shift.source == "from the model" and shift.value is not None and shift.value != variant.variant.shift:
        own = variant.variant.shift
        found.append(
            f"{variant.variant.title} was made for shift {own:g}, and this model comes with {shift.value:g}: "
            f"set shift to {own:g}, or load it with Load Z-Image Model"
        )
    if seeds.told and strength > 0 and not seeds.alone:
        found.append(f"{solver} works on all pictures at once: alone, a picture comes out differently")
    return Run(mode["mode"], variant, steps, full, guidance, shift, strength, solver, seeds, tuple(found))


def sentences(notes: Iterable[str]) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in notes]


# What a model was trained for, by the width of its features: the sides of the smallest and the largest square, whose
# areas bound any aspect. The official range is that of the model's page; the demo knows 128x128 and 160x96.
DEMO_WIDTH, REAL_WIDTH = 128, 2560
_TRAINED = {REAL_WIDTH: OFFICIAL_SIDES, DEMO_WIDTH: (96, 176)}


def size_notes(width: int, height: int, features: int) -> list[str]:
    """A size far outside what the model was trained for is drawn as set, and noted."""
    least, largest = _TRAINED.get(features, (0, LARGEST))
    if least**2 <= width * height <= largest**2:
        return []
    return [
        f"{width}x{height} is outside what this model was trained for, {least}x{least} to {largest}x{largest} "
        f"in any aspect: the picture may fall apart or repeat itself"
    ]
