"""The noise levels of a run in the host: whose shift counts, and the sigmas that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_base
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...zimage_core.schedule import sigmas
from ...zimage_core.variants import STATISTIC_KEY, VARIANTS, VariantGuess, detect_variant
from ..settings import Shift
from .model import ZImageConfig
from .report import tell


def variant_of(model: Any) -> VariantGuess:
    """Turbo or Base: as our loader found, or guessed from the weights of a MODEL that the host's loader made."""
    config = model.model.model_config
    if isinstance(config, ZImageConfig):
        return config.variant
    unet = config.unet_config
    if not isinstance(model.model, comfy.model_base.Lumina2) or not unet.get("z_image_modulation"):
        raise ValueError(
            f"this node needs a Z-Image model, and this one is {type(model.model).__name__}: "
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


def levels(model: Any, steps: int, shift: Shift, strength: float) -> Tensor:
    """The run's sigmas. Strength 0 is one level and no step."""
    if shift.value is not None:
        return sigmas(steps, shift.value, strength)
    if strength == 0:
        return torch.zeros(1)
    # A schedule we know nothing of: strength is then the host's, a part of a longer schedule.
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", round(steps / strength))[-(steps + 1) :]


def make_sigmas(model: Any, steps: int, strength: float, shift: float, hidden: Any) -> tuple[Tensor, str]:
    """The node's SIGMAS, the sampler's own, and what it says. No step at all is the host's empty tensor."""
    variant = variant_of(model)
    steps, found = steps or variant.variant.steps, shift_of(model, shift)
    lines = [f"{variant}, {steps} steps, {found}, strength {strength:g}."]
    made = levels(model, steps, found, strength)
    return made if len(made) > 1 else torch.zeros(0), tell("Z-Image Sigmas", lines, hidden)


def with_shift(model: Any, shift: float) -> Any:
    """A clone under another shift; what counts in percent of the run (ranges, caches) then agrees with it."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    before = model.get_model_object("model_sampling")
    sampling = Sampling(model.model.model_config)
    # Models count their timesteps differently, and some scale their noise.
    sampling.set_parameters(shift=shift, multiplier=sampling.multiplier)
    if hasattr(before, "noise_scale"):
        sampling.set_noise_scale(before.noise_scale)
    model = model.clone()
    model.add_object_patch("model_sampling", sampling)
    return model


def set_shift(model: Any, preset: Mapping[str, Any] | None, hidden: Any) -> tuple[Any, str]:
    """The node's MODEL, and what it says. Raises ValueError for a MODEL whose schedule has no shift of this kind.

    `preset` is the dynamic combo's value: its key under "preset", and the shift if that is "custom".
    """
    if model.model.model_type != comfy.model_base.ModelType.FLOW:
        raise ValueError(
            f"the shift of {type(model.model).__name__} cannot be set here: it does not sample as Z-Image does, "
            f"along a straight flow with one shift, so use ComfyUI's ModelSampling node for it"
        )
    shift, source = _preset_shift(model, preset or {})
    return with_shift(model, shift), tell("Z-Image Model Sampling", [f"{Shift(shift, source)}."], hidden)


def _preset_shift(model: Any, preset: Mapping[str, Any]) -> tuple[float, str]:
    key = str(preset.get("preset"))
    if key == "auto":
        variant = variant_of(model)
        return variant.variant.shift, f"{variant.variant.title}, {variant.detail or variant.source}"
    if key == "custom":
        return float(preset["shift"]), "as set"
    if key.lower() not in VARIANTS:
        raise ValueError(f"preset must be one of auto, Turbo, Base, custom; it is {preset.get('preset')!r}")
    return VARIANTS[key.lower()].shift, f"{key}'s"
