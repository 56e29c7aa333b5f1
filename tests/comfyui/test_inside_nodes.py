"""The host's own nodes on our MODEL, against the same on the host's module; `inside_nodes.py` has the code."""

from __future__ import annotations

from typing import Any

EXACT = 1e-5  # relative L2, float32
TOLERANCE = 1e-4  # over a whole trajectory of another implementation


def test_host_nodes(found: dict[str, Any]) -> None:
    """Nodes that change a MODEL do the same to ours as to the host's, down to which steps a cache leaves out."""
    assert len(found) == 7
    for name, (difference, effect, mine, hosts) in found.items():
        assert difference < TOLERANCE, name
        assert (effect > 0.01) == (name != "EasyCache 0"), name
        assert mine[1] == hosts[1], name
        assert (mine[0] < hosts[0]) == (name == "EasyCache, lengths"), (
            name
        )  # both in one forward, where the host has two
    full = found["EasyCache 0"][2]
    assert full == [5, 10]
    for name in ("EasyCache", "LazyCache", "EasyCache, lengths"):
        assert found[name][2][0] < full[0], name


def test_compiled_model(found: dict[str, Any]) -> None:
    """By aot_eager: one graph for the whole model. (inductor, tried by hand: one graph, a difference of 4e-7.)"""
    assert found["difference"] < EXACT
    assert found["graphs"] == 1


def test_host_conditions(found: dict[str, Any]) -> None:
    assert found.pop("kept outside the mask") < EXACT
    assert len(found) == 14
    for name, (difference, effect) in found.items():
        assert difference < TOLERANCE, name
        assert effect > 0.01, name


def test_lora_nodes(found: dict[str, Any]) -> None:
    """Our MODEL and the host's, both samplers, as a node and as a hook: the same as weights that were changed."""
    assert list(found) == ["diffusers", "canonical"]
    for layout, results in found.items():
        assert results.pop("effect") > 0.02, layout
        assert results.pop("effect of the schedule") > 0.005, layout
        assert len(results) == 5
        for name, difference in results.items():
            assert difference < TOLERANCE, (layout, name)


def test_skip_layers(found: dict[str, Any]) -> None:
    """On the host's own Z-Image these nodes do nothing, and say nothing."""
    assert found["formula"] < EXACT
    assert found["formula, our sampler"] < EXACT
    assert found["the host's own"] == 0
    assert found["effect"] > 0.05 and found["simple"] > 0.05
    assert found["forwards"] == [[5, 10], [10, 15]]
