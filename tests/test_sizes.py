"""The size tables against the official lists, and rounding that never leaves multiples of 16."""

from __future__ import annotations

import pytest

from zimage_core.sizes import NAMES, OFFICIAL, check_size, nearest_size, parse_size, round_size, size, sizes

OFFICIAL_33 = """
1024x1024 1152x896 896x1152 1152x864 864x1152 1248x832 832x1248 1280x720 720x1280 1344x576 576x1344
1280x1280 1440x1120 1120x1440 1472x1104 1104x1472 1536x1024 1024x1536 1536x864 864x1536 1680x720 720x1680
1536x1536 1728x1344 1344x1728 1728x1296 1296x1728 1872x1248 1248x1872 2048x1152 1152x2048 2016x864 864x2016
"""
OFFICIAL_720 = "720x720 896x512 512x896 832x544 544x832 800x576 576x800"


def test_the_official_sizes():
    assert {str(s) for group in ("1024", "1280", "1536") for s in sizes(group)} == set(OFFICIAL_33.split())
    assert {str(s) for s in sizes("720")} == set(OFFICIAL_720.split())
    assert len(OFFICIAL) == 33 + 7


def test_every_listed_size_is_legal():
    for s in OFFICIAL + sizes("demo"):
        check_size(s.width, s.height)
    for width, height in NAMES.values():
        check_size(width, height)


def test_ten_official_sizes_are_not_multiples_of_32():
    big = [s for s in OFFICIAL if s.group != "720"]
    assert sum(s.width % 32 != 0 or s.height % 32 != 0 for s in big) == 10


def test_by_class_and_aspect():
    assert str(size("1280", "16:9")) == "1536x864"
    assert str(size("1024", "9:16")) == "720x1280"
    with pytest.raises(ValueError, match=r"1024.*5:4"):
        size("1024", "5:4")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1280x720", "1280x720"),
        (" 96X160 ", "96x160"),
        ("square_hd", "1024x1024"),
        ("landscape_4_3", "1024x768"),
        ("portrait_16_9", "576x1024"),
        ("1536 21:9", "2016x864"),
    ],
)
def test_parse(text, expected):
    assert str(parse_size(text)) == expected


@pytest.mark.parametrize("text", ["1000x1000", "0x64", "16", "huge", "1024x", "1024 1:7", "99999x64"])
def test_what_cannot_be_drawn_is_refused_with_its_value(text):
    with pytest.raises(ValueError) as error:
        parse_size(text)
    assert text.split()[0].split("x")[0] in str(error.value)


@pytest.mark.parametrize(
    "width, height, expected", [(1000, 1000, "1008x1008"), (904, 720, "912x720"), (1, 9999, "16x8192")]
)
def test_any_size_rounds_to_a_legal_one(width, height, expected):
    rounded = round_size(width, height)
    assert str(rounded) == expected
    check_size(rounded.width, rounded.height)


def test_the_nearest_official_size_to_a_picture():
    fit = nearest_size(1920, 1080)
    assert (str(fit.size), fit.crop_width, fit.crop_height) == ("2048x1152", 0, 0)
    assert str(nearest_size(1920, 1080, "1024").size) == "1280x720"
    assert str(nearest_size(3024, 4032).size) == "1296x1728"


def test_what_would_be_cropped():
    fit = nearest_size(1000, 800, "1024")  # 5:4 lies nearest to 9:7, which is wider
    assert str(fit.size) == "1152x896"
    assert fit.scale == pytest.approx(1.152)
    assert (fit.crop_width, fit.crop_height) == (0, round(800 * 1.152) - 896)
