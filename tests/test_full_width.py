"""One block at the published width (177 million weights) in every form of numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import writers
from oracles import relative
from test_formats import FORMS, path_for

from zimage_core.attention import sdpa
from zimage_core.checkpoint.detect import CheckpointInfo
from zimage_core.checkpoint.files import open_checkpoint
from zimage_core.checkpoint.load import CastOps, fill
from zimage_core.checkpoint.packed import PackedLinear
from zimage_core.checkpoint.storage import sources
from zimage_core.model import Block, S3DiTConfig

pytestmark = pytest.mark.slow
CONFIG = S3DiTConfig()
TOKENS = 8


def build(device: str = "cpu") -> Block:
    return Block(CONFIG, CastOps, device=device, dtype=torch.float32)


def exact_weights() -> writers.State:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in build("meta").state_dict().items():
        scale = tensor.shape[1:].numel() ** -0.5 if tensor.ndim > 1 else 0.1
        state[name] = torch.randn(tensor.shape, generator=generator) * scale + (tensor.ndim == 1 and "norm" in name)
    return state


def load_block(path: Path) -> Block:
    """From a file that holds nothing but one block, by the steps by which a whole model is loaded."""
    checkpoint = open_checkpoint(path)
    stored = sources(checkpoint, "transformer", "original", "")
    info = CheckpointInfo(path, "transformer", "original", "", None, None, sources=stored, checkpoint=checkpoint)
    block = build("meta")
    fill(block, info, torch.device("cpu"), torch.float32)
    return block


@pytest.fixture(scope="module")
def weights() -> writers.State:
    return exact_weights()


@torch.no_grad()
def run(block: Block) -> torch.Tensor:
    """What the block adds to its input, the part that its weights make."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, TOKENS, CONFIG.dim, generator=generator)
    time = torch.randn(1, CONFIG.adaln_dim, generator=generator)
    angles = torch.rand(1, TOKENS, CONFIG.head_dim // 2, generator=generator)
    rope = torch.stack((angles.cos(), angles.sin()), dim=-1)
    return block(x, rope, None, sdpa, time) - x


@pytest.fixture(scope="module")
def exact(weights) -> torch.Tensor:
    block = build("meta")
    block.load_state_dict(weights, assign=True)
    return run(block)


@pytest.fixture(scope="module")
def amplification(weights, exact) -> float:
    """By how much a small random error in every tensor grows on its way through the block: a rounding's yardstick."""
    generator = torch.Generator().manual_seed(2)
    size, noisy = 0.01, {}
    for name, tensor in weights.items():
        noise = torch.randn(tensor.shape, generator=generator)
        noisy[name] = tensor + noise * (size * tensor.norm() / noise.norm())
    block = build("meta")
    block.load_state_dict(noisy, assign=True)
    return relative(run(block), exact) / size


# How the marks are written makes no difference to the numbers: each kind of rounding once.
FORMS_OF_NUMBERS = [form for form in FORMS if not any(word in form for word in ("legacy", "metadata", "mixed", "no "))]


@pytest.mark.parametrize("form", FORMS_OF_NUMBERS)
def test_a_full_width_block_computes_what_its_rounding_explains(weights, exact, amplification, tmp_path, form):
    path = path_for(tmp_path, form)
    back = FORMS[form](weights, path)
    block = load_block(path)
    for name, layer in block.named_modules():
        if isinstance(layer, PackedLinear):
            assert torch.equal(layer.dequantized(torch.float32), back[f"{name}.weight"]), name
    out = run(block)
    assert out.isfinite().all()
    if form in writers.GGML_RANDOM:
        return  # random blocks are the rounding of no weights that one could compute with
    rounding = max(relative(back[name], tensor) for name, tensor in weights.items())
    assert relative(out, exact) <= 1.3 * amplification * rounding + 1e-6
