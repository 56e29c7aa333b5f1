"""Prompts to features. Widgets are stored by position in saved graphs, so they only ever grow."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.prompts import encode_batch, encode_prompts

CLIP_TIP = "Z-Image's text encoder, from our loader or from Load CLIP with type lumina2."
NEGATIVE_TIP = "What to avoid; it may stay empty. Evaluated above cfg 1 only, so not by Turbo as it is."


class TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageTextEncode",
            display_name="Z-Image Text Encode",
            category="Z-Image",
            description="What to draw and what to avoid, in one node. Only the prompt that changed is encoded again.",
            search_aliases=["z-image", "zimage", "prompt", "negative", "clip text encode", "qwen", "qwen3", "lumina2"],
            inputs=[
                io.Clip.Input("clip", tooltip=CLIP_TIP),
                io.String.Input(
                    "positive",
                    multiline=True,
                    default="",
                    dynamic_prompts=True,
                    placeholder="what to draw",
                    tooltip="What to draw, in English or Chinese, in sentences. (word:1.2) is plain text here.",
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default="",
                    dynamic_prompts=True,
                    placeholder="what to avoid",
                    tooltip=NEGATIVE_TIP,
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, clip: Any, positive: str, negative: str) -> io.NodeOutput:
        made, text = encode_prompts(clip, {"positive": positive, "negative": negative}, cls.hidden)
        return io.NodeOutput(*made, ui=ui.PreviewText(text))


class PromptBatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImagePromptBatch",
            display_name="Z-Image Prompt Batch",
            category="Z-Image",
            description="A prompt for each picture of a batch, drawn together. Needs a model of Load Z-Image Model.",
            search_aliases=["z-image", "zimage", "prompts", "list of prompts", "multiple prompts", "clip", "qwen"],
            inputs=[
                io.Clip.Input("clip", tooltip=CLIP_TIP),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    dynamic_prompts=True,
                    placeholder="what to draw, a prompt on each line",
                    tooltip="One prompt on each line; empty lines are left out. Picture i of the batch has prompt i.",
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default="",
                    dynamic_prompts=True,
                    placeholder="what to avoid in all of them",
                    tooltip=NEGATIVE_TIP + " One for all pictures.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Int.Output(display_name="count", tooltip="How many prompts: the batch_size of the empty latent."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, clip: Any, prompts: str, negative: str = "") -> io.NodeOutput:
        *made, text = encode_batch(clip, prompts, negative, cls.hidden)
        return io.NodeOutput(*made, ui=ui.PreviewText(text))
