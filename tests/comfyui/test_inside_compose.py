"""Conditions that run together, and our MODEL with the host's nodes; `inside_compose.py` has the code."""

from __future__ import annotations

from typing import Any

EXACT = 1e-5  # relative L2, float32


def test_joint(found: dict[str, Any]) -> None:
    """One forward of both for each of the three steps, also where patches look on, and none changes the picture."""
    kept, (short, long) = found.pop("kept"), found.pop("tokens")
    assert kept == [True, True, False, False]
    assert 16 < short < 24 and 96 < long < 128
    assert len(found) == 8
    for name, result in found.items():
        assert result["difference"] < EXACT, name
        assert result["forwards"] == [[3, 12], [6, 12]], name
        assert (result["effect"] > 0.1) == ("plain" not in name), name
