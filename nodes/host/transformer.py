"""Our S3DiT behind ComfyUI's calling convention: its casts, its attention, its patches, wrappers and options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import comfy.ldm.common_dit
import comfy.ops
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention_masked
from torch import Tensor, nn

from ...zimage_core.attention import Attention
from ...zimage_core.model import SEQUENCE_MULTIPLE, S3DiT, S3DiTConfig, attendable

Options = dict[str, Any]
_GEOMETRY = {field.name for field in dataclasses.fields(S3DiTConfig)}


class HostS3DiT(S3DiT):
    """S3DiT as a `diffusion_model`: timesteps are sigmas, and what comes back is the velocity that CONST expects."""

    def __init__(self, *, operations: Any, device: Any = None, dtype: torch.dtype | None = None, **unet_config: Any):
        """`unet_config` is the host's dictionary; what is not geometry in it is for the host alone."""
        config = S3DiTConfig(**{name: value for name, value in unet_config.items() if name in _GEOMETRY})
        super().__init__(config, ops=operations, device=device, dtype=dtype)
        # Other nodes look for these on the host's own class.
        self.dim, self.n_heads, self.axes_dims = config.dim, config.n_heads, config.axes_dims
        self.in_channels = self.out_channels = config.in_channels
        self.patch_size = config.patch_size
        self.pad_tokens_multiple = SEQUENCE_MULTIPLE

    def pad_token(self, token: nn.Parameter, like: Tensor) -> Tensor:
        return comfy.ops.cast_to_input(token, like)

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor, context: Tensor, num_tokens: Any = None, attention_mask: Any = None,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, kwargs.get("transformer_options", {})
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, num_tokens, attention_mask, **kwargs)

    def _forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, num_tokens: Any = None, attention_mask: Any = None,
        transformer_options: Options | None = None, caption_lengths: Sequence[int] | None = None, **_: Any,
    ) -> Tensor:  # fmt: skip
        """`context` is `[B, L, D]`; `caption_lengths` says how much of each row is caption, if not all of it."""
        options = {} if transformer_options is None else transformer_options
        height, width = x.shape[-2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, (self.patch_size, self.patch_size))
        captions = _without_padding(context, caption_lengths)
        groups = _equal_lengths(captions) if _has_patches(options) else [range(len(x))]
        if len(groups) == 1:
            v = self._velocity(x, timesteps, captions, options)
        else:
            v = torch.empty_like(x)
            for rows in groups:
                index = torch.tensor(rows, device=x.device)
                part = _options_for(options, rows, len(x))
                v[index] = self._velocity(x[index], timesteps[index], [captions[i] for i in rows], part)
        return v[..., :height, :width]

    def _velocity(self, x: Tensor, sigma: Tensor, captions: Sequence[Tensor], options: Options) -> Tensor:
        """S3DiT.forward with the host's hooks."""
        h, w = x.shape[-2:]
        attention = _host_attention(options)
        time = self.embed_sigma(sigma, x)
        text, lengths = self.embed_captions(captions)
        image_rope, caption_rope = self._rope(lengths, h, w, x.device, options)
        mask = _additive(attendable(lengths, 0, x.device), x.dtype)
        for block in self.context_refiner:
            text = block(text, caption_rope, mask, attention)
        image = self._refine_image(self.embed_latents(x), text, image_rope, time, attention, x, options)
        n_image = image.shape[1]
        sequence = torch.cat((image, text), dim=1)
        rope = torch.cat((image_rope, caption_rope), dim=1)
        mask = _additive(attendable(lengths, n_image, x.device), x.dtype)
        sequence = self._run_blocks(sequence, n_image, rope, mask, time, attention, x, options)
        return self.finish(sequence, time, h, w)

    def _rope(
        self, lengths: Sequence[int], h: int, w: int, device: torch.device, options: Options
    ) -> tuple[Tensor, Tensor]:
        given = options.get("rope_options") or {}
        scale = given.get("scale_y", 1.0), given.get("scale_x", 1.0)
        shift = given.get("shift_y", 0.0), given.get("shift_x", 0.0)
        return self.rope(lengths, h, w, device, scale, shift)

    def _refine_image(
        self, image: Tensor, text: Tensor, rope: Tensor, time: Tensor, attention: Attention, x: Tensor, options: Options
    ) -> Tensor:
        patches = options.get("patches", {}).get("noise_refiner", [])
        before = image
        for i, block in enumerate(self.noise_refiner):
            image = block(image, rope, None, attention, time)
            for patch in patches:
                out = patch({
                    "img": image, "img_input": before, "txt": text, "pe": _host_rope(rope), "vec": time, "x": x,
                    "block_index": i, "transformer_options": options, "block_type": "noise_refiner",
                })  # fmt: skip
                image = out.get("img", image)
        return image

    def _run_blocks(
        self, sequence: Tensor, n: int, rope: Tensor, mask: Tensor | None, time: Tensor, attention: Attention,
        x: Tensor, options: Options,
    ) -> Tensor:  # fmt: skip
        """The main blocks on `[B, n + L, dim]`, image first. Patches may change their views of it in place."""
        patches = options.get("patches", {}).get("double_block", [])
        replacements = options.get("patches_replace", {}).get("dit", {})
        options["total_blocks"] = len(self.layers)
        options["block_type"] = "double"
        before = sequence[:, :n]
        for i, block in enumerate(self.layers):
            options["block_index"] = i
            replacement = replacements.get(("double_block", i))
            if replacement is None:
                sequence = block(sequence, rope, mask, attention, time)
            else:
                sequence = _replaced(replacement, block, sequence, n, rope, mask, time, attention, options)
            for patch in patches:
                out = patch({
                    "img": sequence[:, :n], "img_input": before, "txt": sequence[:, n:],
                    "pe": _host_rope(rope[:, :n]), "vec": time, "x": x, "block_index": i,
                    "transformer_options": options,
                })  # fmt: skip
                if "img" in out:
                    sequence[:, :n] = out["img"]
                if "txt" in out:
                    sequence[:, n:] = out["txt"]
        return sequence


def _replaced(
    replacement: Callable[..., dict[str, Any]], block: nn.Module, sequence: Tensor, n: int, rope: Tensor,
    mask: Tensor | None, time: Tensor, attention: Attention, options: Options,
) -> Tensor:  # fmt: skip
    """One block as another node wants it (`patches_replace`), which may call the original."""

    def original(args: dict[str, Any]) -> dict[str, Any]:
        out = block(torch.cat((args["img"], args["txt"]), dim=1), rope, mask, attention, args["vec"])
        return {"img": out[:, :n], "txt": out[:, n:]}

    args = {
        "img": sequence[:, :n], "txt": sequence[:, n:], "vec": time, "pe": _host_rope(rope), "attn_mask": mask,
        "transformer_options": options,
    }  # fmt: skip
    out = replacement(args, {"original_block": original})
    return torch.cat((out["img"], out["txt"]), dim=1)


def _host_attention(options: Options) -> Attention:
    """The host's attention as our blocks call it; `optimized_attention_override` acts inside it."""

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return optimized_attention_masked(q, k, v, q.shape[1], mask, skip_reshape=True, transformer_options=options)

    return attention


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A boolean mask in the form that every attention backend of the host takes."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def _host_rope(rope: Tensor) -> Tensor:
    """Our cosine and sine `[B, S, d/2, 2]` as the host's rotations `[B, S, 1, d/2, 2, 2]`."""
    cos, sin = rope.unbind(-1)
    return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2)).unsqueeze(2)


def _without_padding(context: Tensor, lengths: Sequence[int] | None) -> list[Tensor]:
    """The captions of a rectangular batch. Lengths that no longer fit (a wrapper changed the context) are ignored."""
    if lengths is None or len(lengths) != len(context) or max(lengths) != context.shape[1]:
        return list(context)
    return [row[:length] for row, length in zip(context, lengths)]


def _has_patches(options: Options) -> bool:
    """Whether other nodes look at single items' tokens, which must then not be padded for the batch's sake."""
    patches = options.get("patches", {})
    return bool(patches.get("double_block") or patches.get("noise_refiner") or options.get("patches_replace"))


def _equal_lengths(captions: Sequence[Tensor]) -> list[list[int]]:
    """Rows in groups whose captions fill up to the same length."""
    groups: dict[int, list[int]] = {}
    for i, caption in enumerate(captions):
        groups.setdefault(-(-len(caption) // SEQUENCE_MULTIPLE), []).append(i)
    return list(groups.values())


def _options_for(options: Options, rows: Sequence[int], batch: int) -> Options:
    """The options of a part of the batch: per-condition lists keep the entries whose rows are in it."""
    part = options.copy()
    for name in ("cond_or_uncond", "uuids"):
        entries = options.get(name)
        if entries:
            size = batch // len(entries)
            part[name] = [entries[i] for i in dict.fromkeys(row // size for row in rows)]
    return part
