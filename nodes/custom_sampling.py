"""The sampler in parts, for graphs that wire their own. Widgets are stored by position, so they only ever grow."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.guider import make_guider
from .host.schedule import make_sigmas, set_shift
from .sampler import ADVICE, CFG_TIP, STEPS_TIP, STRENGTH_TIP, normalization_input, truncation_input
from .settings import Guidance

CATEGORY = "Z-Image"
OWN = " 0 takes the model's own." + ADVICE


class Guider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageGuider",
            display_name="Z-Image Guider",
            category=CATEGORY,
            description="Z-Image's own guidance for SamplerCustomAdvanced, with its normalisation and truncation.",
            search_aliases=["z-image", "zimage", "cfg guider", "guidance", "cfg", "renorm", "turbo", "base"],
            inputs=[
                io.Model.Input("model", tooltip="A Z-Image model, from our loader or ComfyUI's own."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What to avoid. Needed above cfg 1; not evaluated at cfg 1."
                ),
                io.Float.Input("cfg", default=0.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=CFG_TIP + OWN),
                normalization_input(),
                truncation_input(),
            ],
            outputs=[io.Guider.Output()],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, cfg: float = 0.0, cfg_normalization: bool = False,
                cfg_truncation: float = 1.0, negative: Any = None) -> io.NodeOutput:  # fmt: skip
        asked = Guidance(cfg, float(cfg_normalization), cfg_truncation)
        guider, text = make_guider(model, positive, negative, asked, cls.hidden)
        return io.NodeOutput(guider, ui=ui.PreviewText(text))


class Sigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageSigmas",
            display_name="Z-Image Sigmas",
            category=CATEGORY,
            description="The noise levels that Z-Image Sampler runs, for SamplerCustomAdvanced.",
            search_aliases=["z-image", "zimage", "scheduler", "basic scheduler", "sigmas", "steps", "denoise"],
            inputs=[
                io.Model.Input("model", tooltip="A Z-Image model: steps and shift come from it where they are 0."),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip=STEPS_TIP + OWN),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=STRENGTH_TIP),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    tooltip="More shift, more steps on the composition. 0 is from a ModelSampling node in the graph, "
                    "or else from the model: 3 for Turbo, 6 for Base." + ADVICE,
                ),
            ],
            outputs=[io.Sigmas.Output()],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any, steps: int, strength: float, shift: float) -> io.NodeOutput:
        sigmas, text = make_sigmas(model, steps, strength, shift, cls.hidden)
        return io.NodeOutput(sigmas, ui=ui.PreviewText(text))


class ModelSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        shift = io.Float.Input("shift", default=3.0, min=0.01, max=100.0, step=0.01, tooltip="3 for Turbo, 6 for Base.")
        return io.Schema(
            node_id="ZImageModelSampling",
            display_name="Z-Image Model Sampling",
            category=CATEGORY,
            description="Sets a model's shift, for any sampler: more shift spends more steps on the composition.",
            search_aliases=["z-image", "zimage", "shift", "ModelSamplingAuraFlow", "ModelSamplingSD3", "flow shift"],
            inputs=[
                io.Model.Input("model", tooltip="A model that samples a flow with one shift, as Z-Image does."),
                io.DynamicCombo.Input(
                    "preset",
                    options=[
                        io.DynamicCombo.Option("auto", []),
                        io.DynamicCombo.Option("Turbo", []),
                        io.DynamicCombo.Option("Base", []),
                        io.DynamicCombo.Option("custom", [shift]),
                    ],
                    tooltip="auto tells Turbo from Base and sets its shift; Turbo is 3, Base is 6, custom is yours.",
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any, preset: dict[str, Any] | None = None) -> io.NodeOutput:
        shifted, text = set_shift(model, preset, cls.hidden)
        return io.NodeOutput(shifted, ui=ui.PreviewText(text))
