"""What each way of ComfyUI to keep weights costs on a GPU, and whether it draws the same.

    python benchmarks/gpu_memory.py [--layers N] [--cpu]

A model of the published width with random weights and N layers, in bf16 and as Q8_0, is drawn by a real ComfyUI
(COMFYUI_DIR) once for each way: alone, and under a LoRA. Latents are compared with those of the first way.
`--cpu` rehearses the script where there is no GPU. No figures of it are claimed anywhere: no GPU was there to run it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from comfyui.graphs import demo_prompt, node  # noqa: E402
from comfyui.server import Server, comfyui_python, why_not  # noqa: E402
from oracles import relative  # noqa: E402

from zimage_core.cli import main as zimage  # noqa: E402
from zimage_core.model import S3DiT, S3DiTConfig  # noqa: E402

WAYS = {
    "dynamic (ComfyUI's default on NVIDIA)": (),
    "normal": ("--disable-dynamic-vram",),
    "--lowvram": ("--disable-dynamic-vram", "--lowvram"),
    "--novram": ("--novram",),
    "--highvram": ("--highvram",),
}
FEATURES = 128  # the demo's text encoder serves it


def write_models(folder: Path, layers: int) -> list[str]:
    """Random weights at which numbers keep their size, and a LoRA for all of the blocks."""
    torch.manual_seed(0)
    config = S3DiTConfig(n_layers=layers, cap_feat_dim=FEATURES)
    with torch.device("meta"):
        shapes = S3DiT(config, dtype=torch.bfloat16).state_dict()
    state = {name: torch.empty(t.shape, dtype=t.dtype).normal_() * t.shape[-1] ** -0.5 for name, t in shapes.items()}
    state = {name: 1 + tensor if "norm" in name else tensor for name, tensor in state.items()}
    models, loras = folder / "diffusion_models", folder / "loras"
    models.mkdir(parents=True)
    loras.mkdir()
    dense, packed = models / "wide_turbo.safetensors", models / "wide_turbo.gguf"
    save_file(state, str(dense))
    if zimage(["convert", str(dense), str(packed), "--to", "q8_0"]):
        raise SystemExit("the GGUF file could not be written")
    lora = {}
    for name in (f"diffusion_model.layers.{i}.attention.qkv" for i in range(layers)):
        lora[f"{name}.lora_A.weight"] = torch.randn(16, config.dim) * config.dim**-0.5
        lora[f"{name}.lora_B.weight"] = torch.randn(3 * config.dim, 16) * 0.05
    save_file(lora, str(loras / "lora.safetensors"))
    return [dense.name, packed.name]


def graph(file: str, lora: bool, size: int) -> dict[str, Any]:
    """The host's sampler at cfg 3, so that positive and negative run together; its latent is kept."""
    prompt = demo_prompt()
    prompt["model"]["inputs"] |= {"file": file, "variant": "turbo"}
    if lora:
        file = "lora.safetensors"
        prompt["lora"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name=file, strength_model=1.0)
    prompt["size"]["inputs"] = {"size": "custom", "size.width": size, "size.height": size, "batch_size": 1}
    prompt["sampler"] = node(
        "KSampler", model=["lora" if lora else "model", 0], positive=["text", 0], negative=["empty", 0],
        latent_image=["size", 0], seed=1, steps=4, cfg=3.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    prompt["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="latent")
    del prompt["decode"], prompt["vae"]
    return prompt


class Watch:
    """The most memory that was in use on the device while it watched, in bytes."""

    def __init__(self, server: Server) -> None:
        self.server, self.most, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.over.wait(0.1):
            device = self.server.get("/system_stats")["devices"][0]
            self.most = max(self.most, device["vram_total"] - device["vram_free"])

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join()


def measure(server: Server, file: str, lora: bool, size: int) -> tuple[torch.Tensor, float, float]:
    """The latent, seconds and the most gigabytes in use."""
    with Watch(server) as watch:
        result = server.run(graph(file, lora, size), timeout=1800)
    if result.status != "success":
        raise SystemExit(f"{file}: {result.error}\n{server.log_text()[-3000:]}")
    (entry,) = result.outputs["save"]["latents"]
    path = server.base / entry["type"] / entry["subfolder"] / entry["filename"]
    return load_file(str(path))["latent_tensor"], result.seconds, watch.most / 1e9


def has_gpu() -> bool:
    code = "import torch; print(torch.cuda.is_available())"
    return "True" in subprocess.run([str(comfyui_python()), "-c", code], capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--cpu", action="store_true", help="rehearse the script without a GPU")
    given = parser.parse_args()
    if reason := why_not():
        raise SystemExit(reason)
    if not given.cpu and not has_gpu():
        raise SystemExit("There is no GPU here: nothing was run, and nothing is known from it (--cpu rehearses it).")
    if given.cpu:
        print("A rehearsal on the CPU: no figure says anything of a GPU.\n")
    print("| way | file | LoRA | seconds | GB in use | difference |\n|---|---|---|---|---|---|")
    first: dict[tuple[str, bool], torch.Tensor] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        models = Path(folder) / "models"
        files = write_models(models, given.layers)
        ways = list(WAYS.items())[: 2 if given.cpu else None]  # on a CPU they are all the same
        for i, (way, flags) in enumerate(ways):
            base = Path(folder) / str(i)
            base.mkdir()
            (base / "models").symlink_to(models)
            server = Server(base, ("--cpu",) if given.cpu else flags)
            try:
                server.wait(300)
                for file in files:
                    for lora in (False, True):
                        latent, seconds, used = measure(server, file, lora, given.size)
                        difference = relative(latent, first.setdefault((file, lora), latent))
                        figures = f"{seconds:.1f} | {used:.1f} | {difference:.1e}"
                        print(f"| {way} | {file} | {'yes' if lora else 'no'} | {figures} |", flush=True)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
