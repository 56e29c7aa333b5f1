"""A real server: files of every form in the folders where people have them, by their right and by other names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui.graphs import DEMO, assert_red_circle, demo_prompt, succeed
from comfyui.server import ROOT, Server
from safetensors.torch import load_file, save_file

Forms = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def filled(server: Server, forms: Forms) -> Iterator[Server]:
    """One file of each kind of place, names in an order that ranks must undo."""
    models = server.base / "models"
    model, encoder = forms["transformer"], forms["text_encoder"]
    places = {
        model["gguf Q8_0"]: "diffusion_models/deep/down/turbo_z.gguf",
        model["fp8 comfy_quant"]: "diffusion_models/turbo_fp8.safetensors",
        model["gguf Q4_0"]: "unet/turbo_q4.gguf",
        model["all in one"]: "checkpoints/mine/all in one.safetensors",
        str(Path(model["shards"]).parent): "diffusion_models/shards",
        model["diffusers folder"]: "diffusers/turbo pipeline",
        encoder["gguf Q8_0"]: "text_encoders/qwen.gguf",
        str(ROOT / "zimage_core" / "demo" / "tokenizer"): "text_encoders/tokenizer",
    }
    for source, target in places.items():
        (models / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if Path(source).is_dir() else shutil.copy)(source, models / target)
    shutil.copytree(model["diffusers folder"], models / "diffusion_models" / "A pipeline")
    shutil.copytree(ROOT / "zimage_core" / "demo" / "tokenizer", models / "checkpoints" / "mine" / "tokenizer")
    (models / "diffusion_models" / "a_text.safetensors").write_text("not a model", encoding="utf-8")
    (models / "checkpoints" / "text.safetensors").write_text("not a model", encoding="utf-8")
    write_unreadable(models / "diffusion_models" / "a_int8.safetensors")
    yield server
    for folder in ("diffusion_models", "unet", "checkpoints", "diffusers", "text_encoders"):
        shutil.rmtree(models / folder)
        (models / folder).mkdir()


def write_unreadable(path: Path) -> None:
    """A model in a format that this version names and does not load."""
    state = load_file(str(ROOT / "zimage_core" / "demo" / "demo_turbo.safetensors"))
    stem = "layers.0.attention.qkv."
    mark = torch.tensor(list(b'{"format": "int8_tensorwise"}'), dtype=torch.uint8)
    int8 = {"weight": torch.zeros(384, 128, dtype=torch.int8), "weight_scale": torch.ones(384, 1), "comfy_quant": mark}
    save_file(state | {stem + key: tensor for key, tensor in int8.items()}, str(path))


def options(server: Server, node: str = "ZImageTransformerLoader") -> dict[str, Any]:
    return server.node(node)["input"]["required"]["file"][1]


def slashed(*parts: str) -> str:
    """As this system's ComfyUI shows a path."""
    return str(Path(*parts))


def test_what_loads_comes_first(filled: Server) -> None:
    file = options(filled)
    assert file["options"] == [
        "A pipeline",
        slashed("deep", "down", "turbo_z.gguf"),
        slashed("shards", "turbo.safetensors.index.json"),
        "turbo_fp8.safetensors",
        "turbo_q4.gguf",
        slashed("mine", "all in one.safetensors") + " [checkpoints]",
        "turbo pipeline [diffusers]",
        "a_int8.safetensors",
        "a_text.safetensors",
        f"{DEMO} (Turbo)",
        f"{DEMO} (Base)",
    ]
    assert file["default"] == "A pipeline"


def test_encoders_and_vaes_in_other_files(filled: Server) -> None:
    all_in_one = slashed("mine", "all in one.safetensors") + " [checkpoints]"
    encoders = options(filled, "ZImageTextEncoderLoader")["options"]
    assert encoders == ["qwen.gguf", all_in_one, "turbo pipeline [diffusers]", DEMO]
    assert options(filled, "ZImageVAELoader")["options"] == [all_in_one, DEMO]


@pytest.mark.parametrize(
    "name",
    [
        slashed("deep", "down", "turbo_z.gguf"),  # as it is listed
        "deep\\down/turbo_z.gguf",  # as another system writes it
        "turbo_z.gguf",  # as it lies in another's folder
        "elsewhere/turbo_z.gguf",
    ],
)
def test_a_gguf_draws_a_red_circle(filled: Server, name: str) -> None:
    prompt = demo_prompt(seed=1)
    prompt["model"]["inputs"] |= {"file": name, "variant": "turbo"}
    prompt["clip"]["inputs"]["file"] = "qwen.gguf"
    result = succeed(filled.run(prompt))
    assert_red_circle(filled.image(result, "save"))


def test_an_all_in_one_file_draws_a_red_circle(filled: Server) -> None:
    prompt = demo_prompt(seed=1)
    for name in ("model", "clip", "vae"):
        prompt[name]["inputs"]["file"] = slashed("mine", "all in one.safetensors") + " [checkpoints]"
    prompt["model"]["inputs"]["variant"] = "turbo"
    assert_red_circle(filled.image(succeed(filled.run(prompt)), "save"))


def test_a_missing_file_is_told_with_what_there_is(filled: Server) -> None:
    prompt = demo_prompt()
    prompt["model"]["inputs"]["file"] = "z_image_other.safetensors"
    result = filled.run(prompt)
    words = json.dumps(result.error)
    assert result.status == "refused"
    assert "there is no file 'z_image_other.safetensors'" in words
    assert "turbo_fp8.safetensors" in words and "a_text" not in words


def test_a_name_that_fits_two_files_is_not_guessed(filled: Server) -> None:
    folder = filled.base / "models" / "diffusion_models" / "second"
    folder.mkdir()
    try:
        shutil.copy(filled.base / "models" / "unet" / "turbo_q4.gguf", folder / "turbo_fp8.safetensors")
        prompt = demo_prompt()
        prompt["model"]["inputs"]["file"] = "third/turbo_fp8.safetensors"
        words = json.dumps(filled.run(prompt).error)
    finally:
        shutil.rmtree(folder)
    assert "turbo_fp8.safetensors and " in words and "choose one of them" in words
