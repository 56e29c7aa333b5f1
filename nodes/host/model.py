"""MODEL: our transformer under the host's own model class, so that its LoRA map, patches and samplers apply."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch
from comfy.ops import pick_operations
from comfy.patcher_extension import CallbacksMP

from ...zimage_core.checkpoint.detect import CheckpointInfo, inspect_checkpoint, overflow_statistic
from ...zimage_core.checkpoint.load import as_dtype, with_variant
from ...zimage_core.model import S3DiTConfig
from ...zimage_core.variants import STATISTIC_LIMIT, VariantGuess
from ..settings import size_notes
from .checks import check_finite_features, check_finite_latent, check_latent, check_width
from .conditions import LENGTHS, Captions, lengths_of
from .transformer import HostS3DiT
from .weights import is_quantised, packing, read_weights

log = logging.getLogger(__name__)


class ZImageConfig(comfy.supported_models.ZImage):
    """The host's description of a Z-Image model, with our geometry, and the variant with its own shift."""

    variant: VariantGuess

    def __init__(self, geometry: S3DiTConfig, variant: VariantGuess, allow_fp16: bool) -> None:
        super().__init__({"image_model": "lumina2", "allow_fp16": allow_fp16, **dataclasses.asdict(geometry)})
        self.sampling_settings["shift"] = variant.variant.shift
        self.variant = variant

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> ZImageModel:
        return ZImageModel(self, device=device)


class ZImageModel(comfy.model_base.Lumina2):
    """A subclass of Lumina2 because the host's LoRA map asks for one."""

    joint_cfg = True  # whether positive and negative run as one batch
    _noted = (0, 0)  # the size that was looked at last

    def __init__(self, model_config: ZImageConfig, device: Any = None) -> None:
        flow = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, model_config, flow, device=device, unet_model=HostS3DiT)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """The same keys for every condition, or the host would not run positive and negative as one batch."""
        self._check_start(**kwargs)
        out = comfy.model_base.BaseModel.extra_conds(self, **kwargs)
        context = kwargs.get("cross_attn")
        if context is not None:
            out["c_crossattn"] = Captions(context, self.joint_cfg)
            out[LENGTHS] = lengths_of(context, kwargs.get(LENGTHS))
        return out

    def _check_start(
        self, cross_attn: Any = None, noise: Any = None, latent_image: Any = None, prompt_type: str = "positive",
        **_: Any,
    ) -> None:  # fmt: skip
        """Asked once a run, in any sampler: our sentences in place of a black picture."""
        width = self.model_config.unet_config["cap_feat_dim"]
        if cross_attn is not None:
            check_width(cross_attn, width, prompt_type)
            check_finite_features(cross_attn, prompt_type)
        if noise is not None:
            check_latent(noise)
            self._note_size((8 * noise.shape[-1], 8 * noise.shape[-2]), width)
        check_finite_latent(latent_image)

    def _note_size(self, size: tuple[int, int], features: int) -> None:
        """In the log, once for each size in a row: the host's samplers have no other place for it."""
        if size == self._noted:
            return
        self._noted = size
        for note in size_notes(*size, features):
            log.warning("%s", note)

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        return {}


def load_transformer(
    path: str, variant: str = "auto", dtype: str = "auto", joint_cfg: bool = True, disable_dynamic: bool = False
) -> Any:
    """A MODEL from a file. Also the factory by which the host loads it again, hence the plain arguments.

    Raises CheckpointError with what the file is if it is no Z-Image transformer.
    """
    info = inspect_checkpoint(path, kind="transformer")
    if variant != "auto":
        info = with_variant(info, variant)
    weights = read_weights(info)
    quantised = is_quantised(weights)
    config = _host_config(info, weights, dtype)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    offload_device = mm.unet_offload_device()
    model = config.get_model(None)
    model.joint_cfg = joint_cfg
    patcher = patcher_class(model, load_device=mm.get_torch_device(), offload_device=offload_device)
    if not mm.is_device_cpu(offload_device):
        model.to(offload_device)
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_transformer, (path, variant, dtype, joint_cfg))
    if quantised:
        patcher.add_callback(CallbacksMP.ON_LOAD, packing(info).patch_at_use)
    name, shift = Path(path).name, config.sampling_settings["shift"]
    log.info("loaded %s: Z-Image %s, %s, shift %g", name, info.told, info.quantization, shift)
    return patcher


def _host_config(info: CheckpointInfo, weights: dict[str, torch.Tensor], dtype: str) -> ZImageConfig:
    """The host decides the types, by its own rules and flags, unless the user did."""
    assert info.told is not None
    statistic = overflow_statistic(info.checkpoint, info.sources)
    config = ZImageConfig(info.config, info.told, statistic is not None and statistic < STATISTIC_LIMIT)
    supported, device = config.supported_inference_dtypes, mm.get_torch_device()
    quantised = is_quantised(weights)
    if dtype == "auto":
        stored = None if quantised else comfy.utils.weight_dtype(weights)
        chosen = mm.unet_dtype(model_params=info.n_parameters, supported_dtypes=supported, weight_dtype=stored)
    else:
        chosen = as_dtype(dtype)
    if not quantised:
        config.set_inference_dtype(chosen, mm.unet_manual_cast(chosen, device, supported))
        return config
    # As the host does with quantised weights: they have no type of their own, so there is always one to cast to.
    given = None if dtype == "auto" else chosen
    compute = mm.unet_manual_cast(given, device, supported) or chosen
    config.set_inference_dtype(chosen, compute)
    config.quant_config = {"mixed_ops": True}
    config.custom_operations = packing(info).operations(pick_operations(chosen, compute, model_config=config))
    return config
