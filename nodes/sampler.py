"""The sampler: a schema, and one call. Its widgets are stored by position in saved graphs, so they only ever grow."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..zimage_core.sampling import MAX_SEED
from .host.preview import AUTO, METHODS
from .host.sampling import sample, solvers

STEPS_TIP = "More steps, finer pictures: 8 for Turbo, 28 to 50 for Base."
CFG_TIP = "How strongly to follow the prompt: the official guidance + 1. At 1, one forward a step and no negative."
STRENGTH_TIP = "The noise to start from: 1 draws anew, less keeps more of the latent, 0 keeps it all."
# A tooltip cannot hold a link; the help pages do.
ADVICE = " More under Advice in this node's help."
DRAFT_TIP = "A quick look at the same picture: 4 steps for Turbo, 10 for Base, never more than are set."


def _steps(default: int, least: int, note: str = "") -> io.Int.Input:
    return io.Int.Input("steps", default=default, min=least, max=1000, tooltip=STEPS_TIP + note + ADVICE)


def _cfg(default: float, least: float, note: str = "", advanced: bool = False) -> io.Float.Input:
    tip = CFG_TIP + note + ADVICE
    return io.Float.Input(
        "cfg", default=default, min=least, max=100.0, step=0.1, round=0.01, advanced=advanced, tooltip=tip
    )


def seed_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip)


def normalization_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "cfg_normalization",
        default=False,
        tooltip="Keep guided predictions as large as the positive one, as the official pipeline can: tames high cfg."
        + ADVICE,
    )


def truncation_input() -> io.Float.Input:
    return io.Float.Input(
        "cfg_truncation",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="Guide only up to this part of the way from noise to picture; the rest runs at one forward a step.",
    )


def _mode() -> io.DynamicCombo.Input:
    own = " 0 takes the model's own."
    return io.DynamicCombo.Input(
        "mode",
        options=[
            io.DynamicCombo.Option("auto", [_steps(0, 0, own), _cfg(0.0, 0.0, own)]),
            io.DynamicCombo.Option("Turbo", [_steps(8, 1), _cfg(1.0, 1.0, advanced=True)]),
            io.DynamicCombo.Option("Base", [_steps(30, 1), _cfg(5.0, 1.0), normalization_input(), truncation_input()]),
        ],
        tooltip="auto takes steps and cfg from the model; Turbo and Base let you set them.",
    )


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageSampler",
            display_name="Z-Image Sampler",
            category="Z-Image",
            description="Draws with a Z-Image model. It knows Turbo from Base, and says what it ran.",
            search_aliases=["z-image", "zimage", "ksampler", "sample", "turbo", "base"],
            inputs=[
                io.Model.Input("model", tooltip="A Z-Image model, from our loader or ComfyUI's own."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Latent.Input("latent", tooltip="Empty for a new picture; a picture's latent to change it."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What to avoid. Needed above cfg 1; not evaluated at cfg 1."
                ),
                seed_input(
                    "The same seed draws the same picture. Picture i of a batch is that of seed + i "
                    "(not with solvers that draw noise as they go: ancestral, sde)."
                ),
                _mode(),
                io.Combo.Input(
                    "solver", options=solvers(), default="euler", tooltip="How to step. euler is the official one."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=STRENGTH_TIP,
                ),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="More shift, more steps on the composition. 0 is from the model: 3 for Turbo, 6 for Base."
                    + ADVICE,
                ),
                # Optional, so that prompts of scripts from before they were there still run.
                io.Boolean.Input("draft", default=False, optional=True, advanced=True, tooltip=DRAFT_TIP),
                io.Combo.Input(
                    "preview",
                    options=[AUTO, *METHODS],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Previews at every step. auto is as ComfyUI is set; latent2rgb needs no file; taef1 is "
                    "sharper, with taef1_decoder in models/vae_approx.",
                ),
            ],
            outputs=[io.Latent.Output()],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, latent: Any, seed: int, mode: dict[str, Any] | None = None,
                solver: str = "euler", strength: float = 1.0, shift: float = 0.0, draft: bool = False,
                preview: str = AUTO, negative: Any = None) -> io.NodeOutput:  # fmt: skip
        samples, text = sample(
            model, positive, negative, latent, seed=seed, mode=mode, solver=solver, strength=strength, shift=shift,
            draft=draft, preview=preview, hidden=cls.hidden,
        )  # fmt: skip
        return io.NodeOutput(samples, ui=ui.PreviewText(text))
