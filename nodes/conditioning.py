"""Both prompts in one node. Its widgets are stored by position in saved graphs, so they only ever grow."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.prompts import encode_prompts


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
                io.Clip.Input(
                    "clip", tooltip="Z-Image's text encoder, from our loader or from Load CLIP with type lumina2."
                ),
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
                    tooltip="What to avoid; it may stay empty. Evaluated above cfg 1 only, so not by Turbo as it is.",
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
