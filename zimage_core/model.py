"""S3-DiT, the single-stream diffusion transformer of Z-Image: one file, read from top to bottom.

    caption features [L, 2560] --embed, pad, refine (2 blocks)--------------.
                                                                             +-- 30 blocks -- velocity [16, h, w]
    latents [16, h, w] -- 2 x 2 patches, embed, pad, refine (2 blocks) ------'

Conventions. Sigma goes in (1 = pure noise, 0 = clean) and the velocity `noise - x0` comes out; the reference's own
`1 - sigma` and `x0 - noise` appear in this file and nowhere else. Module attributes carry the names that checkpoints
in the original (ComfyUI) layout use, so `state_dict()` is that layout.

Sources: Tongyi-MAI/Z-Image (Apache-2.0) and diffusers' ZImageTransformer2DModel, which the tests compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, sdpa

# Captions and images are each filled to a multiple of this many tokens, with learned pad tokens that are attended to.
SEQUENCE_MULTIPLE = 32
FREQUENCY_DIM = 256


@dataclass(frozen=True)
class S3DiTConfig:
    """The geometry of an S3-DiT; the defaults are those of every released Z-Image. 0 and () follow from `dim`."""

    dim: int = 3840
    n_layers: int = 30
    n_refiner_layers: int = 2
    n_heads: int = 30
    cap_feat_dim: int = 2560
    in_channels: int = 16
    patch_size: int = 2
    ffn_dim: int = 0
    adaln_dim: int = 0
    time_dim: int = 1024
    axes_dims: tuple[int, ...] = ()
    rope_theta: float = 256.0
    norm_eps: float = 1e-5
    time_scale: float = 1000.0

    def __post_init__(self) -> None:
        derived = {
            "ffn_dim": int(self.dim / 3 * 8),
            "adaln_dim": min(self.dim, 256),
            # Frame, row and column share a head's channels as 1/4, 3/8 and 3/8: 32, 48 and 48 of 128.
            "axes_dims": (self.head_dim // 4, self.head_dim * 3 // 8, self.head_dim * 3 // 8),
        }
        for name, value in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        if sum(self.axes_dims) != self.head_dim or any(d % 2 for d in self.axes_dims):
            raise ValueError(
                f"RoPE axes {self.axes_dims} must be even and add up to the head dimension {self.head_dim} "
                f"(dim {self.dim} / n_heads {self.n_heads})"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def patch_dim(self) -> int:
        return self.in_channels * self.patch_size**2


@dataclass(frozen=True)
class Context:
    """What a picture needs that does not depend on the step; made by `S3DiT.prepare`.

    captions   [B, L, dim]            refined caption tokens, learned pads included, zeros up to the longest item
    rope       [B, N + L, d/2, 2]     cosine and sine for image tokens, then caption tokens
    mask       [B, 1, 1, N + L]       True where a token is real or a learned pad; None if all are
    n_image    N                      image tokens, learned pads included
    size       (h, w)                 of the latents it was made for
    """

    captions: Tensor
    rope: Tensor
    mask: Tensor | None
    n_image: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.captions.shape[0]


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.w1 = ops.Linear(dim, hidden, bias=False, **factory)
        self.w2 = ops.Linear(hidden, dim, bias=False, **factory)
        self.w3 = ops.Linear(dim, hidden, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(finite(F.silu(self.w1(x)) * self.w3(x)))


class JointAttention(nn.Module):
    def __init__(self, config: S3DiTConfig, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = ops.Linear(config.dim, 3 * config.dim, bias=False, **factory)
        self.out = ops.Linear(config.dim, config.dim, bias=False, **factory)
        self.q_norm = ops.RMSNorm(config.head_dim, eps=config.norm_eps, **factory)
        self.k_norm = ops.RMSNorm(config.head_dim, eps=config.norm_eps, **factory)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None, attention: Attention) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        q, k = apply_rope(self.q_norm(q), rope), apply_rope(self.k_norm(k), rope)
        return self.out(attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask))


class Block(nn.Module):
    """One transformer block; the caption refiner's have no modulation by the timestep."""

    def __init__(self, config: S3DiTConfig, ops: Any, modulated: bool = True, **factory: Any) -> None:
        super().__init__()
        dim, eps = config.dim, config.norm_eps
        self.attention = JointAttention(config, ops, **factory)
        self.feed_forward = FeedForward(dim, config.ffn_dim, ops, **factory)
        self.attention_norm1 = ops.RMSNorm(dim, eps=eps, **factory)
        self.ffn_norm1 = ops.RMSNorm(dim, eps=eps, **factory)
        self.attention_norm2 = ops.RMSNorm(dim, eps=eps, **factory)
        self.ffn_norm2 = ops.RMSNorm(dim, eps=eps, **factory)
        if modulated:
            self.adaLN_modulation = nn.Sequential(ops.Linear(config.adaln_dim, 4 * dim, **factory))

    def forward(
        self, x: Tensor, rope: Tensor, mask: Tensor | None, attention: Attention, time: Tensor | None = None
    ) -> Tensor:
        """`time` is the timestep embedding `[B, adaln_dim]` of a modulated block."""
        if time is None:
            x = x + self.attention_norm2(finite(self.attention(self.attention_norm1(x), rope, mask, attention)))
            return x + self.ffn_norm2(finite(self.feed_forward(self.ffn_norm1(x))))
        scale_attn, gate_attn, scale_ffn, gate_ffn = self.adaLN_modulation(time).unsqueeze(1).chunk(4, dim=-1)
        h = self.attention(self.attention_norm1(x) * (1 + scale_attn), rope, mask, attention)
        x = x + gate_attn.tanh() * self.attention_norm2(finite(h))
        h = self.feed_forward(self.ffn_norm1(x) * (1 + scale_ffn))
        return x + gate_ffn.tanh() * self.ffn_norm2(finite(h))


class TimestepEmbedder(nn.Module):
    def __init__(self, config: S3DiTConfig, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            ops.Linear(FREQUENCY_DIM, config.time_dim, **factory),
            nn.SiLU(),
            ops.Linear(config.time_dim, config.adaln_dim, **factory),
        )

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        half = FREQUENCY_DIM // 2
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10000) / half))
        angles = t.float()[:, None] * frequencies
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype))


class FinalLayer(nn.Module):
    def __init__(self, config: S3DiTConfig, ops: Any, **factory: Any) -> None:
        super().__init__()
        self.norm_final = ops.LayerNorm(config.dim, elementwise_affine=False, eps=1e-6, **factory)
        self.linear = ops.Linear(config.dim, config.patch_dim, **factory)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), ops.Linear(config.adaln_dim, config.dim, **factory))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.linear(self.norm_final(x) * (1 + self.adaLN_modulation(time)).unsqueeze(1))


class S3DiT(nn.Module):
    """The transformer of Z-Image.

    `ops` is a namespace with `Linear`, `RMSNorm` and `LayerNorm` (default `torch.nn`; a host passes its own),
    `attention` a backend as `attention.py` describes them, `dtype` the type of parameters and arithmetic.

    `forward` is the short way; a host drives the same steps itself: `embed_captions`, `embed_latents`,
    `refine`, `run_block(i, ...)`, `finish`.
    """

    info: Any = None  # the CheckpointInfo of what was loaded into it

    def __init__(
        self,
        config: S3DiTConfig | None = None,
        *,
        ops: Any = nn,
        attention: Attention = sdpa,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config = config or S3DiTConfig()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.config = config
        self.dtype = dtype or torch.get_default_dtype()
        self.attention = attention
        self.x_embedder = ops.Linear(config.patch_dim, config.dim, **factory)
        self.noise_refiner = nn.ModuleList(Block(config, ops, **factory) for _ in range(config.n_refiner_layers))
        self.context_refiner = nn.ModuleList(
            Block(config, ops, modulated=False, **factory) for _ in range(config.n_refiner_layers)
        )
        self.t_embedder = TimestepEmbedder(config, ops, **factory)
        self.cap_embedder = nn.Sequential(
            ops.RMSNorm(config.cap_feat_dim, eps=config.norm_eps, **factory),
            ops.Linear(config.cap_feat_dim, config.dim, **factory),
        )
        self.layers = nn.ModuleList(Block(config, ops, **factory) for _ in range(config.n_layers))
        self.final_layer = FinalLayer(config, ops, **factory)
        self.x_pad_token = nn.Parameter(torch.empty(1, config.dim, **factory))
        self.cap_pad_token = nn.Parameter(torch.empty(1, config.dim, **factory))
        for token in (self.x_pad_token, self.cap_pad_token):
            # A host may ask for float8, which has no normal_.
            token.data.copy_(torch.randn(token.shape, device=token.device) * 0.02)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> S3DiT:
        # What `.to()`, `.half()`, ... do to parameters, they do to the type of the arithmetic.
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    @property
    def device(self) -> torch.device:
        return self.cap_pad_token.device

    def forward(self, latents: Tensor, sigma: float | Tensor, captions: Sequence[Tensor] | Context) -> Tensor:
        """The velocity `noise - x0` at noise level `sigma`.

        latents   `[B, 16, h, w]` in model space, h and w even
        sigma     a float or `[B]`, in [0, 1]
        captions  B caption features `[L_i, cap_feat_dim]` (one serves a whole batch), or what `prepare` returned
        returns   `[B, 16, h, w]` in the type of `latents`
        """
        batch, _, h, w = latents.shape
        ctx = self.prepare(captions, h, w)
        if len(ctx) not in (1, batch):
            raise ValueError(f"{len(ctx)} captions for {batch} latents: give one caption, or one for each")
        x = latents.to(self.dtype)
        time = self.embed_sigma(sigma, x)
        x = self.embed_latents(x)
        x = self.refine(x, ctx.rope[:, : ctx.n_image], None, time)
        x = torch.cat((x, ctx.captions.expand(batch, -1, -1)), dim=1)
        for i in range(len(self.layers)):
            x = self.run_block(i, x, ctx.rope, ctx.mask, time)
        return self.finish(x, time, h, w).to(latents.dtype)

    def prepare(self, captions: Sequence[Tensor] | Context, h: int, w: int) -> Context:
        """What does not depend on the step, for latents of h by w: refined captions, RoPE tables, the mask.

        A context that was prepared already comes back as it is; ValueError if it was for another size.
        """
        if isinstance(captions, Context):
            if captions.size != (h, w):
                raise ValueError(f"the context was prepared for latents of {captions.size}, and these are {(h, w)}")
            return captions
        if isinstance(captions, Tensor) and captions.ndim != 3:
            raise ValueError(f"captions are a list of [L, D] tensors, not one of shape {tuple(captions.shape)}")
        if h % self.config.patch_size or w % self.config.patch_size:
            raise ValueError(f"latents of {h} x {w} cannot be cut into patches: both sides must be even")
        tokens, lengths = self.embed_captions([c.to(self.device, self.dtype) for c in captions])
        image_rope, caption_rope = self.rope(lengths, h, w, tokens.device)
        tokens = self.refine(tokens, caption_rope, attendable(lengths, 0, tokens.device))
        n_image = image_rope.shape[1]
        return Context(
            captions=tokens,
            rope=torch.cat((image_rope, caption_rope), dim=1),
            mask=attendable(lengths, n_image, tokens.device),
            n_image=n_image,
            size=(h, w),
        )

    # The steps, in order.

    def embed_captions(self, captions: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Caption features `[L_i, cap_feat_dim]` -> tokens `[B, L, dim]` and each item's length with its learned pads.

        Rows past an item's length are zeros, there only to make the batch rectangular.
        """
        flat = self.cap_embedder(finite(torch.cat(list(captions))))
        pad = self.pad_token(self.cap_pad_token, flat)
        items = [
            torch.cat((tokens, pad.expand(-len(tokens) % SEQUENCE_MULTIPLE, -1)))
            for tokens in flat.split([len(c) for c in captions])
        ]
        return nn.utils.rnn.pad_sequence(items, batch_first=True), [len(i) for i in items]

    def pad_token(self, token: nn.Parameter, like: Tensor) -> Tensor:
        """A learned pad token, ready to stand beside `like`; a host that keeps weights elsewhere overrides this."""
        return token.to(like.device, like.dtype)

    def embed_sigma(self, sigma: float | Tensor, latents: Tensor) -> Tensor:
        """Noise levels of `latents` -> timestep embeddings `[B, adaln_dim]` in their type.

        The reference counts time from noise to picture.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=latents.device).expand(len(latents))
        return self.t_embedder((1 - sigma) * self.config.time_scale, latents.dtype)

    def embed_latents(self, latents: Tensor) -> Tensor:
        """Latents `[B, 16, h, w]` -> image tokens `[B, N, dim]`, filled up with learned pads."""
        tokens = self.x_embedder(patchify(latents, self.config.patch_size))
        pad = self.pad_token(self.x_pad_token, tokens).expand(len(tokens), -tokens.shape[1] % SEQUENCE_MULTIPLE, -1)
        return torch.cat((tokens, pad), dim=1)

    def refine(self, tokens: Tensor, rope: Tensor, mask: Tensor | None, time: Tensor | None = None) -> Tensor:
        """Caption tokens (without `time`) or image tokens (with it) through the blocks that see them alone."""
        for block in self.context_refiner if time is None else self.noise_refiner:
            tokens = block(tokens, rope, mask, self.attention, time)
        return tokens

    def run_block(self, i: int, x: Tensor, rope: Tensor, mask: Tensor | None, time: Tensor) -> Tensor:
        """Main block i on the whole sequence `[B, N + L, dim]`: image tokens first, then caption tokens."""
        return self.layers[i](x, rope, mask, self.attention, time)

    def finish(self, x: Tensor, time: Tensor, h: int, w: int) -> Tensor:
        """The sequence after the last block -> velocity `[B, 16, h, w]`. The reference predicts `x0 - noise`."""
        size = self.config.patch_size
        tokens = self.final_layer(x[:, : (h // size) * (w // size)], time)
        return -unpatchify(tokens, h, w, size)

    def rope(
        self, lengths: Sequence[int], h: int, w: int, device: torch.device,
        scale: tuple[float, float] = (1.0, 1.0), shift: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """RoPE tables of image tokens `[B, N, d/2, 2]` and caption tokens `[B, L, d/2, 2]`: cosine and sine, float32.

        A caption of `length` tokens (learned pads counted) sits at (1, 0, 0) to (length, 0, 0), the image behind it
        at (length + 1, row, column), and the image's own pads at the origin. `scale` and `shift` move rows and columns.
        """
        rows, columns = h // self.config.patch_size, w // self.config.patch_size
        longest = max(lengths)
        # Angles for the few distinct positions of each axis; the grid only repeats them.
        time = self.axis_rope(0, torch.arange(longest + 2)).to(device)
        row = self.axis_rope(1, torch.arange(rows) * scale[0] + shift[0]).to(device)
        column = self.axis_rope(2, torch.arange(columns) * scale[1] + shift[1]).to(device)
        first = [self.axis_rope(axis, torch.zeros(1)).to(device) for axis in (1, 2)]
        grid = torch.cat((row[:, None].expand(-1, columns, -1, -1), column.expand(rows, -1, -1, -1)), dim=2).flatten(
            0, 1
        )
        pads = torch.cat((time[:1], *first), dim=1).expand(-len(grid) % SEQUENCE_MULTIPLE, -1, -1)
        images = [
            torch.cat((torch.cat((time[length + 1].expand(len(grid), -1, -1), grid), dim=1), pads))
            for length in lengths
        ]
        words = torch.cat((time[1 : longest + 1], *(t.expand(longest, -1, -1) for t in first)), dim=1)
        return torch.stack(images), words.expand(len(lengths), -1, -1, -1)

    def axis_rope(self, axis: int, positions: Tensor) -> Tensor:
        """Positions `[n]` on one axis -> cosine and sine `[n, d_axis/2, 2]`; angles in float64, as the reference."""
        dim = self.config.axes_dims[axis]
        frequencies = self.config.rope_theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = positions.double()[:, None] * frequencies
        return torch.stack((angles.cos(), angles.sin()), dim=-1).float()


def attendable(lengths: Sequence[int], n_image: int, device: torch.device) -> Tensor | None:
    """The boolean mask `[B, 1, 1, n_image + L]` of a ragged batch; None where all captions have one length."""
    if len(set(lengths)) == 1:
        return None
    ends = n_image + torch.tensor(lengths, device=device)
    return (torch.arange(n_image + max(lengths), device=device) < ends[:, None])[:, None, None]


def apply_rope(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate adjacent channel pairs of `x` `[B, S, heads, d]` by `rope` `[B, S, d/2, 2]`, in float32."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope.unsqueeze(2).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)


def patchify(latents: Tensor, size: int) -> Tensor:
    """`[B, C, h, w]` -> `[B, (h/size)(w/size), size * size * C]`, channels fastest within a patch."""
    b, c, h, w = latents.shape
    x = latents.view(b, c, h // size, size, w // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // size) * (w // size), size * size * c)


def unpatchify(tokens: Tensor, h: int, w: int, size: int) -> Tensor:
    """The inverse of `patchify`."""
    x = tokens.view(len(tokens), h // size, w // size, size, size, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, h, w)


def finite(x: Tensor) -> Tensor:
    """float16 overflows in Z-Image's wide layers; clamp there, and leave every other type alone."""
    return torch.nan_to_num(x, nan=0.0, posinf=65504.0, neginf=-65504.0) if x.dtype == torch.float16 else x
