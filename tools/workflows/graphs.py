"""The example graphs, as boxes in columns; `build.py` makes the files of `workflows` of them.

Prompts are in the demo model's few words, so that the pictures beside the graphs, which the demo draws, are what the
graphs say; each note has a prompt for the real models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import notes

from zimage_core import downloads

DEMO = "demo: simple shapes"
TURBO, BASE = notes.TURBO_FILE.name, notes.BASE_FILE.name
QWEN, VAE = downloads.TEXT_ENCODERS["bf16"].name, downloads.VAE.name
Link = tuple[str, str, str, str]


@dataclass(frozen=True)
class Box:
    """A node: its widgets' values by name, in their order, and its inputs as {"input": "box.output"}."""

    name: str
    type: str
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    width: int = 340
    height: int = 0
    colors: tuple[str, str] | None = None


@dataclass(frozen=True)
class Graph:
    columns: list[list[Box]]

    def boxes(self) -> list[Box]:
        return [box for column in self.columns for box in column]

    def links(self) -> list[Link]:
        """As (box, output, box, input)."""
        links = []
        for box in self.boxes():
            for name, source in box.inputs.items():
                origin, _, output = source.partition(".")
                links.append((origin, output, box.name, name))
        return links


@dataclass(frozen=True)
class Blueprint:
    """A graph as one node: which widgets it shows, as (its own name, the type of the node they are of, their name)."""

    graph: Graph
    description: str
    promoted: list[tuple[str, str, str]]
    aliases: list[str]


def note(text: str, height: int) -> Box:
    return Box("note", "MarkdownNote", {"text": text}, title="About this graph", height=height, colors=("#432", "#653"))


def model(file: str, name: str = "model", title: str = "") -> Box:
    return Box(name, "ZImageTransformerLoader", {"file": file}, title=title)


def parts(encoder: str = QWEN, vae: str = VAE) -> list[Box]:
    return [
        Box("clip", "ZImageTextEncoderLoader", {"file": encoder}),
        Box("vae", "ZImageVAELoader", {"file": vae}),
    ]


def prompts(positive: str, negative: str = "", height: int = 260) -> Box:
    values = {"positive": positive, "negative": negative}
    return Box("text", "ZImageTextEncode", values, {"clip": "clip.CLIP"}, width=400, height=height)


def size(group: str, aspect: str, batch: int = 1) -> Box:
    return Box("size", "ZImageLatentSize", {"size": group, "size.aspect": aspect, "batch_size": batch}, width=400)


def sampler(seed: int | str, name: str = "sampler", title: str = "", strength: float = 1.0, **inputs: str) -> Box:
    """`seed` is a number, or the "box.output" it comes from."""
    sources = {
        "model": "model.MODEL", "positive": "text.positive", "latent": "size.LATENT", "negative": "text.negative"
    }  # fmt: skip
    if isinstance(seed, str):
        inputs["seed"] = seed
    values = {"seed": 1 if isinstance(seed, str) else seed, "control_after_generate": "fixed", "strength": strength}
    return Box(name, "ZImageSampler", values, sources | inputs, title, width=400, height=560)


def picture(prefix: str, samples: str = "sampler.LATENT") -> list[Box]:
    return [
        Box("decode", "VAEDecode", {}, {"samples": samples, "vae": "vae.VAE"}, width=220),
        Box("save", "SaveImage", {"filename_prefix": prefix}, {"images": "decode.IMAGE"}, width=440, height=460),
    ]


def plain(name: str, note: Box, files: list[Box], text: list[Box], seed: int) -> Graph:
    """The usual graph: files, prompt and size, sampler, picture."""
    return Graph([[*files, note], text, [sampler(seed)], picture(name)])


def batch(positive: list[str], negative: str = "") -> Box:
    values = {"prompts": "\n".join(positive), "negative": negative}
    return Box("text", "ZImagePromptBatch", values, {"clip": "clip.CLIP"}, width=400, height=320)


SQUARE = "1:1 - 1024x1024"
GRAPHS = {
    "zimage_demo": plain(
        "zimage_demo",
        note(notes.DEMO, 190),
        [model(f"{DEMO} (Turbo)"), *parts(DEMO, DEMO)],
        [prompts("a red circle on a white background"), size("demo", "1:1 - 128x128")],
        seed=0,
    ),
    "zimage_turbo": plain(
        "zimage_turbo",
        note(notes.TURBO, 260),
        [model(TURBO), *parts()],
        [prompts("a large yellow star on a blue background"), size("1024 px", SQUARE)],
        seed=1,
    ),
    "zimage_base": plain(
        "zimage_base",
        note(notes.BASE, 280),
        [model(BASE), *parts()],
        [prompts("a green triangle on a light blue background", "blurry, low quality"), size("1024 px", SQUARE)],
        seed=1,
    ),
    "zimage_turbo_gguf_6gb": plain(
        "zimage_turbo_gguf",
        note(notes.GGUF, 300),
        [model("z_image_turbo-Q4_K_M.gguf"), *parts("Qwen3-4B-Q4_K_M.gguf")],
        [prompts("a white ring on a black background"), size("1024 px", SQUARE)],
        seed=1,
    ),
    "zimage_turbo_fp8_8gb": plain(
        "zimage_turbo_fp8",
        note(notes.FP8, 300),
        [model(notes.FP8_FILE), *parts(notes.FP8_ENCODER.name)],
        [prompts("an orange square on a grey background"), size("1024 px", SQUARE)],
        seed=1,
    ),
    "zimage_poster": plain(
        "zimage_poster",
        note(notes.POSTER, 300),
        [model(TURBO), *parts()],
        [
            prompts(
                'a red circle and a blue square on a white background, with the words "SUNRISE" and "日出"', height=320
            ),
            size("1024 px", "2:3 - 832x1248"),
        ],
        seed=1,
    ),
    "zimage_prompt_batch": plain(
        "zimage_prompt_batch",
        note(notes.BATCH, 300),
        [model(TURBO), *parts()],
        [
            batch(
                [
                    "a red circle on a white background",
                    "a yellow star on a blue background",
                    "a green triangle on a light blue background",
                    "白色背景上的紫色正方形",
                ]
            ),
            replace(size("1024 px", SQUARE), inputs={"batch_size": "text.count"}),
        ],
        seed=1,
    ),
}

GRAPHS["zimage_explore_and_refine"] = Graph(
    [
        [model(TURBO, title="Explore with Turbo"), *parts(), note(notes.EXPLORE, 330)],
        [
            prompts("a purple star on a yellow background"),
            size("1024 px", SQUARE, batch=4),
            Box("seed", "PrimitiveInt", {"value": 1}, title="Seed of both", width=400),
        ],
        [sampler("seed.INT", title="Explore with Turbo")],
        [
            Box("look", "VAEDecode", {}, {"samples": "sampler.LATENT", "vae": "vae.VAE"}, width=220),
            Box(
                "pick",
                "ZImagePickSeeds",
                {"seeds": "2, 4"},
                {"latent": "sampler.LATENT", "images": "look.IMAGE"},
                width=400,
                height=460,
            ),
        ],
        [
            model(BASE, "base", "Refine with Base"),
            sampler("seed.INT", "refine", "Refine with Base", 0.5, model="base.MODEL", latent="pick.LATENT"),
        ],
        picture("zimage_refined", "refine.LATENT"),
    ]
)

# A class and its aspects do not go together in widgets of the outside, since only the node itself makes the one of the
# other; width and height do.
FREE = Box("size", "ZImageLatentSize", {"size": "custom", "size.width": 1024, "size.height": 1024}, width=400)


def blueprint(file: str, positive: str, negative: str | None, description: str) -> Blueprint:
    text = prompts(positive, negative or "")
    graph = Graph([[model(file), *parts()], [text, FREE], [sampler(1)], picture("zimage")])
    promoted = [
        ("prompt", "ZImageTextEncode", "positive"),
        *([("negative", "ZImageTextEncode", "negative")] if negative is not None else []),
        ("width", "ZImageLatentSize", "size.width"),
        ("height", "ZImageLatentSize", "size.height"),
        ("batch_size", "ZImageLatentSize", "batch_size"),
        ("seed", "ZImageSampler", "seed"),
        ("model", "ZImageTransformerLoader", "file"),
        ("text_encoder", "ZImageTextEncoderLoader", "file"),
        ("vae", "ZImageVAELoader", "file"),
    ]
    return Blueprint(graph, description, promoted, ["z-image", "zimage", "text to image", "txt2img", "t2i"])


BLUEPRINTS = {
    "Z-Image Turbo - Text to Image": blueprint(
        TURBO, "a large yellow star on a blue background", None, "A picture of a prompt by Z-Image Turbo, in 8 steps."
    ),
    "Z-Image Base - Text to Image": blueprint(
        BASE,
        "a green triangle on a light blue background",
        "blurry, low quality",
        "A picture of a prompt by Z-Image Base, which heeds a negative prompt, in 30 steps.",
    ),
}
