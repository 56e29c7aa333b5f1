"""The size tables against the official lists, and rounding that never leaves multiples of 16."""

from __future__ import annotations

import pytest
import torch
from peak import peak

from zimage_core.model import S3DiT, S3DiTConfig
from zimage_core.sizes import (
    NAMES,
    OFFICIAL,
    Size,
    check_size,
    fit,
    memory,
    nearest_size,
    parse_size,
    round_size,
    size,
    sizes,
    snap_size,
)

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


@pytest.mark.parametrize("asked, expected", [((1000, 1024), "1008x1024"), ((16, 8192), "16x8192")])
def test_a_free_size_is_snapped(asked, expected):
    assert str(snap_size(*asked)) == expected


@pytest.mark.parametrize("asked", [(9000, 1024), (1024, 8)])
def test_a_size_beyond_all_bounds_is_not_snapped(asked):
    with pytest.raises(ValueError, match=f"{asked[0]}x{asked[1]} cannot be drawn.*from 16 to 8192"):
        snap_size(*asked)


def test_the_official_range_is_one_of_areas():
    assert all(s.in_official_range for s in OFFICIAL)
    assert not any(s.in_official_range for s in sizes("demo"))
    assert Size(256, 1024).in_official_range and Size(4096, 1024).in_official_range
    assert not Size(512, 496).in_official_range and not Size(2048, 2064).in_official_range


def test_swapped():
    for s in OFFICIAL:
        assert s.swapped() in OFFICIAL and s.swapped().swapped() == s


def test_the_fit_of_a_given_size():
    turned = fit(size("1024", "2:3"), 3000, 2000)  # a landscape picture, cropped to a portrait
    assert (turned.crop_width, turned.crop_height) == (1872 - 832, 0)
    assert fit(size("1024", "3:2"), 3000, 2000) == nearest_size(3000, 2000, "1024")


@pytest.mark.parametrize("width, height, batch", [(512, 512, 1), (1248, 832, 2), (2048, 1152, 1)])
def test_memory_for_drawing(width, height, batch):
    """Against the tensors alive at the peak of the real model, cut to two layers: they run one after the other."""
    model = S3DiT(S3DiTConfig(n_layers=2), device="meta", dtype=torch.bfloat16)
    captions = [torch.empty(128, 2560, device="meta", dtype=torch.bfloat16)] * batch
    latents = torch.empty(batch, 16, height // 8, width // 8, device="meta", dtype=torch.bfloat16)
    counted = peak(model, lambda: model(latents, 0.5, captions))
    assert memory(width, height, batch).drawing == pytest.approx(counted, rel=0.02)


def test_memory_for_decoding():
    """Against the tensors alive at the peak of the VAE, from its published configuration."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=16,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            use_quant_conv=False, use_post_quant_conv=False,
        ).bfloat16()  # fmt: skip
    latents = torch.empty(1, 16, 832 // 8, 1248 // 8, device="meta", dtype=torch.bfloat16)
    counted = peak(vae.decoder, lambda: vae.decode(latents))
    assert memory(1248, 832, batch=3).decoding == pytest.approx(counted, rel=0.01)
