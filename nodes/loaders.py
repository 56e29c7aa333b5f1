"""The three loaders: a file of ComfyUI's own folders, or the demo model, as a native MODEL, CLIP or VAE."""

from __future__ import annotations

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


class TransformerLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageTransformerLoader",
            display_name="Load Z-Image Model",
            category=CATEGORY,
            description="Loads a Z-Image transformer, Turbo or Base, with its own shift.",
            search_aliases=["z-image", "zimage", "unet", "diffusion model", "turbo"],
            inputs=[
                _file_input("transformer", "A Z-Image transformer in models/diffusion_models."),
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
                    tooltip="The type the weights are kept in. auto lets ComfyUI choose for your hardware.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = "", **_: str) -> str:
        return files.stamp("transformer", file)

    @classmethod
    def execute(cls, file: str, variant: str = "auto", dtype: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(load_transformer(str(files.path_of("transformer", file)), variant, dtype))


class TextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZImageTextEncoderLoader",
            display_name="Load Z-Image Text Encoder",
            category=CATEGORY,
            description="Loads the Qwen3 text encoder of Z-Image.",
            search_aliases=["z-image", "zimage", "clip", "qwen", "qwen3"],
            inputs=[_file_input("text_encoder", "Qwen3-4B in models/text_encoders (qwen_3_4b.safetensors).")],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = "") -> str:
        return files.stamp("text_encoder", file)

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
            search_aliases=["z-image", "zimage", "vae", "ae"],
            inputs=[_file_input("vae", "The Flux VAE in models/vae (ae.safetensors).")],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = "") -> str:
        return files.stamp("vae", file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_vae(str(files.path_of("vae", file))))
