"""The page "Advice you will meet": what is exact in it, and that its two languages say the same."""

from __future__ import annotations

import re

import pytest
from oracles import ROOT

from zimage_core import sigmas

DOCS = ROOT / "js" / "docs"
PAGES = {"en": DOCS / "ZImageAdvice.md", "zh": DOCS / "ZImageAdvice" / "zh.md"}


def rows(language: str) -> list[str]:
    return [line for line in PAGES[language].read_text(encoding="utf-8").splitlines() if line.startswith("|")]


@pytest.mark.parametrize("language", PAGES)
def test_the_noise_levels_are_those_of_the_schedule(language: str) -> None:
    found = {int(m[1]): m[2] for row in rows(language) if (m := re.match(r"\| (\d+) \| (1, [\d., ]+) \|", row))}
    assert set(found) == {4, 8, 9, 12}
    for steps, levels in found.items():
        assert [float(level) for level in levels.split(",")] == pytest.approx(sigmas(steps, 3).tolist(), abs=5e-4)


@pytest.mark.parametrize("language", PAGES)
def test_the_steps_at_much_noise_are_those_of_the_schedule(language: str) -> None:
    found = [
        m.groups() for row in rows(language) if (m := re.match(r"\| (8|30) \D+ \| (\d+) \| (\d+) \| (\d+) \|", row))
    ]
    shifts = (1, 3, 6)
    counted = [(n, *(int((sigmas(n, shift) >= 0.8 - 1e-6).sum()) for shift in shifts)) for n in (8, 30)]
    assert [tuple(map(int, row)) for row in found] == counted


def test_both_languages_have_the_same_numbers() -> None:
    numbers = {language: [re.findall(r"[-+]?\d+(?:\.\d+)?", row) for row in rows(language)] for language in PAGES}
    assert numbers["en"] == numbers["zh"]
    assert len(numbers["en"]) > 60


def test_its_pictures_are_small() -> None:
    pictures = list((DOCS / "ZImageAdvice").glob("*.jpg"))
    assert len(pictures) == 7
    assert max(picture.stat().st_size for picture in pictures) < 100_000
