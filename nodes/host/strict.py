"""The host loads weights loosely and only logs what is missing; half a model is worse than an error."""

from __future__ import annotations

from collections.abc import Collection

from ...zimage_core.checkpoint.detect import TITLES, CheckpointInfo
from ...zimage_core.errors import CheckpointError


def check_names(info: CheckpointInfo, expected: Collection[str], found: Collection[str]) -> None:
    """Raise CheckpointError with the first few names unless `found` is exactly what is `expected`."""
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
    }
    parts = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in problems.items() if names]
    if parts:
        raise CheckpointError(f"{info.path.name} is not the whole of {TITLES[info.kind]}: {'; '.join(parts)}")
