"""A checkpoint in another number format or another key layout, as one file, written in pieces from a `plan.Plan`.

However large the file, no more than one tensor is held at a time, and no more than a piece of it unpacked.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .encode import copy, encode
from .load import read_packed
from .plan import Plan, Step
from .writers import new_file, temporary_name


@dataclass(frozen=True)
class Result:
    """A tensor that was written. `error` is ||new - old|| / ||old||; None where the stored numbers were kept."""

    step: Step
    error: float | None


def check_place(plan: Plan, path: Path, force: bool = False) -> None:
    """Raise ValueError where `path` is no place for the new file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a {plan.target.suffix} file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.exists():
        files = {tensor.file for tensor in plan.info.checkpoint.tensors.values()}
        if any(path.samefile(file) for file in files):
            raise ValueError(f"{path} is the source itself, which is never changed: name another file")
        if not force:
            raise ValueError(f"{path} exists: name another file, or replace it with --force")


def write(plan: Plan, path: Path, on_tensor: Callable[[int], None] = lambda done: None) -> list[Result]:
    """Write the file, whole or not at all; `on_tensor` hears how many tensors are done.

    Raises CheckpointError where the source is damaged or its numbers do not fit, OSError where writing fails.
    """
    results: list[Result] = []
    _require_room(plan, path)
    with new_file(path, plan.entries, plan.metadata) as put:
        for key, constant in plan.constants.items():
            put(key, [constant])
        for step in plan.steps:
            # A reader for each tensor: what the last one has mapped is let go.
            parts = read_packed(step.source, plan.info.checkpoint.reader())
            if step.copied:
                copy(parts, step.shares, put)
                results.append(Result(step, None))
            else:
                lost, total = encode(parts, step.shares, step.format, step.scaled, put)
                results.append(Result(step, _error(step, lost, total, plan.info.path.name)))
            on_tensor(len(results))
    return results


def _error(step: Step, lost: float, total: float, file: str) -> float:
    if not math.isfinite(total):
        raise CheckpointError(f"{file} holds numbers in {step.name} that are not finite: download it again")
    if not math.isfinite(lost):
        raise CheckpointError(f"{file} holds numbers in {step.name} that {step.title} cannot: use --to bf16")
    return math.sqrt(lost / total) if total else 0.0


def _require_room(plan: Plan, path: Path) -> None:
    left = temporary_name(path)
    free = shutil.disk_usage(path.parent).free + (left.stat().st_size if left.exists() else 0)
    if plan.n_bytes > free:
        need, have = (f"{number / 1e6:,.0f} MB" for number in (plan.n_bytes, free))
        raise OSError(errno.ENOSPC, f"{need} are needed, {have} are free", str(path))
