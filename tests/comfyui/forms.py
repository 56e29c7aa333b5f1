"""The demo in every form that people have, as files for ComfyUI's process to load: {kind: {form: path}}."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import writers
from safetensors.torch import load_file, save_file
from torch import Tensor
from writers import DEMO, State

E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2
# Which forms a host takes as its own, by the layers' formats; all others are packed.
TRANSFORMERS = {
    "fp8 cast": writers.fp8_cast(E4),
    "fp8 e5m2 cast, all of it": writers.fp8_cast(E5, everything=True),
    "fp8 legacy": writers.fp8_scaled("legacy"),
    "fp8 comfy_quant": writers.fp8_scaled("comfy_quant"),
    "fp8 e5m2 comfy_quant": writers.fp8_scaled("comfy_quant", E5),
    "fp8 metadata": writers.fp8_scaled("metadata"),
    "fp8 rows": writers.fp8_scaled("comfy_quant", rows=True),
    "fp8 each second layer": writers.fp8_scaled("comfy_quant", every=2),
    "gguf Q8_0": writers.ggml("Q8_0"),
    "gguf Q4_0": writers.ggml("Q4_0", architecture="other"),
    "gguf Q5_1": writers.ggml("Q5_1"),
    "gguf Q4_K": writers.ggml("Q4_K"),
    "gguf F16": writers.ggml("F16"),
    "gguf BF16": writers.ggml("BF16", flat_tokens=False),
}
ENCODERS = {
    "fp8 cast": writers.fp8_cast(E4, everything=True),
    "fp8 comfy_quant": writers.fp8_scaled("comfy_quant"),
    "fp8 rows": writers.fp8_scaled("metadata", rows=True),
}
LLAMACPP = {"gguf Q8_0": "Q8_0", "gguf Q4_0": "Q4_0", "gguf Q5_1": "Q5_1", "gguf F16": "F16"}


def demo(name: str) -> State:
    """The demo's numbers in float32, under canonical names; the VAE's under those of its file."""
    state = load_file(str(DEMO / f"demo_{name}.safetensors"))
    return {key.removeprefix("model."): tensor.float() for key, tensor in state.items()}


def write_all(folder: Path) -> dict[str, dict[str, str]]:
    """All of them, and under "vae numbers" dense files of what a VAE's forms stand for."""
    made: dict[str, dict[str, Path]] = {"transformer": {}, "text_encoder": {}, "vae": {}, "vae numbers": {}}
    transformer, encoder, vae = demo("turbo"), demo("text_encoder"), demo("vae")
    shutil.copytree(DEMO / "tokenizer", folder / "tokenizer")
    for form, write in TRANSFORMERS.items():
        made["transformer"][form] = written(write, transformer, folder, f"turbo {form}")
    other = writers.diffusers_transformer(transformer)
    made["transformer"]["diffusers, fp8 of three scales"] = written(
        writers.fp8_scaled("comfy_quant"), other, folder, "turbo diffusers fp8"
    )
    made["transformer"]["diffusers, fp8 cast"] = written(writers.fp8_cast(E4), other, folder, "turbo diffusers cast")
    sdcpp = {f"model.diffusion_model.{k}": t for k, t in writers.sdcpp_transformer(transformer).items()}
    made["transformer"]["sd.cpp gguf"] = written(writers.ggml("Q8_0", "none"), sdcpp, folder, "turbo sdcpp gguf")
    made["transformer"]["three types in one"] = written(three_types, transformer, folder, "turbo three")
    made["transformer"]["shards"] = shards(folder / "shards", transformer)
    for form, write in ENCODERS.items():
        state = {f"model.{key}": tensor for key, tensor in encoder.items()}
        made["text_encoder"][form] = written(write, state, folder, f"encoder {form}")
    for form, kind in LLAMACPP.items():
        state = writers.llamacpp_encoder(encoder)
        made["text_encoder"][form] = written(writers.ggml(kind, "qwen3"), state, folder, f"encoder {form}")
    for form, write in {
        "float32": writers.dense(torch.float32),
        "float16": writers.dense(torch.float16),
        "fp8": writers.fp8_cast(E4, everything=True),
    }.items():
        made["vae"][form] = written(write, vae, folder, f"vae {form}")
        rounded = {name: tensor.to(E4) for name, tensor in vae.items()} if form == "fp8" else vae
        made["vae numbers"][form] = written(writers.dense(torch.float32), rounded, folder, f"vae {form} numbers")
    everything = all_in_one(folder / "all in one.safetensors", transformer, encoder, vae)
    pipeline = diffusers_folder(folder / "turbo pipeline", transformer, encoder)
    for kind in ("transformer", "text_encoder", "vae"):
        made[kind]["all in one"] = everything
    for kind in ("transformer", "text_encoder"):
        made[kind]["diffusers folder"] = pipeline
    return {kind: {form: str(path) for form, path in forms.items()} for kind, forms in made.items()}


def written(write, state: State, folder: Path, name: str) -> Path:
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.{'gguf' if 'gguf' in name else 'safetensors'}"
    write(state, path)
    return path


def three_types(state: State, path: Path) -> None:
    """sd.cpp's split projections in a format each, and only some of them: one matrix of three storage formats."""
    out: State = {}
    for name, tensor in writers.sdcpp_transformer(state).items():
        if name.endswith("qkv.weight"):
            out[name] = tensor.to(E4)
        elif name.endswith("qkv.weight.1"):
            out[name] = tensor.to(E5)
        else:
            out[name] = tensor.bfloat16()
    save_file(out, str(path))


def shards(folder: Path, state: State) -> Path:
    """Three shards of a bf16 turbo and their index, which is the one that is named."""
    folder.mkdir()
    names = sorted(state)
    weight_map = {}
    for i in range(3):
        file = f"turbo-{i + 1:05}-of-00003.safetensors"
        part = {name: state[name].bfloat16() for name in names[i::3]}
        save_file(part, str(folder / file))
        weight_map |= dict.fromkeys(part, file)
    index = folder / "turbo.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return index


def diffusers_folder(folder: Path, transformer: State, encoder: State) -> Path:
    for part in ("transformer", "text_encoder"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "ZImagePipeline"}', encoding="utf-8")
    state = {key: tensor.bfloat16() for key, tensor in writers.diffusers_transformer(transformer).items()}
    save_file(state, str(folder / "transformer" / "diffusion_pytorch_model.safetensors"))
    state = {f"model.{key}": tensor.bfloat16() for key, tensor in encoder.items()}
    save_file(state, str(folder / "text_encoder" / "model.safetensors"))
    shutil.copytree(DEMO / "tokenizer", folder / "tokenizer")
    return folder


def all_in_one(path: Path, transformer: State, encoder: State, vae: State) -> Path:
    prefixes = {
        "model.diffusion_model.": transformer, "text_encoders.qwen3_4b.transformer.model.": encoder,
        "vae.": vae,
    }  # fmt: skip
    tensors: dict[str, Tensor] = {}
    for prefix, state in prefixes.items():
        kept = {
            key: tensor.to(E4 if writers.is_matrix(key, tensor) else torch.bfloat16) for key, tensor in state.items()
        }
        tensors |= {prefix + key: tensor for key, tensor in kept.items()}
    save_file(tensors, str(path))
    return path
