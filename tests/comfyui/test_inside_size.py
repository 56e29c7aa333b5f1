"""What a size needs in memory, against the host's own estimates; `inside_size.py` has the code."""

from __future__ import annotations


def test_memory(found: dict[str, list[float]]) -> None:
    """The host sets a constant multiple aside, for what its libraries need; the help page says so."""
    assert len(found) == 40
    for size, (drawing, decoding) in found.items():
        assert 2.0 < drawing < 2.25, size
        assert abs(decoding - 2178 / 768) < 1e-3, size
