"""The same seed on two models, side by side: a schema, and one call."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.compare import compare
from .sampler import seed_input


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageCompare",
            display_name="Z-Image Compare",
            category="Z-Image",
            description="The same seed and noise on two models, side by side: Turbo and Base, or with and without a "
            "LoRA. Each runs with the steps, cfg and shift that it was made for.",
            search_aliases=[
                "z-image", "zimage", "compare models", "side by side", "a/b", "ab test", "turbo or base",
                "compare lora", "xy plot", "grid", "difference",
            ],
            inputs=[
                io.Model.Input("model_a", tooltip="The Z-Image model on the left."),
                io.Model.Input("model_b", tooltip="The Z-Image model on the right: another, or the same with a LoRA."),
                io.Conditioning.Input("positive", tooltip="What to draw, for both."),
                io.Latent.Input("latent", tooltip="Empty, in the size and number of the pictures; masks count too."),
                io.Vae.Input("vae", tooltip="Decodes both."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What to avoid. Base needs it; Turbo does without."
                ),
                seed_input("Of both. Picture i of a batch is that of seed + i."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="side by side", tooltip="Picture i of both in one, model_a's on the left."
                ),
                io.Image.Output(display_name="a", tooltip="The pictures of model_a."),
                io.Image.Output(display_name="b", tooltip="The pictures of model_b."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, model_a: Any, model_b: Any, positive: Any, latent: Any, vae: Any, seed: int,
                negative: Any = None) -> io.NodeOutput:  # fmt: skip
        images, text = compare(model_a, model_b, positive, negative, latent, vae, seed=seed, hidden=cls.hidden)
        return io.NodeOutput(*images, ui=ui.PreviewText(text))
