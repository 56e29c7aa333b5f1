"""Checks that run inside ComfyUI's Python: what a size needs in memory, against the host's own estimates.

What each returns is judged in test_inside_size.py.
"""

from __future__ import annotations

from typing import Any

from hosted import Parts

# isort: split
import comfy.model_management
import comfy.supported_models
import torch
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
