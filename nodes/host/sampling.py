"""The sampler: ComfyUI's solvers, callbacks, masks and interrupt, with our sigmas, guidance and noise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...zimage_core.sampling import seeded_noise
from ..seeds import KEY, Seeds
from ..settings import Run, resolve, sentences, size_notes
from .checks import check_latent, feature_width
from .conditions import of_pictures
from .guider import Guider, is_missed
from .preview import make_previews
from .report import report
from .schedule import levels, shift_of, variant_of, with_shift


def solvers() -> list[str]:
    """The host's list, other packs' additions too. Euler comes first: it is what the official pipeline does."""
    return ["euler", *(name for name in comfy.samplers.KSampler.SAMPLERS if name != "euler")]


def batch_as_one(solver: str) -> bool:
    """Whether a solver draws noise on the way, or chooses its steps, for a whole batch at once."""
    function = getattr(comfy.samplers.sampler_object(solver), "sampler_function", None)
    can = function is not None and "noise_sampler" in inspect.signature(function).parameters
    return (can and solver not in ("res_multistep", "res_multistep_cfg_pp")) or "adaptive" in solver  # those have eta 0


def sample(
    model: Any, positive: Any, negative: Any | None, latent: Mapping[str, Any], *, seed: int,
    mode: Mapping[str, Any] | None, solver: str, strength: float, shift: float, draft: bool, preview: str,
    hidden: Any,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Run the sampler node: the new latent, and the words for the node. What was resolved also goes to log and PNG."""
    check_latent(latent["samples"])
    seeds = Seeds(seed, indices_of(latent), alone=not batch_as_one(solver))
    run = resolve(
        mode, variant_of(model), shift_of(model, shift), seeds=seeds, solver=solver, strength=strength,
        has_negative=negative is not None, draft=draft,
        missed=is_missed(model, negative),
    )  # fmt: skip
    # A shift of the widget becomes the model's: what counts in percent of the run then agrees with it.
    shifted = with_shift(model, shift) if shift > 0 else model
    samples, forwards, said = integrate(shifted, positive, negative, latent, run, preview)
    out = {k: v for k, v in latent.items() if k not in ("downscale_ratio_spacial", "downscale_ratio_temporal")}
    height, width = (side * 8 for side in samples.shape[-2:])
    run = run.with_notes(size_notes(width, height, feature_width(model)))
    lines = [*run.summary(forwards), *sentences(said)]
    report(lines, run.record(width, height, len(samples), forwards), hidden)
    drawn = {"samples": samples} | ({KEY: seeds} if forwards else {})  # what was not drawn keeps its seeds
    return out | drawn, "\n".join(lines)


def integrate(
    model: Any, positive: Any, negative: Any | None, latent: Mapping[str, Any], run: Run, preview: str,
    part: tuple[int, int] = (0, 0),
) -> tuple[Tensor, int, list[str]]:  # fmt: skip
    """From noise to latents: the samples, how many forwards of the model that took, and notes on the previews.

    `part` is for a run that is a part of the node's work: the steps before it, and the steps in all.
    """
    image = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    sigmas = levels(model, run.steps, run.shift, run.strength)
    positive, negative = (of_pictures(prompts, latent.get("batch_index")) for prompts in (positive, negative))
    guider = Guider(model, positive, negative, run.guidance)
    if len(sigmas) < 2:
        return image, 0, []
    callback, said = make_previews(model, len(sigmas) - 1, preview)
    if part[1]:
        callback = _as_part(callback, *part)
    samples = guider.sample(
        _noise(image, run.seeds.first, run.seeds.indices), image, comfy.samplers.sampler_object(run.solver), sigmas,
        denoise_mask=latent.get("noise_mask"), callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=run.seeds.first,
    )  # fmt: skip
    device, dtype = comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype()
    return samples.to(device=device, dtype=dtype), guider.forwards, said


def _as_part(callback: Callable[..., None], before: int, total: int) -> Callable[..., None]:
    """Progress that goes on where the run before it ended."""
    return lambda step, denoised, latents, _: callback(before + step, denoised, latents, total)


def _noise(image: Tensor, seed: int, indices: Sequence[int]) -> Tensor:
    """Each picture's noise is that of its own seed, whatever the batch: picture i has seed + i."""
    items = [seeded_noise(seed + i, (1, *image.shape[1:])) for i in indices]
    return torch.cat(items)


def indices_of(latent: Mapping[str, Any]) -> tuple[int, ...]:
    """The pictures' places in their batch, which another node may have taken a part of."""
    return tuple(latent.get("batch_index") or range(len(latent["samples"])))


def empty_latent(width: int, height: int, batch_size: int) -> dict[str, Any]:
    """An empty LATENT as the host makes them."""
    device, dtype = comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype()
    samples = torch.zeros(batch_size, 16, height // 8, width // 8, device=device, dtype=dtype)
    return {"samples": samples, "downscale_ratio_spacial": 8}
