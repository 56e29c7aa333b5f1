"""Some pictures of a batch, by their seeds: what to go on with after looking at all of them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .labels import labelled
from .seeds import checked, part_of, picked


class PickSeeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImagePickSeeds",
            display_name="Z-Image Pick Seeds",
            category="Z-Image",
            description="Shows a batch with the seed under each picture, and goes on with the seeds you pick.",
            search_aliases=["z-image", "zimage", "pick", "choose", "select from batch", "seed picker",
                            "LatentFromBatch", "ImageFromBatch", "refine", "explore"],
            inputs=[
                io.Latent.Input("latent", tooltip="A batch from Z-Image Sampler, which knows its seeds."),
                io.Image.Input("images", tooltip="The same batch, decoded."),
                io.String.Input(
                    "seeds",
                    default="",
                    placeholder="3, 5-7",
                    tooltip="The seeds to go on with, such as 3, 5-7. Empty goes on with all of them.",
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The picked pictures; a sampler with the same seed gives each its own noise."),
                io.Image.Output(tooltip="The picked pictures."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, latent: Any, images: Any, seeds: str = "") -> io.NodeOutput:
        there = checked(latent, len(images))
        places = picked(seeds, there.values)
        labels = [(f"seed {seed}", f"{seed}") for seed in there.values]
        shown = labelled(images, labels, dim=set(range(len(images))) - set(places))
        return io.NodeOutput(part_of(latent, there, places), images[places], ui=ui.PreviewImage(shown, cls=cls))
