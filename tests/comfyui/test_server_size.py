"""Z-Image Empty Latent through a real server: every way to choose a size, and what the node says of it."""

from __future__ import annotations

from typing import Any

import pytest
from comfyui.graphs import node, succeed
from comfyui.server import Result, Server


def latent(server: Server, batch: int = 1, picture: tuple[int, int] = (64, 64), **inputs: Any) -> Result:
    """The node's size as the host's own nodes find it: a picture made of the latent's width and height."""
    given = {name.replace("size_", "size."): value for name, value in inputs.items()}
    prompt = {
        "size": node("ZImageLatentSize", **given, batch_size=batch),
        "picture": node("EmptyImage", width=picture[0], height=picture[1], batch_size=1, color=0),
        "made": node("EmptyImage", width=["size", 1], height=["size", 2], batch_size=1, color=0),
        "save": node("SaveLatent", samples=["size", 0], filename_prefix="sized"),
        "preview": node("PreviewImage", images=["made", 0]),
    }
    return server.run(prompt)


def said(result: Result) -> list[str]:
    return succeed(result).outputs["size"]["text"][0].split("\n")


@pytest.mark.parametrize(
    "swap, expected", [({}, "1248x832"), ({"swap": True}, "832x1248"), ({"swap": False}, "1248x832")]
)
def test_the_size_and_its_costs(server: Server, swap: dict[str, bool], expected: str) -> None:
    """Prompts that were saved before `swap` came run without it."""
    result = latent(server, size="1024 px", size_aspect="3:2 - 1248x832", batch=2, **swap)
    assert said(result) == [
        f"{expected}, 1.04 megapixels, 4056 image tokens, 2 pictures.",
        "About 890 MB to draw (1.8 GB above cfg 1) and 1.6 GB to decode, beside the weights.",
    ]
    assert "size" not in result.texts  # the panel in the browser shows it
    assert f"Z-Image Empty Latent: {expected}," in server.log_text()


def test_a_free_size_is_snapped(server: Server) -> None:
    result = latent(server, size="custom", size_width=1000, size_height=1024, swap=True)
    assert said(result)[0].startswith("1024x1008, 1.03 megapixels, 4032 image tokens.")
    assert said(result)[2:] == ["1024x1000 was snapped to 1024x1008: sides are multiples of 16."]
    assert said(latent(server, size="custom", size_width=1024, size_height=1008))[2:] == []


@pytest.mark.parametrize(
    "width, height, warned", [(512, 512, False), (496, 512, True), (4096, 1024, False), (4112, 1024, True)]
)
def test_a_size_beyond_the_official_range_is_drawn_with_a_warning(
    server: Server, width: int, height: int, warned: bool
) -> None:
    notes = said(latent(server, size="custom", size_width=width, size_height=height))[2:]
    assert [note.startswith(f"{width}x{height} is beyond the official range") for note in notes] == [True] * warned


def test_the_demos_sizes_are_its_own(server: Server) -> None:
    assert len(said(latent(server, size="demo", size_aspect="1:1 - 128x128"))) == 2


@pytest.mark.parametrize(
    "picture, choice, words",
    [
        ((3000, 2000), {"size_class": "1024 px"}, "3000x2000 -> 1248x832: scaled by 0.416, nothing cropped."),
        (
            (3000, 2000),
            {"size_class": "1024 px", "swap": True},
            "3000x2000 -> 832x1248: scaled by 0.624, 1040 px of the width cropped.",
        ),
        ((1000, 800), {"size_class": "1024 px"}, "1000x800 -> 1152x896: scaled by 1.152, 26 px of the height cropped."),
        ((600, 400), {"size_class": "any"}, "600x400 -> 1248x832: scaled by 2.08, nothing cropped."),
        ((300, 200), {"size_class": "demo"}, "300x200 -> 160x96: scaled by 0.533, 11 px of the height cropped."),
    ],
)
def test_the_fit_to_a_picture(server: Server, picture: tuple[int, int], choice: dict[str, Any], words: str) -> None:
    result = latent(server, size="fit image", size_image=["picture", 0], picture=picture, **choice)
    assert said(result)[2:] == [words]
    facts = result.outputs["size"]["zimage_size"][0]
    assert facts["picture"] == list(picture) and words.startswith(f"{picture[0]}x{picture[1]} -> {facts['width']}x")


def test_a_fit_needs_its_picture(server: Server) -> None:
    assert latent(server, size="fit image", size_class="any").status == "refused"
