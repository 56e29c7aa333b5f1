"""What a size needs in memory, and two models compared; `inside_size.py` has the code."""

from __future__ import annotations

from typing import Any


def test_memory(found: dict[str, list[float]]) -> None:
    """The host sets a constant multiple aside, for what its libraries need; the help page says so."""
    assert len(found) == 40
    for size, (drawing, decoding) in found.items():
        assert 2.0 < drawing < 2.25, size
        assert abs(decoding - 2178 / 768) < 1e-3, size


def test_compare(found: dict[str, Any]) -> None:
    """Each side is what Z-Image Sampler alone draws; a patch changes its own side."""
    assert found["same"] == 0 and found["lora"] > 0.01
    assert max(found["singles"]) < 1e-5
    assert found["left"] == 0 and found["right"] == 0 and found["gap"] == [0.5]
    assert found["shapes"] == [[2, 128, 258, 3], [2, 128, 128, 3], [2, 128, 128, 3]]
    turbo, base = "Turbo, 8 steps, cfg 1, shift 3", "Base, 30 steps, cfg 5, shift 6"
    assert found["same words"][:2] == [f"a: {turbo}.", f"b: {turbo}."]
    assert found["lora words"][:2] == [f"a: {turbo}.", f"b: {turbo}, 1 weight patched."]
    assert found["both words"] == [
        f"a: {turbo}.",
        f"b: {base}.",
        "Both euler, seeds 5 and 6, 8 and 60 forwards; a is Turbo (from its metadata), b is Base (from its metadata).",
    ]
    assert "cfg 5 needs a negative prompt" in found["no negative"]
    assert "use Load Z-Image VAE" in found["no vae"]
