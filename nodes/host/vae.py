"""VAE: the host's own autoencoder, filled by our reader; other widths go through the host's config path."""

from __future__ import annotations

import logging
from typing import Any

import comfy.diffusers_convert
import comfy.sd
import torch

from ...zimage_core.checkpoint.detect import CheckpointInfo, inspect_checkpoint
from ...zimage_core.errors import CheckpointError
from .weights import read_weights

log = logging.getLogger(__name__)

# The Flux VAE, which the host knows by its keys; it looks at no widths.
_REAL = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
_LEVELS = 4
_CHANNELS = 16


def load_vae(path: str) -> comfy.sd.VAE:
    """A VAE from a file. Raises CheckpointError with what the file is if it is no Flux-type VAE."""
    info = inspect_checkpoint(path, kind="vae")
    weights = comfy.diffusers_convert.convert_vae_state_dict(read_weights(info, keep_packed=False))
    if all(info.config[key] == value for key, value in _REAL.items()):
        vae = comfy.sd.VAE(sd=weights)
    else:
        weights |= _identity_quantisers(weights["decoder.conv_in.weight"].dtype)
        vae = comfy.sd.VAE(sd=weights, config=_host_config(info))
        vae.latent_channels = _CHANNELS
    vae.throw_exception_if_invalid()
    if vae.first_stage_model.state_dict().keys() != weights.keys():  # the host itself would only log it
        raise CheckpointError(f"{info.path.name} does not fit the autoencoder of this ComfyUI: update ComfyUI")
    vae.patcher.cached_patcher_init = (load_vae_patcher, (path,))
    log.info("loaded %s: VAE, widths %s", info.path.name, info.config["block_out_channels"])
    return vae


def load_vae_patcher(path: str, disable_dynamic: bool = False) -> Any:
    """The factory by which the host loads a VAE's weights again."""
    return load_vae(path).patcher


def _host_config(info: CheckpointInfo) -> dict[str, Any]:
    widths = info.config["block_out_channels"]
    if len(widths) != _LEVELS or any(width % widths[0] for width in widths):
        raise CheckpointError(
            f"{info.path.name} has levels of {widths} channels: ComfyUI's autoencoder takes {_LEVELS} levels, "
            f"each a multiple of the first"
        )
    geometry = {
        "double_z": True, "z_channels": _CHANNELS, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths], "num_res_blocks": info.config["layers_per_block"],
        "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    return {"params": {"ddconfig": geometry, "embed_dim": _CHANNELS}}


def _identity_quantisers(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The two 1 x 1 convolutions that the host's configurable class has and the Flux VAE has not."""
    tensors = {}
    for name, channels in (("quant_conv", 2 * _CHANNELS), ("post_quant_conv", _CHANNELS)):
        tensors[f"{name}.weight"] = torch.eye(channels, dtype=dtype)[:, :, None, None].contiguous()
        tensors[f"{name}.bias"] = torch.zeros(channels, dtype=dtype)
    return tensors
