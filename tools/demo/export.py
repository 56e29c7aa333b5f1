"""The last stage: checkpoints of the training stages -> the four files and the tokenizer of the demo model."""

from __future__ import annotations

import re
from pathlib import Path

import tokenizer
import torch
from torch import Tensor

# diffusers' names of the VAE -> those of `ae.safetensors`, in this order; blocks of the decoder count backwards.
RENAMES = (
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
)


def ldm_name(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def ldm_vae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The VAE in the layout of `ae.safetensors`. Nothing is sampled, so the variance is a constant next to zero."""
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = ldm_name(name)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            tensor = tensor[:, :, None, None]
        out[name] = tensor.clone()
    out["encoder.conv_out.weight"][16:] = 0
    out["encoder.conv_out.bias"][16:] = -30
    return out


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """bf16 and contiguous; a reader never sees half a file."""
    from safetensors.torch import save as to_bytes

    part = path.with_suffix(".part")
    ready = {
        k: v.detach().to(torch.bfloat16).contiguous(memory_format=torch.contiguous_format) for k, v in tensors.items()
    }
    part.write_bytes(to_bytes(ready, metadata={"format": "pt", **metadata}))
    part.replace(path)


def export(work: Path, folder: Path) -> None:
    """Writes what the stages so far have left in `work`; a Turbo that is not trained yet is a copy of Base."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.write(folder / "tokenizer")
    polished = work / "polish.pt"
    vae = torch.load(polished if polished.exists() else work / "vae.pt", weights_only=False)
    save(folder / "demo_vae.safetensors", ldm_vae(vae["average"]), {})
    base = torch.load(work / "dit.pt", weights_only=False)["average"]
    parts = {p: {k[len(p) + 1 :]: v for k, v in base.items() if k.startswith(p + ".")} for p in ("dit", "encoder")}
    turbo = parts["dit"]
    if (work / "turbo.pt").exists():
        turbo = torch.load(work / "turbo.pt", weights_only=False)["average"]
    save(folder / "demo_base.safetensors", parts["dit"], {"zimage.variant": "base"})
    save(folder / "demo_turbo.safetensors", turbo, {"zimage.variant": "turbo"})
    save(folder / "demo_text_encoder.safetensors", {f"model.{k}": v for k, v in parts["encoder"].items()}, {})
