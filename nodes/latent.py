"""The size helper: official sizes by class and aspect, any other size, or the fit to a picture, as an empty LATENT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..zimage_core.sizes import LARGEST, MULTIPLE, SMALLEST, Size, sizes
from .host import files
from .host.sampling import empty_latent
from .picture_size import Chosen, custom, fitted, listed, show

# What saved graphs hold -> the class in `sizes`. Not bare numbers: the browser would sort those first.
CLASSES = {"1024 px": "1024", "1280 px": "1280", "1536 px": "1536", "720 px": "720"}
DEMO = {"demo": "demo"}
CUSTOM, FIT = "custom", "fit image"
ANY = "any"


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
            tooltip=f"Pixels. Anything is taken to the nearest multiple of {MULTIPLE}.",
        )
        for side in ("width", "height")
    ]
    return io.DynamicCombo.Option(CUSTOM, sides)


def _fit() -> io.DynamicCombo.Option:
    image = io.Image.Input("image", tooltip="The picture whose shape the new one takes. It is only measured.")
    group = io.Combo.Input(
        "class", options=[ANY, *CLASSES, *DEMO], tooltip="The class to stay in; any takes the nearest size of all."
    )
    return io.DynamicCombo.Option(FIT, [image, group])


def _options() -> list[io.DynamicCombo.Option]:
    """The first one is the default: who has no Z-Image file yet draws with the demo, at the demo's sizes."""
    classes = CLASSES | DEMO if files.has_models() else DEMO | CLASSES
    return [*(_class(key, group) for key, group in classes.items()), _custom(), _fit()]


def resolve(size: Mapping[str, Any] | None, swap: bool = False) -> Chosen:
    """The size behind the dynamic combo's value; ValueError for one that cannot be drawn."""
    groups = CLASSES | DEMO
    if size is None or size.get("size") not in (*groups, CUSTOM, FIT):
        raise ValueError(f"size must be one of {', '.join([*groups, CUSTOM, FIT])}")
    if size["size"] == CUSTOM:
        return custom(size["width"], size["height"], swap)
    if size["size"] == FIT:
        height, width = size["image"].shape[1:3]
        return fitted(width, height, groups.get(size["class"]), swap)
    found = {label(candidate): candidate for candidate in sizes(groups[size["size"]])}
    if size["aspect"] not in found:
        raise ValueError(f"class {size['size']} has no size {size['aspect']!r}; it has {', '.join(found)}")
    return listed(found[size["aspect"]], swap)


class LatentSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageLatentSize",
            display_name="Z-Image Empty Latent",
            category="Z-Image",
            description="An empty latent in one of the sizes that Z-Image was made for, in your own, or to fit a "
            "picture. It says what the size costs.",
            search_aliases=[
                "z-image", "zimage", "empty latent image", "EmptySD3Latent", "resolution", "aspect ratio", "size",
                "megapixels", "portrait", "landscape", "fit image",
            ],
            inputs=[
                io.DynamicCombo.Input(
                    "size",
                    options=_options(),
                    tooltip="The side of the class's square in pixels. demo is for the demo model, which draws small; "
                    "custom is any size, and fit image the official size nearest to a picture.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many pictures at once."),
                io.Boolean.Input(
                    "swap",
                    default=False,
                    optional=True,
                    tooltip="Portrait for landscape, and the other way round.",
                ),
            ],
            outputs=[io.Latent.Output(), io.Int.Output(display_name="width"), io.Int.Output(display_name="height")],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, size: dict[str, Any] | None = None, batch_size: int = 1, swap: bool = False) -> io.NodeOutput:
        chosen = resolve(size, swap)
        width, height = chosen.size.width, chosen.size.height
        return io.NodeOutput(empty_latent(width, height, batch_size), width, height, ui=show(chosen, batch_size))
