"""The demo graph in API form, and what it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfyui.server import Result
from PIL import Image

DEMO = "demo: simple shapes"
PROMPT = "a red circle on a white background"


def demo_prompt(text: str = PROMPT, variant: str = "Turbo", batch: int = 1, **sampler: Any) -> dict[str, Any]:
    """The demo graph in API form; `sampler` overrides the sampler's inputs, `mode` together with its widgets."""
    mode = sampler.pop("mode", {"mode": "auto", "mode.steps": 0, "mode.cfg": 0.0})
    sources = {"model": ["model", 0], "positive": ["text", 0], "latent": ["size", 0]}
    settings = sources | {"seed": 1, **mode, "solver": "euler", "strength": 1.0, "shift": 0.0, **sampler}
    return {
        "model": node("ZImageTransformerLoader", file=f"{DEMO} ({variant})", variant="auto", dtype="auto"),
        "clip": node("ZImageTextEncoderLoader", file=DEMO),
        "vae": node("ZImageVAELoader", file=DEMO),
        "text": node("CLIPTextEncode", clip=["clip", 0], text=text),
        "empty": node("CLIPTextEncode", clip=["clip", 0], text=""),
        "size": node("ZImageLatentSize", **{"size": "demo", "size.aspect": "1:1 - 128x128", "batch_size": batch}),
        "sampler": node("ZImageSampler", **settings),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="test"),
    }


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def succeed(result: Result) -> Result:
    assert result.status == "success", result.error
    return result


def assert_red_circle(path: Path) -> None:
    picture = Image.open(path).convert("RGB")
    assert picture.size == (128, 128)
    pixels = [picture.getpixel((x, y)) for x in range(128) for y in range(128)]
    red = sum(r > 150 and g < 110 and b < 110 for r, g, b in pixels) / len(pixels)
    white = sum(min(p) > 215 for p in pixels) / len(pixels)
    assert 0.03 < red < 0.7, f"{red:.0%} red"
    assert white > 0.25, f"{white:.0%} white"
    corners = [picture.getpixel((x, y)) for x in (2, 125) for y in (2, 125)]
    assert sum(min(corner) > 215 for corner in corners) >= 3
