"""GUIDER: the host's, with the official guidance; our sampler and SamplerCustomAdvanced run the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...zimage_core.guidance import combine, is_guided, limit
from ...zimage_core.variants import notes
from ..settings import Guidance, sentences
from .checks import check_features, check_finite_start, check_finite_step, check_latent
from .conditions import EMPTY
from .model import ZImageModel
from .report import tell
from .schedule import variant_of


class Guider(comfy.samplers.CFGGuider):
    """The host's guider with the official normalisation and truncation; it counts forwards.

    It stops at the first number that is not finite, and says where that was.
    """

    def __init__(self, model: Any, positive: Any, negative: Any | None, guidance: Guidance) -> None:
        super().__init__(model)
        check_features(model, {"positive": positive, "negative": negative})
        self.inner_set_conds({"positive": positive} | ({} if negative is None else {"negative": negative}))
        self.set_cfg(guidance.cfg)
        self.guidance = guidance
        self.forwards, self.levels = 0, torch.zeros(1)

    def sample(
        self, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *rest: Any, **options: Any
    ) -> Any:
        check_latent(latent_image)
        if not isinstance(self.model_patcher.model, ZImageModel):  # ours asks in every sampler
            check_finite_start(self.original_conds, latent_image)
        self.forwards, self.levels = 0, sigmas
        return super().sample(noise, latent_image, sampler, sigmas, *rest, **options)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        cfg = self.cfg if self._is_guided(timestep) else 1.0
        if cfg != 1 and self.guidance.normalization > 0:
            options = {**options, "sampler_cfg_function": self._normalised(options.get("sampler_cfg_function"))}
        twice = "negative" in self.conds and (cfg != 1 or always_both(options))
        self.forwards += 2 if twice else 1
        denoised: Tensor = comfy.samplers.sampling_function(
            self.inner_model, x, timestep, self.conds.get("negative"), self.conds["positive"], cfg,
            model_options=options, seed=seed,
        )  # fmt: skip
        check_finite_step(self.model_patcher, x, denoised, timestep, self.levels)
        return denoised

    def _is_guided(self, timestep: Tensor) -> bool:
        if self.cfg == 1 or self.guidance.truncation >= 1:
            return bool(self.cfg != 1)
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


def always_both(options: dict[str, Any]) -> bool:
    """Whether another node wants both predictions at cfg 1 too; `options` are a MODEL's."""
    return bool(options.get("disable_cfg1_optimization", False))


def is_missed(model: Any, negative: Any | None) -> bool:
    """Whether a negative would be missed that cfg 1 leaves out: it says something, and no node has it made anyway."""
    says_something = any(not entry[1].get(EMPTY) for entry in negative or [])
    return says_something and not always_both(model.model_options)


def make_guider(model: Any, positive: Any, negative: Any | None, asked: Guidance, hidden: Any) -> tuple[Guider, str]:
    """The node's GUIDER, and what it says: the model's variant, and the guidance as resolved."""
    variant = variant_of(model)
    guidance = asked.resolved(variant.variant, negative is not None)
    found = notes(variant.variant, guidance.cfg, is_missed(model, negative))
    lines = [f"{', '.join([str(variant), *guidance.words()])}.", *sentences(found)]
    return Guider(model, positive, negative, guidance), tell("Z-Image Guider", lines, hidden)
