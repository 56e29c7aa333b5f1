"""Where dense weights lie while the model runs; `inside_memory.py` has the code. None of it has a GPU."""

from __future__ import annotations

from typing import Any

EXACT = 1e-5  # relative L2, float32
ROUNDING = 5e-3  # of patched weights to bfloat16, which patches at use are spared


def test_partial_loads(found: dict[str, Any]) -> None:
    for dtype, result in found.items():
        assert result["effect"] > 0.1
        assert max(result["differences"]) < (EXACT if dtype == "float32" else ROUNDING), dtype
        # Six tensors are patched: at use while a layer is offloaded, and for good once it is loaded.
        assert result["full"] == result["left"] == 0
        assert result["functions"][:2] == [6, 0] and result["functions"][-1] == 6, dtype
        assert 0 < result["functions"][2] < 6, dtype
        assert result["undone"], dtype
        assert result["memory"][0] == 0
    sizes = [result["memory"][1] for result in found.values()]
    assert sizes[0] > 1.9 * sizes[1]


def test_vram_states(found: dict[str, Any]) -> None:
    assert found.pop("effect") > 0.1
    for name, (difference, at_use, plain) in found.items():
        assert difference < EXACT and plain < EXACT, name
        assert at_use == (6 if name == "NO_VRAM" else 0), name


def test_dynamic_patcher(found: dict[str, Any]) -> None:
    assert found["dynamic"] == [True, "OnCPU"]
    assert found["drawn"] < EXACT
    assert found["effect"] > 0.1
    assert found["streamed"] == 6  # five weights and a bias
    assert found["staged"] > 40 and found["small"] > 40  # layers that stream, and those that are loaded by force
    assert found["undone"]
    assert found["delegate"] == [False, 0]
