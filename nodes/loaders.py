"""The three loaders: a file of ComfyUI's own folders, or the demo model, as a native MODEL, CLIP or VAE."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import files
from .host.model import load_transformer
from .host.text_encoder import load_text_encoder
from .host.vae import load_vae

CATEGORY = "Z-Image"
DEMO_NOTE = "The demo draws simple shapes and needs no download."


def _file_input(kind: str, tooltip: str) -> io.Combo.Input:
    options, default = files.choices(kind)
    return io.Combo.Input("file", options=options, default=default, tooltip=f"{tooltip} {DEMO_NOTE}")


def _is_there(kind: str, file: str | None) -> bool | str:
    """In place of the host's own check, which knows a file by its exact label only."""
    try:
        return file is None or bool(files.path_of(kind, file))
    except ValueError as error:
        return str(error)


class TransformerLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageTransformerLoader",
            display_name="Load Z-Image Model",
            category=CATEGORY,
            description="Loads a Z-Image transformer, Turbo or Base, with its own shift, from bf16, FP8 or GGUF.",
            search_aliases=["z-image", "zimage", "unet", "diffusion model", "turbo", "lumina2", "gguf", "fp8"],
            inputs=[
                _file_input(
                    "transformer",
                    "A Z-Image transformer in models/diffusion_models: a file, the index of its shards or a diffusers "
                    "folder, in bf16, FP8 or GGUF. What loads comes first. All-in-one checkpoints that hold one are "
                    "listed with their folder in brackets.",
                ),
                io.Combo.Input(
                    "variant",
                    options=["auto", "turbo", "base"],
                    default="auto",
                    tooltip="Which Z-Image this is. auto asks the file's metadata, then its name, then its weights.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "bfloat16", "float16", "float32"],
                    default="auto",
                    advanced=True,
                    tooltip="The type the weights are kept in, or unpacked to if the file is FP8 or GGUF: those stay "
                    "as they are in memory. auto lets ComfyUI choose for your hardware.",
                ),
                io.Boolean.Input(
                    "joint_cfg",
                    default=True,
                    optional=True,  # scripts that post a graph of before still run
                    advanced=True,
                    tooltip="Run positive and negative in one forward, also where their lengths differ. Off needs "
                    "less memory and takes longer; the picture is the same.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = "", **_: Any) -> str:
        return files.stamp("transformer", file)

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return _is_there("transformer", file)

    @classmethod
    def execute(cls, file: str, variant: str = "auto", dtype: str = "auto", joint_cfg: bool = True) -> io.NodeOutput:
        return io.NodeOutput(load_transformer(str(files.path_of("transformer", file)), variant, dtype, joint_cfg))


class TextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageTextEncoderLoader",
            display_name="Load Z-Image Text Encoder",
            category=CATEGORY,
            description="Loads the Qwen3 text encoder of Z-Image: bf16, FP8 or GGUF.",
            search_aliases=["z-image", "zimage", "load clip", "qwen", "qwen3", "lumina2", "gguf", "fp8"],
            inputs=[
                _file_input(
                    "text_encoder",
                    "Qwen3-4B in models/text_encoders (qwen_3_4b.safetensors, or a GGUF of it), or a checkpoint or "
                    "diffusers folder that holds it.",
                )
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = "") -> str:
        return files.stamp("text_encoder", file)

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return _is_there("text_encoder", file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_text_encoder(str(files.path_of("text_encoder", file))))


class VAELoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageVAELoader",
            display_name="Load Z-Image VAE",
            category=CATEGORY,
            description="Loads the VAE of Z-Image, which is that of Flux.",
            search_aliases=["z-image", "zimage", "load vae", "ae", "flux vae"],
            inputs=[
                _file_input(
                    "vae",
                    "The Flux VAE in models/vae (ae.safetensors), or a checkpoint or diffusers folder that holds it.",
                )
            ],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = "") -> str:
        return files.stamp("vae", file)

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return _is_there("vae", file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_vae(str(files.path_of("vae", file))))
