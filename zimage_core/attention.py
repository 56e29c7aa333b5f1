"""The attention call of the transformer, and its backends.

An attention backend is a callable `attention(q, k, v, mask) -> [B, S, heads * head_dim]` on q, k, v of shape
`[B, heads, S, head_dim]`. `mask` is None or a boolean `[B, 1, 1, S]`, True where a key may be attended to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """PyTorch's scaled dot-product attention: full, bidirectional, scale 1/sqrt(head_dim)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
