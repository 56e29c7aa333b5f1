"""Checkpoints in every form that people have, written by other people's code or after the published formats.

Each form takes known numbers by canonical name and returns what an independent reader makes of the file: the numbers
that must come back.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from oracles import ROOT
from safetensors.torch import save_file
from torch import Tensor

DEMO = ROOT / "zimage_core" / "demo"
State = dict[str, Tensor]

# Bytes of a GGML block that are float16 scales: random bytes there would be no numbers.
HALVES = {
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ2_XXS": [0], "IQ2_XS": [0],
    "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0], "IQ1_M": [], "IQ4_NL": [0], "IQ4_XS": [0],
}  # fmt: skip
GGML_ROUNDED = ["BF16", "F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]  # what the gguf package can write itself
GGML_RANDOM = list(HALVES)


def is_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not name.endswith("pad_token")


# Layouts: canonical names and numbers -> the layout's own.


def diffusers_transformer(state: State) -> State:
    out: State = {}
    for name, tensor in state.items():
        block, _, leaf = name.partition(".attention.qkv.")
        if leaf:
            for letter, rows in zip("qkv", tensor.chunk(3)):
                out[f"{block}.attention.to_{letter}.{leaf}"] = rows.clone()
            continue
        name = name.replace("attention.out.", "attention.to_out.0.")
        name = name.replace("attention.q_norm", "attention.norm_q").replace("attention.k_norm", "attention.norm_k")
        for head in ("x_embedder.", "final_layer."):
            name = name.replace(head, f"all_{head[:-1]}.2-1.") if name.startswith(head) else name
        out[name] = tensor
    return out


def sdcpp_transformer(state: State) -> State:
    out: State = {}
    for name, tensor in state.items():
        if name.endswith("attention.qkv.weight"):
            for i, rows in enumerate(tensor.chunk(3)):
                out[name + (f".{i}" if i else "")] = rows.clone()
        else:
            out[name] = tensor
    return out


LLAMACPP = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def llamacpp_encoder(state: State) -> State:
    out = {}
    for name, tensor in state.items():
        if name.startswith("layers."):
            _, number, leaf = name.split(".", 2)
            name = f"blk.{number}.{LLAMACPP[leaf.removesuffix('.weight')]}.weight"
        out[{"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}.get(name, name)] = tensor
    return out


def undiffused(state: State) -> State:
    """diffusers' names for a transformer back to the canonical ones, on any device."""
    out: State = {}
    for name, tensor in state.items():
        name = name.replace("all_x_embedder.2-1.", "x_embedder.").replace("all_final_layer.2-1.", "final_layer.")
        name = name.replace("to_out.0.", "out.").replace("norm_q", "q_norm").replace("norm_k", "k_norm")
        for letter in "qkv":
            name = name.replace(f"attention.to_{letter}.", "attention.qkv.")
        out[name] = torch.cat((out[name], tensor)) if name in out else tensor
    return out


def ldm_vae(vae) -> dict[str, str]:
    """diffusers' names of a VAE's tensors -> those of the LDM layout, by the modules' places."""
    levels = len(vae.decoder.up_blocks)
    names = {}
    for name in vae.state_dict():
        theirs = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        theirs = theirs.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        theirs = theirs.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
        theirs = theirs.replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
        theirs = theirs.replace("mid_block.attentions.0.to_", "mid.attn_1.")
        for level in range(levels):
            theirs = theirs.replace(f"down_blocks.{level}.", f"down.{level}.").replace("downsamplers.0", "downsample")
            theirs = theirs.replace(f"up_blocks.{level}.", f"up.{levels - 1 - level}.")
        names[name] = theirs.replace("upsamplers.0", "upsample").replace(".resnets.", ".block.")
    return names


def merges_of(tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]


# Forms of numbers. Each writes one file and returns the numbers that must come back, under the layout's own names.


def dense(dtype: torch.dtype):
    def write(state: State, path: Path, prefix: str = "") -> State:
        stored = {name: tensor.to(dtype) for name, tensor in state.items()}
        save_file({prefix + name: tensor for name, tensor in stored.items()}, str(path))
        return {name: tensor.float() for name, tensor in stored.items()}

    return write


def fp8_cast(dtype: torch.dtype, everything: bool = False):
    """Matrices cast without a scale; or really everything, norms and pad tokens too."""

    def write(state: State, path: Path, prefix: str = "") -> State:
        stored = {
            name: tensor.to(dtype if everything or is_matrix(name, tensor) else torch.bfloat16)
            for name, tensor in state.items()
        }
        save_file({prefix + name: tensor for name, tensor in stored.items()}, str(path))
        return {name: tensor.float() for name, tensor in stored.items()}

    return write


def _scaled(tensor: Tensor, dtype: torch.dtype, rows: bool) -> tuple[Tensor, Tensor]:
    largest = tensor.abs().amax(1, keepdim=True) if rows else tensor.abs().max()
    scale = (largest / torch.finfo(dtype).max).float()
    return (tensor / scale).to(dtype), scale


def fp8_scaled(how: str, dtype: torch.dtype = torch.float8_e4m3fn, rows: bool = False, every: int = 1):
    """`how` is the mark: "legacy", "comfy_quant" or "metadata". With `every` 2 each second matrix stays bfloat16."""

    def write(state: State, path: Path, prefix: str = "") -> State:
        stored: State = {}
        back: State = {}
        layers = {}
        conf = {"format": {torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2"}[dtype]}
        names = [name for name, tensor in state.items() if is_matrix(name, tensor)][::every]
        for name, tensor in state.items():
            if name not in names:
                stored[name] = tensor.bfloat16()
                back[name] = stored[name].float()
                continue
            stem, number = name.split(".weight")  # stable-diffusion.cpp's parts are numbered at the very end
            stored[name], scale = _scaled(tensor, dtype, rows)
            stored[stem + (".scale_weight" if how == "legacy" else ".weight_scale") + number] = scale
            back[name] = stored[name].float() * scale
            layers[stem] = conf
            if how == "comfy_quant":
                mark = torch.tensor(list(json.dumps(conf).encode()), dtype=torch.uint8)
                stored[stem + ".comfy_quant" + number] = mark
        if how == "legacy":
            stored["scaled_fp8"] = torch.empty(0, dtype=dtype)
            stored[stem + ".scale_input"] = torch.tensor(1.0)
        metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
        save_file({prefix + n: t for n, t in stored.items()}, str(path), metadata if how == "metadata" else None)
        return back

    return write


def random_blocks(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Valid blocks of a GGML type that nothing in Python writes, as the bytes of rows."""
    random = np.random.default_rng(seed)
    weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = random.integers(0, 256, (int(np.prod(shape)) // weights, size), dtype=np.uint8)
    for at in HALVES[name]:
        scales = random.uniform(0.5, 1, len(blocks)) * 0.002
        blocks[:, at : at + 2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)
    if name == "IQ1_M":
        blocks[:, [49, 51, 53, 55]] &= 0x0F
        blocks[:, 55] |= 0x10  # the float16's exponent lies here: small numbers
    return blocks.reshape(*shape[:-1], -1)


def ggml(type_name: str, architecture: str = "lumina2", flat_tokens: bool = True, metadata: dict | None = None):
    """A GGUF file as converters make it: vectors in F32, matrices of one type, pad tokens without their leading 1."""

    def write(state: State, path: Path, prefix: str = "") -> State:
        writer = gguf.GGUFWriter(str(path), architecture)
        for key, value in (metadata or {}).items():
            add = writer.add_array if isinstance(value, list) else writer.add_key_value
            add(key, value) if isinstance(value, list) else add(key, value, gguf.GGUFValueType.get_type(value))
        back: State = {}
        for i, (name, tensor) in enumerate(state.items()):
            kind = gguf.GGMLQuantizationType["F32"]
            numbers = tensor.float().numpy()
            if flat_tokens and name.endswith("pad_token"):
                numbers, kind = numbers.reshape(-1), gguf.GGMLQuantizationType["BF16"]
            elif tensor.ndim > 1:
                kind = gguf.GGMLQuantizationType[type_name]
                fits = numbers.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
                kind = kind if fits else gguf.GGMLQuantizationType["F16"]
            random = kind.name in HALVES
            data = random_blocks(kind.name, numbers.shape, i) if random else gguf.quants.quantize(numbers, kind)
            writer.add_tensor(prefix + name, data, raw_dtype=kind)
            back[name] = torch.from_numpy(gguf.quants.dequantize(data, kind)).reshape(tensor.shape)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return back

    return write
