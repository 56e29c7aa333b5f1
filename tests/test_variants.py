"""Turbo from Base: which evidence wins, and what is said about unusual settings."""

from __future__ import annotations

import pytest

from zimage_core.variants import VARIANTS, detect_variant, notes, variant_in_name


def test_the_table():
    rows = {name: (v.steps, v.cfg, v.shift, v.draft_steps) for name, v in VARIANTS.items()}
    assert rows == {"turbo": (8, 1.0, 3.0, 4), "base": (30, 5.0, 6.0, 10)}


EVIDENCE = {
    "scheduler": {"shift": 6.0},
    "metadata": {"zimage.variant": "turbo"},
    "name": "z_image_base_bf16.safetensors",
    "statistic": 0.3,
}
SAYS = {"scheduler": "base", "metadata": "turbo", "name": "base", "statistic": "turbo"}
SOURCE = {"scheduler": "scheduler", "metadata": "metadata", "name": "name", "statistic": "weights"}


@pytest.mark.parametrize("first", range(4))
def test_the_first_evidence_wins(first):
    left = dict(list(EVIDENCE.items())[first:])
    guess = detect_variant(**left)
    kind = next(iter(left))
    assert (guess.name, guess.source) == (SAYS[kind], SOURCE[kind])


def test_a_guess_says_that_it_is_one_and_its_value():
    turbo, base = detect_variant(statistic=0.3172), detect_variant(statistic=0.55)
    assert turbo.name == "turbo" and "guess" in str(turbo) and "0.317" in str(turbo)
    assert base.name == "base" and "0.55" in str(base)


def test_nothing_told_is_turbo_and_said_so():
    guess = detect_variant(name="model.safetensors")
    assert (guess.name, guess.source) == ("turbo", "default")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("z_image_turbo_bf16.safetensors", "turbo"),
        ("Z-Image-Turbo", "turbo"),
        ("zImageTurbo_v10.safetensors", "turbo"),
        ("ZIT_merge_v3.safetensors", "turbo"),
        ("z_image_bf16.safetensors", "base"),
        ("Z-Image", "base"),
        ("z-image-base-fp8.safetensors", "base"),
        ("zImageBase_v1.safetensors", "base"),
        ("z_imageturbo_v2-Q4_K_M.gguf", "turbo"),
        ("z_image-Q5_K_S.gguf", "base"),
        ("Z-Image-De-Turbo_v1.safetensors", "base"),
        ("zero_to_hero.safetensors", None),
        ("moodyMix_v4.safetensors", None),
        ("database_dump.safetensors", None),
    ],
)
def test_names(name, expected):
    assert variant_in_name(name) == expected


def test_unusual_settings_are_noted_and_usual_ones_are_not():
    turbo, base = VARIANTS["turbo"], VARIANTS["base"]
    assert "cfg 4" in notes(turbo, 4.0, False)[0]
    assert "negative" in notes(turbo, 1.0, True)[0]
    assert notes(turbo, 1.0, False) == notes(base, 5.0, True) == []


@pytest.mark.parametrize("name", ["zimage_nude_turbo_v2", "anime_upgrade-turbo", "wide_turbo"])
def test_a_word_that_ends_in_de_does_not_undo_turbo(name):
    assert variant_in_name(name) == "turbo"
