"""The demo's text encoder: Qwen3's architecture, three layers deep.

Features are the hidden state before the last layer, so the third layer is never trained; it is there because every
reader of such files expects it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 128
CONFIG = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,  # ComfyUI's module knows no other
    "intermediate_size": 384,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "initializer_range": 0.07,
    "use_cache": False,
}


def build(vocabulary: int) -> nn.Module:
    from transformers import Qwen3Config, Qwen3Model

    model = Qwen3Model(Qwen3Config(vocab_size=vocabulary, **CONFIG))
    with torch.no_grad():
        model.embed_tokens.weight.normal_(std=0.3)
    return model


def features(model: nn.Module, ids: list[list[int]]) -> list[Tensor]:
    """Token ids of each caption -> features [L_i, WIDTH]. Right padding cannot reach back: attention is causal."""
    batch = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
    for row, item in zip(batch, ids):
        row[: len(item)] = torch.tensor(item)
    hidden = model(input_ids=batch, output_hidden_states=True).hidden_states[-2]
    return [h[: len(item)] for h, item in zip(hidden, ids)]
