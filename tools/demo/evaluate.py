"""Measures the exported demo model on combinations it never saw, and draws a contact sheet.

`python tools/demo/evaluate.py [--count N] [--folder DIR] [--sheet FILE.png] [--variant base|turbo]`
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import captions
import encoder
import judge
import numpy as np
import tokenizer
import torch
import vae as vae_stage
import world
from dit import CONFIG, S3DiT
from export import ldm_name
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from turbo import sigma_table

FOLDER = Path(__file__).resolve().parents[2] / "zimage_core" / "demo"


@dataclass(frozen=True)
class Row:
    name: str
    variant: str
    steps: int
    cfg: float
    shift: float


ROWS = (
    Row("Base, 28 steps, cfg 5", "base", 28, 5.0, 6.0),
    Row("Turbo, 8 steps", "turbo", 8, 1.0, 3.0),
    Row("Turbo, 4 steps", "turbo", 4, 1.0, 3.0),
)
HEADINGS = ("background", "colour", "position", "size", "shape", "all")


class Demo:
    """The exported files, read back as they are (bf16 weights, float32 arithmetic)."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = tokenizer.load(folder / "tokenizer")
        self.encoder = encoder.build(len(self.tokenizer)).eval()
        text = load_file(folder / "demo_text_encoder.safetensors")
        self.encoder.load_state_dict({k.removeprefix("model."): v for k, v in text.items()})
        self.vae = vae_stage.build().eval()
        stored = load_file(folder / "demo_vae.safetensors")
        self.vae.load_state_dict({k: stored[ldm_name(k)].view(v.shape) for k, v in self.vae.state_dict().items()})
        self.variants = {}
        for name in ("base", "turbo"):
            self.variants[name] = S3DiT(CONFIG).eval()
            self.variants[name].load_state_dict(load_file(folder / f"demo_{name}.safetensors"))

    def features(self, prompts: list[str]) -> list[Tensor]:
        return encoder.features(self.encoder, [tokenizer.encode(self.tokenizer, p) for p in prompts])

    @torch.no_grad()
    def generate(self, row: Row, prompts: list[str], width: int, height: int, seed: int) -> np.ndarray:
        """uint8 [len(prompts), height, width, 3]; plain Euler."""
        model, sigmas = self.variants[row.variant], sigma_table(row.steps, row.shift)
        shape = (len(prompts), 16, height // 8, width // 8)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        positive = model.prepare(self.features(prompts), *shape[2:])
        negative = model.prepare(self.features([""]), *shape[2:]) if row.cfg != 1 else None
        for start, end in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
            velocity = model(x, start, positive)
            if negative is not None:
                other = model(x, start, negative)
                velocity = other + row.cfg * (velocity - other)
            x = x + (end - start) * velocity
        pictures = vae_stage.decode(self.vae, x)
        return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def held_out_scenes(count: int, pairs: bool, seed: int = 5) -> list[world.Scene]:
    rng = np.random.default_rng(seed)
    sizes = [world.PICTURE_SIZES[k] for k in (0, 0, 1, 2)]
    make = world.sample_pair if pairs else lambda r, w, h: world.sample_single(r, w, h, held_out=True)
    return [make(rng, *sizes[i % 4]) for i in range(count)]


def measure(demo: Demo, row: Row, scenes: list[world.Scene], chinese: bool) -> dict[str, float]:
    rng = np.random.default_rng(11)
    results: list[dict[str, bool]] = []
    for width, height in world.PICTURE_SIZES:
        group = [s for s in scenes if (s.width, s.height) == (width, height)]
        for i in range(0, len(group), 24):
            part = group[i : i + 24]
            prompts = [captions.full_caption(rng, s, chinese) for s in part]
            pictures = demo.generate(row, prompts, width, height, seed=i)
            results += [judge.score(p, s) for p, s in zip(pictures, part)]
    return {k: float(np.mean([r[k] for r in results])) for k in HEADINGS if k in results[0]}


def print_table(demo: Demo, rows: list[Row], count: int) -> None:
    print("| | " + " | ".join(HEADINGS) + " | two things, all |")
    print("|---" * (len(HEADINGS) + 2) + "|")
    for row in rows:
        for language, chinese in (("English", False), ("Chinese", True)):
            single = measure(demo, row, held_out_scenes(count, pairs=False), chinese)
            pair = measure(demo, row, held_out_scenes(count // 2, pairs=True), chinese)
            cells = [f"{single[h]:.2f}" for h in HEADINGS] + [f"{pair['all']:.2f}"]
            print(f"| {row.name}, {language} | " + " | ".join(cells) + " |", flush=True)


SHEET = (
    "a red circle on a white background", "白色背景上的红色圆形", "a blue square on a yellow background",
    "a yellow star on a black background", "a green triangle on a light blue background",
    "a white ring on a blue background", "a purple cross on a pink background",
    "a small orange star on a grey background, in the top left", "灰色背景上的小黄色星星，位于右下角",
    "a black circle on a green background, in the bottom left corner",
    "a red circle and a blue square on a white background", "黑色背景上的黄色星星和粉色三角形",
)  # fmt: skip


def contact_sheet(demo: Demo, rows: list[Row], seed: int = 0) -> Image.Image:
    """A line per row of the table: every prompt of SHEET square, then one landscape and one portrait."""
    cell = 132
    sheet = np.full((cell * len(rows) + 32 * len(rows), cell * len(SHEET) + 164 + 100, 3), 255, np.uint8)
    for line, row in enumerate(rows):
        top = line * (cell + 32)
        for i, picture in enumerate(demo.generate(row, list(SHEET), 128, 128, seed)):
            sheet[top : top + 128, i * cell : i * cell + 128] = picture
        left = len(SHEET) * cell
        sheet[top : top + 96, left : left + 160] = demo.generate(row, [SHEET[3]], 160, 96, seed)[0]
        sheet[top : top + 160, left + 164 : left + 260] = demo.generate(row, [SHEET[10]], 96, 160, seed)[0]
    return Image.fromarray(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--variant", choices=("base", "turbo"))
    args = parser.parse_args()
    demo = Demo(args.folder)
    rows = [r for r in ROWS if args.variant in (None, r.variant)]
    if args.sheet:
        contact_sheet(demo, rows).save(args.sheet)
    if args.count:
        print_table(demo, rows, args.count)
    quality = vae_stage.measure(demo.vae)
    print("VAE:", {k: round(v, 3) for k, v in quality.items()})


if __name__ == "__main__":
    main()
