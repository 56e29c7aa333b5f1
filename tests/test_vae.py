"""The VAE in both key layouts against diffusers' AutoencoderKL, from an explicit configuration."""

from __future__ import annotations

import re

import oracles
import pytest
import torch
from safetensors.torch import save_file

from zimage_core import CheckpointError, load_vae

WIDTHS = [32, 64, 32, 64]


@pytest.fixture(scope="module")
def autoencoder():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=WIDTHS,
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=16,
        norm_num_groups=32,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return oracles.randomise(model)


def to_ldm(state):
    """diffusers' names -> those of ae.safetensors, written apart from the engine's own table (formats, 3.2)."""

    def name(key: str) -> str:
        key = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        key = key.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
        key = key.replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
        return re.sub(r"mid_block\.attentions\.0\.to_(q|k|v)", r"mid.attn_1.\1", key)

    converted = {name(k): v for k, v in state.items()}
    return {k: v[:, :, None, None] if "attn_1" in k and v.ndim == 2 else v for k, v in converted.items()}


@pytest.fixture(scope="module")
def files(autoencoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("vae")
    state = {k: v.contiguous() for k, v in autoencoder.state_dict().items()}
    ldm = {k: v.contiguous() for k, v in to_ldm(state).items()}
    save_file(state, str(root / "diffusers.safetensors"))
    save_file(ldm, str(root / "ldm.safetensors"))
    save_file({"vae." + k: v for k, v in ldm.items()}, str(root / "aio.safetensors"))
    save_file({"first_stage_model." + k: v for k, v in ldm.items()}, str(root / "old.safetensors"))
    autoencoder.save_pretrained(root / "folder" / "vae")
    return root


FORMS = ["diffusers.safetensors", "ldm.safetensors", "aio.safetensors", "old.safetensors", "folder", "folder/vae"]


@pytest.mark.parametrize("form", FORMS)
def test_every_layout_decodes_and_encodes_as_diffusers_does(files, autoencoder, form):
    vae = load_vae(files / form, dtype="float32")
    z, picture = torch.randn(1, 16, 4, 6), torch.rand(1, 3, 32, 48)
    decoded = autoencoder.decode(z / 0.3611 + 0.1159).sample
    torch.testing.assert_close(vae.decode(z), (decoded / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-5)
    encoded = autoencoder.encode(picture * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(vae.encode(picture), (encoded - 0.1159) * 0.3611, rtol=1e-4, atol=1e-5)


def test_the_published_size_of_the_real_vae():
    from zimage_core.vae import _autoencoder

    config = {
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16, "norm_num_groups": 32,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        "use_quant_conv": False, "use_post_quant_conv": False,
    }  # fmt: skip
    with torch.device("meta"):
        state = _autoencoder(config).state_dict()
    assert len(state) == 244 and sum(p.numel() for p in state.values()) == 83_819_683


def test_a_vae_of_another_family_is_refused(files, tmp_path):
    from safetensors.torch import load_file

    state = load_file(str(files / "ldm.safetensors"))
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"][:, :4].contiguous()
    save_file(state, str(tmp_path / "sd.safetensors"))
    with pytest.raises(CheckpointError, match="4 latent channels"):
        load_vae(tmp_path / "sd.safetensors")


def test_the_demo_vae_gives_back_its_pictures():
    from zimage_core.pipeline import DEMO

    picture = torch.full((1, 3, 128, 128), 0.9)
    picture[:, 1:, 40:88, 40:88] = 0.1
    vae = load_vae(DEMO / "demo_vae.safetensors", dtype="float32")
    assert (vae.decode(vae.encode(picture)) - picture).abs().mean() < 0.05
