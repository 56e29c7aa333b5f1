"""The size helper: official sizes by class and aspect, as an empty LATENT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..zimage_core.sizes import LARGEST, MULTIPLE, SMALLEST, Size, check_size, sizes
from .host import files
from .host.sampling import empty_latent

# What saved graphs hold -> the class in `sizes`. Not bare numbers: the browser would sort those first.
CLASSES = {"1024 px": "1024", "1280 px": "1280", "1536 px": "1536", "720 px": "720"}
DEMO = {"demo": "demo"}
CUSTOM = "custom"


def label(size: Size) -> str:
    """What saved graphs hold, so its form stays as it is."""
    return f"{size.aspect} - {size.width}x{size.height}"


def _class(key: str, group: str) -> io.DynamicCombo.Option:
    aspect = io.Combo.Input(
        "aspect", options=[label(size) for size in sizes(group)], tooltip="Width to height, and the size in pixels."
    )
    return io.DynamicCombo.Option(key, [aspect])


def _custom() -> io.DynamicCombo.Option:
    sides = [
        io.Int.Input(
            side,
            default=1024,
            min=SMALLEST,
            max=LARGEST,
            step=MULTIPLE,
            tooltip=f"Pixels, a multiple of {MULTIPLE}.",
        )
        for side in ("width", "height")
    ]
    return io.DynamicCombo.Option(CUSTOM, sides)


def _options() -> list[io.DynamicCombo.Option]:
    """The first one is the default: who has no Z-Image file yet draws with the demo, at the demo's sizes."""
    classes = CLASSES | DEMO if files.has_models() else DEMO | CLASSES
    return [*(_class(key, group) for key, group in classes.items()), _custom()]


def resolve(size: Mapping[str, Any] | None) -> tuple[int, int]:
    """Width and height behind the dynamic combo's value; ValueError for a size that cannot be drawn."""
    if size is None or "size" not in size:
        raise ValueError(f"size must be one of {', '.join([*CLASSES, *DEMO, CUSTOM])}")
    if size["size"] == CUSTOM:
        check_size(size["width"], size["height"])
        return size["width"], size["height"]
    group = (CLASSES | DEMO)[size["size"]]
    found = {label(candidate): candidate for candidate in sizes(group)}
    if size["aspect"] not in found:
        raise ValueError(f"class {size['size']} has no size {size['aspect']!r}; it has {', '.join(found)}")
    return found[size["aspect"]].width, found[size["aspect"]].height


class LatentSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageLatentSize",
            display_name="Z-Image Empty Latent",
            category="Z-Image",
            description="An empty latent in one of the sizes that Z-Image was made for, or in your own.",
            search_aliases=["z-image", "zimage", "empty latent image", "EmptySD3Latent", "resolution", "aspect ratio"],
            inputs=[
                io.DynamicCombo.Input(
                    "size",
                    options=_options(),
                    tooltip="The side of the class's square in pixels. demo is for the demo model, which draws small.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many pictures at once."),
            ],
            outputs=[io.Latent.Output(), io.Int.Output(display_name="width"), io.Int.Output(display_name="height")],
        )

    @classmethod
    def execute(cls, size: dict[str, Any] | None = None, batch_size: int = 1) -> io.NodeOutput:
        width, height = resolve(size)
        return io.NodeOutput(empty_latent(width, height, batch_size), width, height)
