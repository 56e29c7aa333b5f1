"""The wrong file is caught, by name, with the right one: whatever people put where a Z-Image part belongs."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import torch
import writers
from oracles import CAP_DIM, diffusers_transformer, randomise
from safetensors.torch import save_file

from zimage_core import CheckpointError, inspect_checkpoint, load_text_encoder, load_transformer, load_vae
from zimage_core.model import S3DiT, S3DiTConfig

LOADERS = {"transformer": load_transformer, "text_encoder": load_text_encoder, "vae": load_vae}
SMALL = S3DiTConfig(dim=128, n_layers=1, n_refiner_layers=1, n_heads=4, cap_feat_dim=CAP_DIM)


def z_image(**more: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """A whole Z-Image transformer, and more."""
    state = randomise(S3DiT(SMALL)).state_dict()
    return state | {name: torch.zeros(shape) for name, shape in more.items()}


def without_pad_tokens() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in z_image().items() if not name.endswith("pad_token")}


def keys(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2, 2) for name in names}


def encoder(width: int, layers: int, vocab: int, prefix: str = "model.") -> dict[str, torch.Tensor]:
    """The keys of a Qwen3 whose sizes lie in its shapes; float8, so that none of it takes room."""
    state = {f"{prefix}embed_tokens.weight": torch.empty(vocab, 4).expand(vocab, 4)}
    names = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    for i in range(layers):
        state |= {f"{prefix}layers.{i}.{name}.weight": torch.zeros(128) for name in names}
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            state[f"{prefix}layers.{i}.self_attn.{name}.weight"] = torch.zeros(128, 4)
        for name in ("gate_proj", "up_proj", "down_proj"):
            state[f"{prefix}layers.{i}.mlp.{name}.weight"] = torch.zeros(8, 4)
    state[f"{prefix}embed_tokens.weight"] = torch.zeros(vocab, width, dtype=torch.float8_e4m3fn)
    return state | {f"{prefix}norm.weight": torch.zeros(4)}


def svdquant() -> dict[str, torch.Tensor]:
    roles = ("qweight", "wscales", "proj_down", "proj_up", "smooth_factor")
    return {
        "all_x_embedder.2-1.weight": torch.zeros(4, 4),
        "noise_refiner.0.attention.norm_k.weight": torch.zeros(4),
    } | {f"layers.0.attention.to_qkv.{role}": torch.zeros(4, 4) for role in roles}


WRONG = {
    # what people take for the transformer
    "Lumina 2": ("transformer", without_pad_tokens, "a Lumina 2 model.*Z-Image needs"),
    "NewBie": ("transformer", lambda: without_pad_tokens() | keys("clip_text_pooled_proj.0.weight"), "a NewBie model"),
    "pixel space": ("transformer", lambda: z_image(**{"dec_net.cond_embed.weight": (4, 4)}), "a pixel-space Z-Image"),
    "Omni": ("transformer", lambda: z_image(**{"siglip_embedder.0.weight": (4,)}), "a Z-Image Omni model"),
    "Flux": ("transformer", lambda: keys("double_blocks.0.img_attn.qkv.weight", "img_in.weight"), "a Flux model"),
    "Flux, diffusers": ("transformer", lambda: keys("single_transformer_blocks.0.norm.linear.weight"), "a Flux model"),
    "Flux.2": (
        "transformer",
        lambda: keys("double_blocks.0.img_attn.qkv.weight", "double_stream_modulation_img.lin.weight"),
        r"a Flux\.2 model",
    ),
    "SD 3": ("transformer", lambda: keys("joint_blocks.0.x_block.attn.qkv.weight"), "a Stable Diffusion 3 model"),
    "SDXL": (
        "transformer",
        lambda: keys("model.diffusion_model.input_blocks.0.0.weight"),
        "a Stable Diffusion UNet",
    ),
    "SD, diffusers": (
        "transformer",
        lambda: keys("down_blocks.0.attentions.0.transformer_blocks.0.norm1.weight", "conv_in.weight"),
        "a Stable Diffusion UNet",
    ),
    "Qwen-Image": ("transformer", lambda: keys("transformer_blocks.0.img_mod.1.weight"), "of another family"),
    "Wan": ("transformer", lambda: keys("blocks.0.cross_attn.k.weight", "patch_embedding.weight"), "a video model"),
    "LoRA": ("transformer", lambda: keys("diffusion_model.layers.0.attention.to_q.lora_A.weight"), "a LoRA"),
    "kohya LoRA": ("transformer", lambda: keys("lora_unet_layers_0_attention_to_q.lora_down.weight"), "a LoRA"),
    "LoKr": ("transformer", lambda: keys("lycoris_layers_0_attention_to_q.lokr_w1"), "a LoRA"),
    "ControlNet": (
        "transformer",
        lambda: keys("control_layers.0.attention.to_q.weight", "control_all_x_embedder.2-1.weight"),
        "a Z-Image ControlNet",
    ),
    "another ControlNet": ("transformer", lambda: keys("controlnet_blocks.0.weight"), "a ControlNet"),
    # what people take for the text encoder
    "Qwen3-VL": (
        "text_encoder",
        lambda: keys("model.visual.blocks.0.attn.qkv.weight", "model.language_model.embed_tokens.weight"),
        "a vision-language model; Z-Image needs the plain Qwen3-4B",
    ),
    "Qwen3-VL beside a plain Qwen3": (
        "text_encoder",
        lambda: encoder(64, 2, 300) | keys("visual.blocks.0.attn.qkv.weight"),
        "a vision-language model",
    ),
    "Gemma 3": (
        "text_encoder",
        lambda: encoder(2560, 2, 300) | keys("model.layers.0.pre_feedforward_layernorm.weight"),
        "a Gemma",
    ),
    "Qwen3-MoE": ("text_encoder", lambda: encoder(64, 2, 300) | keys("model.layers.0.mlp.experts.0.up"), "a mixture"),
    "Qwen3-8B": ("text_encoder", lambda: encoder(4096, 36, 300), "Qwen3-8B; Z-Image needs the plain Qwen3-4B"),
    "Qwen3-1.7B": ("text_encoder", lambda: encoder(2048, 28, 300), r"Qwen3-1\.7B"),
    "Qwen3-0.6B": ("text_encoder", lambda: encoder(1024, 28, 300), r"Qwen3-0\.6B"),
    "Qwen3-14B": ("text_encoder", lambda: encoder(5120, 40, 300), "Qwen3-14B"),
    "Qwen3-Reranker": ("text_encoder", lambda: encoder(2560, 36, 151669), "Qwen3-Reranker-4B"),
    "a later Qwen": (
        "text_encoder",
        lambda: encoder(64, 2, 300) | keys("model.layers.0.linear_attn.in_proj.weight"),
        "a Qwen of a later generation",
    ),
    "Qwen3-Embedding": ("text_encoder", lambda: encoder(2560, 36, 151665), "Qwen3-Embedding-4B"),
    "without its last layer": ("text_encoder", lambda: encoder(2560, 35, 300), "without its last layer"),
    "Llama": (
        "text_encoder",
        lambda: keys("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"),
        "a language model other than Qwen3",
    ),
    "T5": ("text_encoder", lambda: keys("encoder.block.0.layer.0.SelfAttention.q.weight"), "a T5 text encoder"),
    "CLIP": ("text_encoder", lambda: keys("text_model.encoder.layers.0.mlp.fc1.weight"), "a CLIP model"),
    "a transformer as the encoder": ("text_encoder", z_image, "is a Z-Image transformer, not a Qwen3 text encoder"),
    # what people take for the VAE
    "SD VAE": (
        "vae",
        lambda: keys("decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight", "post_quant_conv.weight"),
        "a VAE of the Stable Diffusion family.*16-channel Flux VAE",
    ),
    "SD VAE, one of the two convolutions": (
        "vae",
        lambda: keys("decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight", "quant_conv.weight"),
        "a VAE of the Stable Diffusion family",
    ),
    "Flux.2 VAE": (
        "vae",
        lambda: keys("decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight", "bn.running_mean"),
        r"a Flux\.2 VAE",
    ),
    "Wan VAE": ("vae", lambda: keys("decoder.middle.0.residual.0.gamma"), "a video VAE"),
    "TAEF1": ("vae", lambda: keys("decoder.layers.0.weight", "encoder.layers.0.weight"), "a tiny autoencoder"),
    # numbers that only their own library unpacks
    "SVDQuant": ("transformer", svdquant, "a nunchaku SVDQuant file.*use the same model as bf16, FP8"),
    "bitsandbytes 4": (
        "transformer",
        lambda: keys("layers.0.attention.to_q.weight.quant_state.bitsandbytes__nf4"),
        "a bitsandbytes file",
    ),
    "bitsandbytes 8": ("text_encoder", lambda: keys("model.layers.0.self_attn.q_proj.SCB"), "a bitsandbytes file"),
    "quanto": ("transformer", lambda: keys("layers.0.attention.to_q.weight._data"), "a quanto file"),
    "torchao": ("transformer", lambda: keys("layers.0.attention.to_q.weight_qdata"), "a torchao file"),
    "SDNQ": ("transformer", lambda: keys("layers.0.attention.to_q.zero_point"), "an SDNQ file"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_called_what_it_is(tmp_path, what):
    kind, make, words = WRONG[what]
    path = tmp_path / "wrong.safetensors"
    save_file(make(), str(path))
    with pytest.raises(CheckpointError, match=words) as error:
        LOADERS[kind](path)
    assert "wrong.safetensors" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["bitsandbytes", "quanto", "torchao", "sdnq", "modelopt", "nunchaku_lite"])
def test_a_quantised_diffusers_folder_is_told_by_its_config(tmp_path, method):
    diffusers_transformer().save_pretrained(tmp_path / "transformer")
    config = tmp_path / "transformer" / "config.json"
    data = json.loads(config.read_text(encoding="utf-8")) | {"quantization_config": {"quant_method": method}}
    config.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckpointError, match="which only its own library unpacks"):
        load_transformer(tmp_path)


def test_the_vae_of_stable_diffusion_3_is_told_by_its_config(tmp_path):
    """It has every key and every shape of the Flux VAE."""
    demo = load_vae(writers.DEMO / "demo_vae.safetensors")
    demo.model.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    demo.model.save_pretrained(tmp_path / "vae")
    with pytest.raises(CheckpointError, match=r"its scale is 1\.5305"):
        load_vae(tmp_path)


@pytest.mark.parametrize("architecture, loads", [("qwen3vl", False), ("qwen3moe", False), ("qwen3", True)])
def test_a_gguf_of_another_qwen_is_told_by_its_architecture(tmp_path, architecture, loads):
    state = {n.removeprefix("model."): t.float() for n, t in encoder(64, 2, 300).items()}
    path = tmp_path / "qwen.gguf"
    writers.ggml("F16", architecture)(writers.llamacpp_encoder(state), path)
    if loads:
        assert inspect_checkpoint(path).config["hidden_size"] == 64
    else:
        with pytest.raises(CheckpointError, match=f"a {architecture} model; Z-Image needs the plain Qwen3-4B"):
            load_text_encoder(path)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "a git-lfs pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><head><title>Sign in</title>", "a web page saved under that name"),
        (b"\n\n<html>", "a web page"),
        (b"PK\x03\x04" + bytes(50), "a pickled PyTorch file, which can run code"),
        (b"\x80\x02}q\x00", "a pickled PyTorch file"),
        (bytes(4096), "a download that has not finished"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a picture"),
        (b"GGUF\x03\x00\x00\x00", "cut off"),
        (b'{"weight_map": {}}', "not a safetensors file"),
        ((5000).to_bytes(8, "little") + b'{"a": 1}', "is cut off in its header"),
    ],
)
def test_what_is_no_checkpoint_at_all(tmp_path, content, words):
    for name in ("model.safetensors", "model.gguf"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=words) as error:
            load_transformer(tmp_path / name)
        assert name in str(error.value)


def test_a_folder_of_pickles(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        load_transformer(tmp_path)


def test_a_type_that_is_not_known_is_named_by_its_number(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "lumina2")
    writer.add_tensor("a", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = bytearray((tmp_path / "x.gguf").read_bytes())
    at = data.rindex(b"a" + (2).to_bytes(4, "little")) + 1 + 4 + 16
    data[at : at + 4] = (250).to_bytes(4, "little")
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match="the tensor type 250, which this version does not know"):
        load_transformer(tmp_path / "x.gguf")


def test_the_components_of_an_all_in_one_file_do_not_disturb_each_other(tmp_path):
    """Merges come with prefixed encoders beside a transformer without a prefix."""
    state = z_image() | {f"text_encoders.qwen3_4b.transformer.{n}": t for n, t in encoder(64, 2, 300).items()}
    save_file(state | {"vae.decoder.conv_in.weight": torch.zeros(2, 2)}, str(tmp_path / "merge.safetensors"))
    assert load_transformer(tmp_path / "merge.safetensors").info.parts == ("transformer", "text_encoder")


def test_empty_tensors_and_known_junk_are_dropped(tmp_path):
    junk = {"norm_final.weight": torch.full((128,), float("nan")), "layers.0.attention.empty": torch.zeros(0)}
    save_file(z_image() | junk, str(tmp_path / "merge.safetensors"))
    assert load_transformer(tmp_path / "merge.safetensors").info.unexpected == ()


def test_a_text_encoder_folder_of_another_model_is_told_by_its_config(tmp_path):
    save_file(encoder(64, 2, 300), str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl_text"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="a qwen3_vl_text model; Z-Image needs the plain Qwen3-4B"):
        load_text_encoder(tmp_path)


def test_what_belongs_to_another_part_of_an_all_in_one_file_says_nothing_of_this_one(tmp_path):
    state = {f"model.diffusion_model.{n}": t for n, t in z_image().items()}
    state |= {f"text_encoders.other.{n}": torch.zeros(2) for n in ("visual.x", "siglip_embedder.0.weight")}
    save_file(state, str(tmp_path / "all.safetensors"))
    assert load_transformer(tmp_path / "all.safetensors").info.missing == ()


def test_a_folder_without_the_part_says_what_it_has(tmp_path):
    diffusers_transformer().save_pretrained(tmp_path / "transformer")
    with pytest.raises(CheckpointError, match="has no text_encoder folder; it has transformer"):
        load_text_encoder(tmp_path)


JUNK = {
    "transformer": ["norm_final.weight", "freqs_cis", "scaled_fp8"],
    "text_encoder": ["lm_head.weight", "model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"],
}


@pytest.mark.parametrize("kind", JUNK)
def test_what_files_carry_and_no_model_has_is_dropped(tmp_path, kind):
    state = z_image() if kind == "transformer" else encoder(64, 2, 300)
    save_file(state | {name: torch.ones(2) for name in JUNK[kind]}, str(tmp_path / "x.safetensors"))
    assert inspect_checkpoint(tmp_path / "x.safetensors", kind).unexpected == ()


def test_a_gguf_encoder_s_untied_head_and_tables_are_dropped(tmp_path):
    state = {n.removeprefix("model."): t.float() for n, t in encoder(64, 2, 300).items()}
    more = {"output.weight": torch.ones(300, 64), "rope_freqs.weight": torch.ones(64)}
    writers.ggml("F16", "qwen3")(writers.llamacpp_encoder(state) | more, tmp_path / "qwen.gguf")
    assert inspect_checkpoint(tmp_path / "qwen.gguf").unexpected == ()


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_damage(tmp_path):
    save_file(z_image(), str(tmp_path / "x.safetensors"))
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data.replace(b'"shape":[1,128]', b'"shape":[2,128]', 1))
    with pytest.raises(CheckpointError, match="its header cannot be read"):
        inspect_checkpoint(tmp_path / "x.safetensors")


STRAY = [{"scaling_factor": 0.18215}, {"model_type": "qwen2_5_vl"}, {"quantization_config": {"quant_method": "awq"}}]


@pytest.mark.parametrize("stray", [*[json.dumps(config) for config in STRAY], "<html>not found</html>"])
def test_a_stray_config_in_a_folder_of_downloads_refuses_nothing(tmp_path, stray):
    (tmp_path / "config.json").write_text(stray, encoding="utf-8")
    save_file(z_image(), str(tmp_path / "z_image_turbo.safetensors"))
    save_file(encoder(64, 2, 300), str(tmp_path / "qwen_3_4b.safetensors"))
    ae = (writers.DEMO / "demo_vae.safetensors").read_bytes()
    (tmp_path / "ae.safetensors").write_bytes(ae)
    for name in ("z_image_turbo", "qwen_3_4b", "ae"):
        assert inspect_checkpoint(tmp_path / f"{name}.safetensors").missing == ()


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("sharded", [True, False])
def test_folders_with_variants_and_their_indexes(tmp_path, variant, sharded):
    model = diffusers_transformer(n_layers=1)
    size = {"max_shard_size": "300KB"} if sharded else {}
    model.save_pretrained(tmp_path / "transformer", variant=variant, **size)
    if not sharded:
        model.save_pretrained(tmp_path / "transformer", variant="bf16")  # and another one beside it
    (tmp_path / "transformer" / "._diffusion_pytorch_model.safetensors").write_bytes(b"\0\5\x16\7")
    assert load_transformer(tmp_path).info.missing == ()
    for shard in (tmp_path / "transformer").glob("diff*-00001-of-*"):
        assert load_transformer(shard).info.missing == ()
        for index in (tmp_path / "transformer").glob("*.index*.json"):
            assert load_transformer(index).info.missing == ()
            index.unlink()
        assert load_transformer(shard).info.missing == ()  # by their numbers


def test_whole_files_of_other_models_are_named_by_more_than_the_vae_in_them(tmp_path):
    vae = {"first_stage_model." + key: torch.zeros(2) for key in WRONG_VAE}
    for name, key, title in (
        ("sdxl", "model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion UNet"),
        ("flux1-dev-fp8", "model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "a Flux model"),
    ):
        save_file(vae | keys(key), str(tmp_path / f"{name}.safetensors"))
        with pytest.raises(CheckpointError, match=title):
            load_transformer(tmp_path / f"{name}.safetensors")


WRONG_VAE = ["decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight"]


@pytest.mark.parametrize("architecture", ["llama", "hunyuan-dense"])
def test_a_language_model_with_qwen3_s_names_is_told_by_its_architecture(tmp_path, architecture):
    state = {n.removeprefix("model."): t.float() for n, t in encoder(64, 2, 300).items()}
    writers.ggml("F16", architecture)(writers.llamacpp_encoder(state), tmp_path / "x.gguf")
    with pytest.raises(CheckpointError, match=f"a {architecture} model"):
        load_text_encoder(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    "key, words",
    [
        ("model.layers.0.mlp.up_proj.weight_scale_inv", "FP8 blocks"),
        ("model.layers.0.mlp.up_proj.weight_packed", "a compressed-tensors file"),
        ("model.layers.0.mlp.up_proj.W_q", "an HQQ file"),
        ("model.layers.0.mlp.up_proj.qzeros", "a GPTQ or AWQ file"),
    ],
)
def test_quantised_encoders_of_other_libraries(tmp_path, key, words):
    save_file(encoder(64, 2, 300) | keys(key), str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=words):
        load_text_encoder(tmp_path / "x.safetensors")


def test_half_a_vae(tmp_path):
    state = load_vae(writers.DEMO / "demo_vae.safetensors").model.state_dict()
    save_file({n: t for n, t in state.items() if n.startswith("decoder.")}, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match="has no encoder"):
        load_vae(tmp_path / "x.safetensors")
    save_file(dict(state) | {"decoder.conv_in.weight": torch.zeros(3)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match="it is damaged"):
        load_vae(tmp_path / "x.safetensors")


def test_claims_of_size_cost_nothing(tmp_path):
    state = z_image() | {f"layers.{i}.x": torch.zeros(1) for i in range(1200)}
    save_file(state, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match="1,200 layers is no model"):
        inspect_checkpoint(tmp_path / "x.safetensors")
