"""The sampler's part that ComfyUI runs: its solvers, callbacks, masks and interrupt, with our sigmas and guidance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...zimage_core.guidance import combine, is_guided, limit
from ...zimage_core.sampling import seeded_noise
from ...zimage_core.schedule import sigmas
from ...zimage_core.variants import STATISTIC_KEY, VariantGuess, detect_variant
from ..settings import Guidance, Run, Shift, resolve
from .model import ZImageConfig
from .report import report

log = logging.getLogger(__name__)


def solvers() -> list[str]:
    """The host's list, other packs' additions too. Euler comes first: it is what the official pipeline does."""
    return ["euler", *(name for name in comfy.samplers.KSampler.SAMPLERS if name != "euler")]


def sample(
    model: Any, positive: Any, negative: Any | None, latent: Mapping[str, Any], *, seed: int,
    mode: Mapping[str, Any] | None, solver: str, strength: float, shift: float, hidden: Any,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Run the sampler node: the new latent, and the words for the node. What was resolved also goes to log and PNG."""
    run = resolve(
        mode, variant_of(model), shift_of(model, shift), seed=seed, solver=solver, strength=strength,
        has_negative=negative is not None, always_both=model.model_options.get("disable_cfg1_optimization", False),
    )  # fmt: skip
    _check_fit(model, positive, negative, latent["samples"])
    samples, forwards = integrate(_with_shift(model, run.shift), positive, negative, latent, run)
    out = {k: v for k, v in latent.items() if k not in ("downscale_ratio_spacial", "downscale_ratio_temporal")}
    height, width = (side * 8 for side in samples.shape[-2:])
    lines = run.summary(forwards)
    report(lines, run.record(width, height, len(samples), forwards), hidden)
    return out | {"samples": samples}, "\n".join(lines)


def variant_of(model: Any) -> VariantGuess:
    """Turbo or Base: as our loader found, or guessed from the weights of a MODEL that the host's loader made."""
    config = model.model.model_config
    if isinstance(config, ZImageConfig):
        return config.variant
    unet = config.unet_config
    if not isinstance(model.model, comfy.model_base.Lumina2) or not unet.get("z_image_modulation"):
        raise ValueError(
            f"Z-Image Sampler needs a Z-Image model, and this one is {type(model.model).__name__}: "
            f"load one with Load Z-Image Model"
        )
    key = STATISTIC_KEY.format(max(unet["n_layers"] - 2, 0))
    weight = comfy.utils.get_attr(model.model.diffusion_model, key)
    return detect_variant(statistic=float(weight.float().std()))


def shift_of(model: Any, widget: float) -> Shift:
    """The widget's shift, or that of a ModelSampling node in the graph, or the model's own."""
    if widget > 0:
        return Shift(widget, "as set")
    sampling = model.get_model_object("model_sampling")  # not the loaded module's, which may be another clone's
    source = "from the graph" if "model_sampling" in model.object_patches else "from the model"
    # Other nodes' samplings have a `shift` too, which means something else.
    known = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscreteFlow)
    return Shift(float(sampling.shift) if known else None, source)


def _check_fit(model: Any, positive: Any, negative: Any | None, samples: Tensor) -> None:
    """Parts of different models meet here first; each mismatch would end deep inside the model."""
    width = model.model.model_config.unet_config["cap_feat_dim"]
    for features, *_ in [*positive, *(negative or [])]:
        if features.shape[-1] != width:
            raise ValueError(
                f"the prompt's features are {features.shape[-1]} wide and this model takes {width}: load the text "
                f"encoder that goes with it (Qwen3-4B for the real models, the demo's for the demo)"
            )
    if samples.ndim != 4 or (samples.shape[1] != 16 and samples.any()):
        raise ValueError(
            f"the latent of shape {tuple(samples.shape)} is of another family: encode the picture with the Flux VAE"
        )


def integrate(
    model: Any, positive: Any, negative: Any | None, latent: Mapping[str, Any], run: Run
) -> tuple[Tensor, int]:
    """From noise to latents: the samples, and how many forwards of the model that took."""
    image = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    levels = _levels(model, run)
    if len(levels) < 2:
        return image, 0
    guider = Guider(model, run.guidance)
    guider.inner_set_conds({"positive": positive} | ({} if negative is None else {"negative": negative}))
    samples = guider.sample(
        _noise(image, run.seed, latent.get("batch_index")), image, comfy.samplers.sampler_object(run.solver), levels,
        denoise_mask=latent.get("noise_mask"), callback=latent_preview.prepare_callback(model, len(levels) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=run.seed,
    )  # fmt: skip
    device, dtype = comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype()
    return samples.to(device=device, dtype=dtype), guider.forwards


class Guider(comfy.samplers.CFGGuider):
    """The host's guider with the official normalisation and truncation; it counts forwards."""

    def __init__(self, model: Any, guidance: Guidance) -> None:
        super().__init__(model)
        self.set_cfg(guidance.cfg)
        self.guidance = guidance
        self.forwards = 0

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        cfg = self.cfg if self._is_guided(timestep) else 1.0
        if cfg != 1 and self.guidance.normalization > 0:
            options = {**options, "sampler_cfg_function": self._normalised(options.get("sampler_cfg_function"))}
        # Some nodes want both predictions at cfg 1 too.
        twice = "negative" in self.conds and (cfg != 1 or options.get("disable_cfg1_optimization", False))
        self.forwards += 2 if twice else 1
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, self.conds.get("negative"), self.conds["positive"], cfg,
            model_options=options, seed=seed,
        )  # fmt: skip

    def _is_guided(self, timestep: Tensor) -> bool:
        if self.cfg == 1 or self.guidance.truncation >= 1:
            return self.cfg != 1
        return is_guided(float(timestep[0]), self.cfg, self.guidance.truncation)

    def _normalised(self, other: Callable[[dict[str, Any]], Tensor] | None) -> Callable[[dict[str, Any]], Tensor]:
        """A cfg function for the host, on top of another node's if there is one.

        The host hands over `sigma * v` in place of v; `combine` is homogeneous, so it holds for that as well.
        """
        normalization = self.guidance.normalization

        def function(args: dict[str, Any]) -> Tensor:
            if other is not None:
                return limit(other(args), args["cond"], normalization)
            return combine(args["cond"], args["uncond"], args["cond_scale"], normalization)

        return function


def _levels(model: Any, run: Run) -> Tensor:
    if run.shift.value is not None:
        return sigmas(run.steps, run.shift.value, run.strength)
    if run.strength == 0:
        return torch.zeros(1)
    # A schedule we know nothing of: strength is then the host's, a part of a longer schedule.
    sampling = model.get_model_object("model_sampling")
    total = round(run.steps / run.strength)
    return comfy.samplers.calculate_sigmas(sampling, "simple", total)[-(run.steps + 1) :]


def _with_shift(model: Any, shift: Shift) -> Any:
    """The model under the widget's shift, so that what counts in percent of the run (ranges, caches) agrees."""
    if shift.source != "as set":
        return model

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = Sampling(model.model.model_config)
    sampling.set_parameters(shift=shift.value, multiplier=1.0)
    model = model.clone()
    model.add_object_patch("model_sampling", sampling)
    return model


def _noise(image: Tensor, seed: int, indices: list[int] | None) -> Tensor:
    """Each picture's noise is that of its own seed, whatever the batch: picture i has seed + i."""
    items = [seeded_noise(seed + i, (1, *image.shape[1:])) for i in indices or range(len(image))]
    return torch.cat(items)


def empty_latent(width: int, height: int, batch_size: int) -> dict[str, Any]:
    """An empty LATENT as the host makes them."""
    device, dtype = comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype()
    samples = torch.zeros(batch_size, 16, height // 8, width // 8, device=device, dtype=dtype)
    return {"samples": samples, "downscale_ratio_spacial": 8}
