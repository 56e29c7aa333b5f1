"""Checks that run inside ComfyUI's Python: what a size needs in memory by the host's estimates; two models compared.

What each returns is judged in test_inside_size.py.
"""

from __future__ import annotations

from typing import Any

from hosted import HIDDEN, PROMPTS, Parts, empty, encode, message_of, relative, run

# isort: split
import comfy.model_management
import comfy.supported_models
import torch
from pack.nodes.host import compare
from pack.zimage_core.sizes import OFFICIAL, memory


def check_memory(p: Parts) -> dict[str, list[float]]:
    """What the host sets aside for drawing and for decoding, as multiples of our numbers: by official size."""
    # Of the real configuration; the estimate asks the model for no more than its factor and its type.
    model = p.turbo.model
    factor, dtype = model.memory_usage_factor, model.manual_cast_dtype
    fused = comfy.model_management.pytorch_attention_flash_attention
    try:
        model.memory_usage_factor = comfy.supported_models.ZImage.memory_usage_factor
        model.manual_cast_dtype = torch.bfloat16
        comfy.model_management.pytorch_attention_flash_attention = lambda: True  # as on a GPU
        return {str(size): _multiples(model, p.vae, size.width, size.height) for size in OFFICIAL}
    finally:
        model.memory_usage_factor, model.manual_cast_dtype = factor, dtype
        comfy.model_management.pytorch_attention_flash_attention = fused


def _multiples(model: Any, vae: Any, width: int, height: int) -> list[float]:
    shape, ours = (3, 16, height // 8, width // 8), memory(width, height, batch=3)
    one = vae.memory_used_decode((1, *shape[1:]), torch.bfloat16)
    return [model.memory_required(shape) / ours.drawing, one / ours.decoding]


def check_compare(p: Parts) -> dict[str, Any]:
    """A model beside itself, patched as a LoRA does it, and beside Base; against single runs."""
    positive, negative, latent = encode(p.clip, PROMPTS[0]), encode(p.clip, "a blue square"), empty(2)
    patched = p.turbo.clone()
    key = "diffusion_model.layers.0.feed_forward.w2.weight"
    weight = p.turbo.model.state_dict()[key]
    patched.add_patches({key: (torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.2,)})

    def pair(b: Any, avoid: Any = None, vae: Any = p.vae) -> tuple[Any, list[str]]:
        images, text = compare.compare(p.turbo, b, positive, avoid, latent, vae, seed=5, hidden=HIDDEN)
        return images, text.split("\n")

    (_, same_a, same_b), same = pair(p.turbo)
    (_, plain, changed), lora = pair(patched)
    (joined, left, right), both = pair(p.base, negative)
    wide = right.shape[2]
    singles = [run(p.turbo, positive, latent=latent)[0], run(p.base, positive, negative, latent)[0]]
    return {
        "same": relative(same_a, same_b), "same words": same, "lora": relative(changed, plain), "lora words": lora,
        "both words": both, "shapes": [list(image.shape) for image in (joined, left, right)],
        "left": relative(joined[:, :, :wide], left), "right": relative(joined[:, :, -wide:], right),
        "gap": sorted(set(joined[:, :, wide:-wide].flatten().tolist())),
        "singles": [relative(a, p.vae.decode(b)) for a, b in zip((left, right), singles)],
        "no negative": message_of(lambda: pair(p.base)),
        "no vae": message_of(lambda: pair(p.turbo, vae=None)),
    }  # fmt: skip
