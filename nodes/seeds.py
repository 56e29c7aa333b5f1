"""The seeds of a batch: which picture has which, how they are said, and how a user names some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from ..zimage_core.sampling import MAX_SEED

# Our key in a LATENT. Nodes that take a part of a batch copy it as it is, and list the pictures in "batch_index".
KEY = "zimage_seeds"


@dataclass(frozen=True)
class Seeds:
    """The seeds of a batch: picture i of a run has `first + indices[i]`.

    `alone` says whether each draws the same picture in a batch of its own.
    """

    first: int
    indices: tuple[int, ...]
    alone: bool = True

    @property
    def values(self) -> list[int]:
        """Past the largest seed comes 0."""
        return [(self.first + index) % (MAX_SEED + 1) for index in self.indices]

    @property
    def told(self) -> bool:
        """Whether they tell more than the seed of the run."""
        return self.values != [self.first]

    def __str__(self) -> str:
        """ "seed 7", "seeds 7 to 10", "seeds 7, 9 and 12 to 14"."""
        values = self.values
        return f"seed{'s' if len(values) > 1 else ''} {listed(values)}"


def listed(values: Sequence[int]) -> str:
    """Numbers as people list them, three and more in a row as a range."""
    runs = [[v for _, v in run] for _, run in groupby(enumerate(values), lambda pair: pair[1] - pair[0])]
    parts = [
        part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(value) for value in run])
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def seeds_of(latent: Mapping[str, Any]) -> Seeds | None:
    """Those of the pictures that a LATENT holds now, if it knows them: it may be a part of the batch that was drawn."""
    drawn, count = latent.get(KEY), len(latent["samples"])
    if drawn is None or len(drawn.indices) == count:
        return drawn
    kept = tuple(latent.get("batch_index") or ())
    known = len(kept) == count == len(set(kept)) and set(kept) <= set(drawn.indices)
    return replace(drawn, indices=kept) if known else None


def checked(latent: Mapping[str, Any], images: int) -> Seeds:
    """The seeds of a LATENT with as many images beside it. Raises ValueError, with what to connect."""
    found, count = seeds_of(latent), len(latent["samples"])
    if found is None:
        fault = "was repeated or joined after it was drawn" if KEY in latent else "does not come from Z-Image Sampler"
        raise ValueError(
            f"the latent {fault}, so the seeds of its pictures are not known: connect the LATENT of Z-Image Sampler "
            f"itself, and the IMAGE decoded from it"
        )
    if count != images:
        raise ValueError(f"latent has {count} pictures and images has {images}: connect the IMAGE decoded from latent")
    return found


def part_of(latent: Mapping[str, Any], seeds: Seeds, places: Sequence[int]) -> dict[str, Any]:
    """The pictures at these places of a LATENT. Each keeps its index, and so its seed, its noise and its prompt."""
    kept = replace(seeds, indices=tuple(seeds.indices[place] for place in places))
    part = {"samples": latent["samples"][list(places)], "batch_index": list(kept.indices), KEY: kept}
    mask = latent.get("noise_mask")
    if mask is not None and len(mask) > 1:
        part["noise_mask"] = mask[[place % len(mask) for place in places]]
    return {**latent, **part}


def picked(text: str, there: Sequence[int]) -> list[int]:
    """The positions in `there` of the seeds that `text` names ("3, 5-7"), in the order of `there`; all, if it is empty.

    Raises ValueError for what is not a seed, and for seeds that are not there.
    """
    plain = re.sub(r"\s*([-–—~～至到]|\bto\b)\s*", "-", re.sub(r"\b(seeds?|and)\b|和", " ", text))
    parts = [part for part in re.split(r"[,，、;；\s]+", plain) if part]
    wanted = [seed for part in parts for seed in _named(part, text, there)]
    missing = [seed for seed in wanted if seed not in there]
    if missing:
        raise ValueError(f"there is no picture of seed {missing[0]}: this batch has {listed(there)}")
    return [i for i, seed in enumerate(there) if not parts or seed in wanted]


def _named(part: str, text: str, there: Iterable[int]) -> list[int]:
    """One seed; or a range, whose ends must be there, since it may be as long as there are seeds."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if not match:
        raise ValueError(f"seeds {text!r} is not understood: write numbers and ranges, such as 3, 5-7")
    ends = sorted(int(end) for end in match.groups() if end)
    return [*ends, *(seed for seed in there if ends[0] < seed < ends[-1])]
