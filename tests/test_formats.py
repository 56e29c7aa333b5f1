"""Every layout and every form of numbers comes back: configuration, weights and what the model computes."""

from __future__ import annotations

import json
import re

import gguf
import pytest
import torch
import writers
from oracles import captions, latents, randomise, relative
from safetensors.torch import load_file, save_file

from zimage_core import CheckpointError, inspect_checkpoint, load_text_encoder, load_transformer, load_vae
from zimage_core.checkpoint.geometry import expected_shapes
from zimage_core.checkpoint.load import load_module
from zimage_core.checkpoint.packed import PackedEmbedding, PackedLinear
from zimage_core.errors import TokenizerError
from zimage_core.model import S3DiT, S3DiTConfig

DEMO = writers.DEMO
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SAFETENSORS = {
    "float32": writers.dense(torch.float32),
    "bfloat16": writers.dense(torch.bfloat16),
    "float16": writers.dense(torch.float16),
    "fp8 e4m3 cast": writers.fp8_cast(E4M3),
    "fp8 e5m2 cast": writers.fp8_cast(E5M2),
    "fp8 cast of everything": writers.fp8_cast(E4M3, everything=True),
    "fp8 scaled legacy": writers.fp8_scaled("legacy"),
    "fp8 e5m2 scaled legacy": writers.fp8_scaled("legacy", E5M2),
    "fp8 scaled comfy_quant": writers.fp8_scaled("comfy_quant"),
    "fp8 e5m2 scaled comfy_quant": writers.fp8_scaled("comfy_quant", E5M2),
    "fp8 scaled by row": writers.fp8_scaled("comfy_quant", rows=True),
    "fp8 scaled metadata": writers.fp8_scaled("metadata"),
    "fp8 scaled mixed with bfloat16": writers.fp8_scaled("comfy_quant", every=2),
    "fp8 scaled by row mixed": writers.fp8_scaled("metadata", rows=True, every=2),
}
GGUF = {name: writers.ggml(name) for name in writers.GGML_ROUNDED + writers.GGML_RANDOM}
GGUF |= {"Q8_0 no architecture": writers.ggml("Q8_0", "")}
FORMS = SAFETENSORS | GGUF

LAYOUTS = {
    "transformer": {
        "original": lambda state: state,
        "diffusers": writers.diffusers_transformer,
        "sd.cpp": writers.sdcpp_transformer,
    },
    "text_encoder": {"transformers": lambda state: state, "llama.cpp": writers.llamacpp_encoder},
}
PREFIXES = {
    "original": ["", "model.diffusion_model.", "diffusion_model."],
    "diffusers": ["", "transformer."],
    "sd.cpp": ["model.diffusion_model.", ""],
    "transformers": ["model.", "text_encoders.qwen3_4b.transformer.model.", ""],
    "llama.cpp": [""],
}


def model_of(config: S3DiTConfig) -> S3DiT:
    return randomise(S3DiT(config))


# Wide enough for blocks of 256, and otherwise as small as can be.
CONFIG = S3DiTConfig(
    dim=256, n_layers=2, n_refiner_layers=1, n_heads=4, cap_feat_dim=96, ffn_dim=512, adaln_dim=256, time_dim=256
)


@pytest.fixture(scope="module")
def transformer() -> writers.State:
    return model_of(CONFIG).state_dict()


@pytest.fixture(scope="module")
def qwen():
    from transformers.models.qwen3 import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=128, rope_theta=1e6,
    )  # fmt: skip
    return randomise(Qwen3Model(config))


def weights_of(module: torch.nn.Module) -> writers.State:
    """Every weight of a loaded module in float32, whatever it is held as."""
    found = {name: tensor.float() for name, tensor in module.named_parameters()}
    for name, layer in module.named_modules():
        if isinstance(layer, PackedLinear):
            found[f"{name}.weight"] = layer.dequantized(torch.float32)
        elif isinstance(layer, PackedEmbedding):
            found[f"{name}.weight"] = layer(torch.arange(layer.num_embeddings))
    return found


def joined(back: writers.State, layout: str) -> writers.State:
    """Numbers under a layout's own names, under the canonical ones: the layouts' writers, backwards."""
    if layout == "diffusers":
        return writers.undiffused(back)
    out: writers.State = {}
    for name, tensor in back.items():
        if layout == "sd.cpp":
            name = name.removesuffix(".1").removesuffix(".2")
        if layout == "llama.cpp":
            name = name.replace("token_embd", "embed_tokens").replace("output_norm", "norm").replace("blk.", "layers.")
            for canonical, short in writers.LLAMACPP.items():
                name = name.replace(f".{short}.weight", f".{canonical}.weight")
        out[name] = torch.cat((out[name], tensor)) if name in out else tensor
    return out


def cases(kind: str):
    """Every form in the first layout, the telling ones in the others, each prefix once."""
    telling = """float32, bfloat16, fp8 e4m3 cast, fp8 scaled legacy, fp8 scaled by row, fp8 scaled metadata,
        fp8 scaled mixed with bfloat16, Q8_0, Q4_K, IQ4_XS, BF16"""
    found = []
    for i, layout in enumerate(LAYOUTS[kind]):
        for j, form in enumerate(FORMS if i == 0 else re.split(r",\s+", telling)):
            prefixes = PREFIXES[layout]
            found.append(pytest.param(layout, form, prefixes[j % len(prefixes)], id=f"{layout}-{form}"))
    return found


def path_for(folder, form: str):
    return folder / ("model.gguf" if form in GGUF else "model.safetensors")


@pytest.mark.parametrize("layout, form, prefix", cases("transformer"))
def test_a_transformer_comes_back(transformer, tmp_path, layout, form, prefix):
    path = path_for(tmp_path, form)
    want = joined(FORMS[form](LAYOUTS["transformer"][layout](transformer), path, prefix), layout)
    loaded = load_transformer(path, dtype="float32", variant="base")
    assert (loaded.info.layout, loaded.info.config, loaded.info.prefix) == (layout, CONFIG, prefix)
    held = weights_of(loaded)
    assert held.keys() == want.keys()
    assert [name for name in want if not torch.equal(held[name], want[name])] == []
    plain = model_of(CONFIG)
    plain.load_state_dict(want)
    x, words = latents(2, 8, 6), captions(5, 40)
    torch.testing.assert_close(loaded(x, 0.7, words), plain(x, 0.7, words), rtol=0, atol=0)


@pytest.mark.parametrize("layout, form, prefix", cases("text_encoder"))
def test_a_text_encoder_comes_back(qwen, tmp_path, layout, form, prefix):
    from zimage_core.text_encoder import _qwen3

    path = path_for(tmp_path, form)
    want = joined(FORMS[form](LAYOUTS["text_encoder"][layout](qwen.state_dict()), path, prefix), layout)
    info = inspect_checkpoint(path, "text_encoder")
    assert (info.layout, info.prefix) == (layout, prefix)
    assert {key: info.config[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "head_dim")} == {
        "vocab_size": 300, "hidden_size": 256, "num_hidden_layers": 3, "head_dim": 128,
    }  # fmt: skip
    spare = ("layers.2.", "norm.")
    module = load_module(lambda: _qwen3(info.config, 2), info, torch.device("cpu"), torch.float32, True, spare)
    held = weights_of(module)
    assert held.keys() == {name for name in want if not name.startswith(spare)}
    assert [name for name in held if not torch.equal(held[name], want[name])] == []


@pytest.mark.parametrize("container", ["safetensors", "gguf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["ldm", "diffusers", "diffusers, first names"])
def test_a_vae_comes_back(tmp_path, layout, dtype, container):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    demo = load_vae(DEMO / "demo_vae.safetensors")
    config = demo.info.config
    oracle = randomise(AutoencoderKL(**config))
    names = writers.ldm_vae(oracle) if layout == "ldm" else {n: n for n in oracle.state_dict()}
    if layout.endswith("first names"):
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            names = {n: their.replace(f"attentions.0.{new}", f"attentions.0.{old}") for n, their in names.items()}
    state = {}
    for name, tensor in oracle.state_dict().items():
        square = layout == "ldm" and "attentions" in name and tensor.ndim == 2
        state[names[name]] = tensor[:, :, None, None].clone() if square else tensor
    path = tmp_path / f"vae.{container}"
    type_name = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    write = writers.dense(dtype) if container == "safetensors" else writers.ggml(type_name)
    back = write(state, path, "vae." if layout == "ldm" else "")
    loaded = load_vae(path, dtype="float32")
    assert loaded.info.config == config and loaded.info.layout == layout.split(",")[0]
    held = loaded.model.state_dict()
    assert [n for n in held if not torch.equal(held[n], back[names[n]].reshape(held[n].shape))] == []


def test_what_each_part_needs_is_what_its_library_builds(qwen):
    """The lists by which files are checked, against the modules that they are loaded into, at the published sizes."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
    from transformers.models.qwen3 import Qwen3Config, Qwen3Model

    published = {"vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
    published |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    widths = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    quant = {"use_quant_conv": False, "use_post_quant_conv": False}
    with torch.device("meta"):
        encoder, vae = Qwen3Model(Qwen3Config(**published)), AutoencoderKL(**widths, **blocks, **quant)
        transformer = writers.undiffused(ZImageTransformer2DModel().state_dict())
    for kind, config, theirs in (
        ("transformer", S3DiTConfig(), transformer),
        ("text_encoder", published, encoder.state_dict()),
        ("vae", widths, vae.state_dict()),
    ):
        assert expected_shapes(kind, config) == {name: tuple(tensor.shape) for name, tensor in theirs.items()}


def test_a_gguf_encoder_brings_its_tokenizer(qwen, tmp_path, monkeypatch):
    """Byte-level BPE from the metadata alone, and the same ids as the demo's tokenizer from which it was written."""
    from zimage_core.text_encoder import load_tokenizer

    demo = load_tokenizer(DEMO / "tokenizer")
    vocab = sorted(demo.get_vocab().items(), key=lambda item: item[1])
    merges = [" ".join(merge) for merge in writers.merges_of(demo)]
    special = [token for token, _ in vocab if token.startswith("<|")]
    metadata = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [token for token, _ in vocab], "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token, _ in vocab],
    }  # fmt: skip
    write = writers.ggml("Q8_0", "qwen3", metadata=metadata)
    state = load_file(str(DEMO / "demo_text_encoder.safetensors"))
    write(writers.llamacpp_encoder({n.removeprefix("model."): t for n, t in state.items()}), tmp_path / "qwen.gguf")
    monkeypatch.chdir(tmp_path)
    ours, theirs = load_text_encoder(tmp_path / "qwen.gguf"), load_text_encoder(DEMO / "demo_text_encoder.safetensors")
    for prompt in ("a red circle on a white background", "", "一个红色的圆", "<|im_end|> ~ !!"):
        assert ours.token_ids(prompt) == theirs.token_ids(prompt)
    assert relative(ours.encode(["a red circle"])[0].float(), theirs.encode(["a red circle"])[0].float()) < 0.05


def test_a_quantised_weight_keeps_its_bytes_and_its_bias_when_the_model_is_moved_and_cast(transformer, tmp_path):
    FORMS["fp8 scaled by row"](transformer, tmp_path / "x.safetensors")
    model = load_transformer(tmp_path / "x.safetensors", dtype="float32")
    layer = model.get_submodule("layers.0.attention.qkv")
    before = {name: tensor.clone() for name, tensor in layer.named_buffers()}
    bias = model.get_submodule("x_embedder").bias.clone()
    model.to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    after = dict(layer.named_buffers())
    assert all(after[n].dtype == t.dtype and torch.equal(after[n].float(), t.float()) for n, t in before.items())
    assert torch.equal(model.get_submodule("x_embedder").bias, bias.bfloat16())
    assert model(latents(1, 8, 8), 0.5, captions(5)).isfinite().all()


def test_quantised_weights_take_the_room_that_they_take_in_the_file(transformer, tmp_path):
    for form, bits in {"Q8_0": 8.5, "Q4_K": 4.5, "fp8 e4m3 cast": 8}.items():
        path = path_for(tmp_path, form)
        FORMS[form](transformer, path)
        layer = load_transformer(path, dtype="float32").get_submodule("layers.1.feed_forward.w1")
        assert sum(b.numel() * b.element_size() for b in layer.buffers()) * 8 == bits * 512 * 256


def test_parts_of_one_matrix_may_be_stored_in_different_ways(transformer, tmp_path):
    """As in files that keep v at more bits than q and k."""
    writer = gguf.GGUFWriter(str(tmp_path / "mixed.gguf"), "lumina2")
    want = {}
    types = {".attention.qkv.weight": "Q4_0", ".attention.qkv.weight.1": "Q4_0", ".attention.qkv.weight.2": "Q8_0"}
    for name, tensor in writers.sdcpp_transformer(transformer).items():
        kind = gguf.GGMLQuantizationType[next((t for end, t in types.items() if name.endswith(end)), "F32")]
        data = gguf.quants.quantize(tensor.numpy(), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        want[name] = torch.from_numpy(gguf.quants.dequantize(data, kind)).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    held = weights_of(load_transformer(tmp_path / "mixed.gguf", dtype="float32"))
    assert all(torch.equal(held[name], tensor) for name, tensor in joined(want, "sd.cpp").items())


@pytest.mark.parametrize("shape", [(7,), (1, 256), (256, 2)])
def test_scales_that_fit_nothing_are_damage(transformer, tmp_path, shape):
    FORMS["fp8 scaled comfy_quant"](transformer, tmp_path / "x.safetensors")
    state = load_file(str(tmp_path / "x.safetensors"))
    state["layers.0.attention.out.weight_scale"] = torch.ones(shape)
    save_file(state, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=r"scales of shape \[.*\] for layers\.0\.attention\.out\.weight"):
        inspect_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "form", ["nvfp4", "int8_tensorwise", "mxfp8", "convrot_w4a4", "asym_w4a8_int8", "int3_tomorrow"]
)
def test_forms_of_a_later_version_are_named_and_not_loaded(transformer, tmp_path, form):
    state = dict(transformer)
    name = "layers.0.feed_forward.w1"
    packed = form in ("nvfp4", "convrot_w4a4", "asym_w4a8_int8")
    dtype = {"nvfp4": torch.uint8, "mxfp8": torch.float8_e4m3fn}.get(form, torch.int8)
    state[f"{name}.weight"] = torch.zeros(512, 128 if packed else 256, dtype=dtype)
    state[f"{name}.weight_scale"] = torch.ones(512, 16)
    state[f"{name}.comfy_quant"] = torch.tensor(list(f'{{"format": "{form}"}}'.encode()), dtype=torch.uint8)
    save_file(state, str(tmp_path / "x.safetensors"))
    info = inspect_checkpoint(tmp_path / "x.safetensors")
    assert info.unreadable == (form,)
    assert "layers.0.feed_forward.w1.weight" not in info.misshapen or form == "int3_tomorrow"
    with pytest.raises(CheckpointError, match="does not load: use the same model as bf16, FP8 or GGUF"):
        load_transformer(tmp_path / "x.safetensors")


def test_an_fp8_vae_with_convolutions_for_matrices(tmp_path):
    demo = load_vae(DEMO / "demo_vae.safetensors")
    state = load_file(str(DEMO / "demo_vae.safetensors"))
    attention = [name for name in state if ".attn_1." in name and name.endswith("weight") and "norm" not in name]
    state |= {name: state[name].flatten(1)[:, :, None, None].to(torch.float8_e4m3fn) for name in attention}
    save_file(state, str(tmp_path / "vae.safetensors"))
    loaded = load_vae(tmp_path / "vae.safetensors", dtype="float32")
    z = latents(1, 4, 4)
    assert attention and relative(loaded.decode(z), demo.decode(z)) < 0.05


def test_codeword_types_without_the_gguf_package(transformer, tmp_path, monkeypatch):
    FORMS["IQ2_XS"](transformer, tmp_path / "x.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="IQ2_XS weights, which take the gguf package: pip install gguf"):
        load_transformer(tmp_path / "x.gguf")


@pytest.mark.parametrize("prefixed", [True, False])
def test_marks_in_the_metadata_may_name_layers_with_or_without_the_prefix(transformer, tmp_path, prefixed):
    prefix = "model.diffusion_model."
    FORMS["fp8 scaled metadata"](transformer, tmp_path / "x.safetensors", prefix)
    conf = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    layer = "layers.0.attention.out"
    layers = {(prefix if prefixed else "") + layer: conf}
    state = load_file(str(tmp_path / "x.safetensors"))
    save_file(state, str(tmp_path / "x.safetensors"), {"_quantization_metadata": json.dumps({"layers": layers})})
    source = inspect_checkpoint(tmp_path / "x.safetensors").sources[f"{layer}.weight"]
    assert source.parts[0].options == conf


def test_the_legacy_mark_of_two_elements_asks_for_full_precision(transformer, tmp_path):
    FORMS["fp8 scaled legacy"](transformer, tmp_path / "x.safetensors")
    state = load_file(str(tmp_path / "x.safetensors")) | {"scaled_fp8": torch.zeros(2, dtype=E4M3)}
    save_file(state, str(tmp_path / "x.safetensors"))
    options = {p.options.get("full_precision_matrix_mult") for p in parts_of(tmp_path / "x.safetensors") if not p.dense}
    assert options == {True}


def parts_of(path):
    return [part for source in inspect_checkpoint(path).sources.values() for part in source.parts]


def test_the_dtype_is_believed_over_a_mark(transformer, tmp_path):
    """Writers have marked e5m2 and dense layers as e4m3fn."""
    want = FORMS["fp8 e5m2 scaled comfy_quant"](transformer, tmp_path / "x.safetensors")
    state = load_file(str(tmp_path / "x.safetensors"))
    mark = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    state |= {name: mark.clone() for name in state if name.endswith("comfy_quant")}
    save_file(state, str(tmp_path / "x.safetensors"))
    held = weights_of(load_transformer(tmp_path / "x.safetensors", dtype="float32"))
    assert all(torch.equal(held[name], tensor) for name, tensor in want.items())


def test_bytes_without_a_mark_are_not_guessed_at(transformer, tmp_path):
    state = dict(transformer)
    state["layers.0.attention.out.weight"] = torch.zeros(256, 256, dtype=torch.int8)
    save_file(state, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match="I8 without a mark of its format"):
        load_transformer(tmp_path / "x.safetensors")


def test_a_gguf_encoder_says_its_own_theta_and_epsilon(qwen, tmp_path):
    metadata = {"qwen3.rope.freq_base": 5e6, "qwen3.attention.layer_norm_rms_epsilon": 1e-5}
    writers.ggml("F16", "qwen3", metadata=metadata)(writers.llamacpp_encoder(qwen.state_dict()), tmp_path / "x.gguf")
    config = inspect_checkpoint(tmp_path / "x.gguf").config
    assert (config["rope_theta"], config["rms_norm_eps"]) == (5e6, 1e-5)


def test_packed_weights_move_with_their_module(transformer, tmp_path):
    FORMS["Q8_0"](transformer, tmp_path / "x.gguf")
    layer = load_transformer(tmp_path / "x.gguf", dtype="float32").get_submodule("layers.0.attention.qkv")
    assert {buffer.device.type for buffer in layer.to("meta").buffers()} == {"meta"}


@pytest.mark.parametrize("form", ["fp8 scaled legacy", "fp8 scaled comfy_quant"])
def test_a_lost_scale_is_damage(transformer, tmp_path, form):
    split = writers.diffusers_transformer(transformer)
    FORMS[form](split, tmp_path / "x.safetensors")
    state = load_file(str(tmp_path / "x.safetensors"))
    lost = next(name for name in state if "to_k.weight_scale" in name or "to_k.scale_weight" in name)
    save_file({name: tensor for name, tensor in state.items() if name != lost}, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=r"lacks a scale of .*attention\.qkv\.weight"):
        load_transformer(tmp_path / "x.safetensors")


def test_a_gguf_model_is_saved_as_large_as_it_is(transformer, tmp_path):
    FORMS["Q8_0"](transformer, tmp_path / "x.gguf")
    model = load_transformer(tmp_path / "x.gguf", dtype="float32")
    torch.save(model.state_dict(), tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 1.2 * (tmp_path / "x.gguf").stat().st_size + 200_000


def test_a_move_that_fails_leaves_a_layer_whole(transformer, tmp_path):
    FORMS["Q8_0"](transformer, tmp_path / "x.gguf")
    layer = load_transformer(tmp_path / "x.gguf", dtype="float32").get_submodule("layers.0.attention.qkv")

    def full(tensor):
        raise RuntimeError("out of memory")

    before = layer.dequantized(torch.float32)
    with pytest.raises(RuntimeError, match="out of memory"):
        layer._apply(full)
    assert torch.equal(layer.dequantized(torch.float32), before)


def test_another_model_s_tokenizer_is_not_used(qwen, tmp_path):
    from tokenizers import Tokenizer, models

    state = {n: t.clone() for n, t in qwen.state_dict().items()}
    save_file(state, str(tmp_path / "qwen.safetensors"))
    Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"is not the tokenizer of qwen\.safetensors"):
        load_text_encoder(tmp_path / "qwen.safetensors")
