"""What each form of the weights costs and loses: `python benchmarks/quality.py [--pictures N] [--no-block]`.

Each form is written by the independent writers of `tests/writers.py` and loaded as a user's file is. One forward is
compared with the same weights in float32 (relative L2): of a block at the published width with random weights, and of
the demo's Turbo, whose pictures are then compared with those of float32 and judged by their pixels.
The types that only llama.cpp writes (K and IQ) have no row of errors: nothing in Python makes them from weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools" / "demo")]

import captions  # noqa: E402
import judge  # noqa: E402
import world  # noqa: E402
import writers  # noqa: E402
from oracles import relative  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_full_width import CONFIG, build, exact_weights, load_block, run  # noqa: E402

from zimage_core import ZImagePipeline, demo_pipeline, load_transformer  # noqa: E402
from zimage_core.checkpoint import ggml  # noqa: E402

DEMO = ROOT / "zimage_core" / "demo"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
FORMS = {
    "bf16": (writers.dense(torch.bfloat16), 16),
    "fp16": (writers.dense(torch.float16), 16),
    "FP8 e4m3fn, plain cast": (writers.fp8_cast(E4M3), 8),
    "FP8 e5m2, plain cast": (writers.fp8_cast(E5M2), 8),
    "FP8 e4m3fn, scaled by tensor": (writers.fp8_scaled("comfy_quant"), 8),
    "FP8 e4m3fn, scaled by row": (writers.fp8_scaled("comfy_quant", rows=True), 8),
} | {f"GGUF {name}": (writers.ggml(name), ggml.TYPES[name].bits_per_weight) for name in writers.GGML_ROUNDED[2:]}
ONLY_READ = ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS",
             "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "MXFP4"]  # fmt: skip
# The five matrices of each of the 34 blocks are what forms differ in; the rest of the model stays 16-bit.
TOTAL = 6_154_908_736
IN_BLOCKS = 34 * (4 * CONFIG.dim**2 + 3 * CONFIG.dim * CONFIG.ffn_dim)


def gigabytes(bits: float) -> float:
    return (IN_BLOCKS * bits + (TOTAL - IN_BLOCKS) * 16) / 8e9


def block_error(write, name: str, weights: writers.State, exact: Tensor, folder: Path) -> float:
    path = folder / ("block.gguf" if name.startswith("GGUF") else "block.safetensors")
    write(weights, path)
    error = relative(run(load_block(path)), exact)
    path.unlink()
    return error


@torch.no_grad()
def velocity(model: nn.Module, words: list[Tensor]) -> Tensor:
    latents = torch.randn(len(words), 16, 16, 16, generator=torch.Generator().manual_seed(3))
    return model(latents, 0.6, words)


def draw(pipeline: ZImagePipeline, scenes: list[world.Scene], prompts: list[str]) -> tuple[list[np.ndarray], float]:
    """The pictures, and the share of them in which the judge finds everything as it was asked for."""
    pictures, right = [], []
    for seed, (scene, prompt) in enumerate(zip(scenes, prompts)):
        (picture,) = pipeline.generate(prompt, seed=seed, width=scene.width, height=scene.height)
        pictures.append(np.asarray(picture))
        right.append(judge.score(pictures[-1], scene)["all"])
    return pictures, float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--no-block", action="store_true", help="leave out the block at full width")
    args = parser.parse_args()
    rng = np.random.default_rng(5)
    scenes = [world.sample_single(rng, 128, 128, held_out=True) for _ in range(args.pictures)]
    prompts = [captions.full_caption(rng, scene, chinese=False) for scene in scenes]
    plain = demo_pipeline("turbo", dtype="float32")
    words = plain.text_encoder.encode(prompts[:4])
    exact = velocity(plain.transformer, words)
    reference, accuracy = draw(plain, scenes, prompts)
    weights = {} if args.no_block else exact_weights()
    if weights:
        block = build("meta")
        block.load_state_dict(weights, assign=True)
        exact_block = run(block)
    print("| form | bits | 6B model | block, error | demo, error | pictures differ by | all right |")
    print("|---|---|---|---|---|---|---|")
    print(f"| float32 | 32 | {gigabytes(32):.1f} GB | 0 | 0 | 0 | {accuracy:.2f} |", flush=True)
    state = {n: t.float() for n, t in load_file(str(DEMO / "demo_turbo.safetensors")).items()}
    for name, (write, bits) in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            of_block = f"{block_error(write, name, weights, exact_block, Path(folder)):.1e}" if weights else "-"
            path = Path(folder) / ("turbo.gguf" if name.startswith("GGUF") else "turbo.safetensors")
            write(state, path)
            model = load_transformer(path, dtype="float32", variant="turbo")
            error = relative(velocity(model, words), exact)
            drawn = ZImagePipeline(model, plain.text_encoder, plain.vae, plain.default_size)
            pictures, accuracy = draw(drawn, scenes, prompts)
        apart = np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(pictures, reference)])
        size = f"{gigabytes(bits):.1f} GB"
        row = (name, f"{bits:g}", size, of_block, f"{error:.1e}", f"{apart:.2f} of 255", f"{accuracy:.2f}")
        print("| " + " | ".join(row) + " |", flush=True)
    for name in ONLY_READ:
        bits = ggml.TYPES[name].bits_per_weight
        print(f"| GGUF {name} | {bits:g} | {gigabytes(bits):.1f} GB | | | | |")


if __name__ == "__main__":
    main()
