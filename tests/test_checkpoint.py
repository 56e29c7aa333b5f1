"""Checkpoints in the forms that other people's code writes, and files that are something else."""

from __future__ import annotations

import json
import shutil

import oracles
import pytest
import torch
from oracles import captions, latents, save_canonical
from safetensors.torch import load_file, save_file

from zimage_core import CheckpointError, inspect_checkpoint, load_transformer

X, CAPS = latents(1, 8, 8), captions(11)


def same(a, b) -> bool:
    """Whether two models hold the same weights, bit by bit, and compute the same."""
    theirs = b.state_dict()
    assert [k for k, v in a.state_dict().items() if not torch.equal(v, theirs[k])] == []
    torch.testing.assert_close(a(X, 0.5, CAPS), b(X, 0.5, CAPS), rtol=1e-5, atol=1e-5)
    return True


@pytest.fixture(scope="module")
def files(model, reference, tmp_path_factory):
    """The same weights in every dense form."""
    root = tmp_path_factory.mktemp("files")
    state = model.state_dict()
    for name, prefix in {"plain": "", "aio": "model.diffusion_model.", "comfy": "diffusion_model."}.items():
        save_file({prefix + k: v for k, v in state.items()}, str(root / f"{name}.safetensors"))
    save_canonical(reference, root / "diffusers.safetensors")
    save_canonical(reference, root / "diffusers_prefixed.safetensors", prefix="transformer.")
    junk = dict(state) | {"norm_final.weight": torch.ones(128)}
    save_file(junk, str(root / "junk.safetensors"))
    reference.save_pretrained(root / "sharded" / "transformer", max_shard_size="1MB")
    assert len(list((root / "sharded" / "transformer").glob("*.safetensors"))) > 2
    scheduler = root / "sharded" / "scheduler"
    scheduler.mkdir()
    (scheduler / "scheduler_config.json").write_text(json.dumps({"shift": 6.0}), encoding="utf-8")
    return root


FORMS = [
    "plain.safetensors",
    "aio.safetensors",
    "comfy.safetensors",
    "diffusers.safetensors",
    "diffusers_prefixed.safetensors",
    "junk.safetensors",
    "sharded",
    "sharded/transformer",
    "sharded/transformer/diffusion_pytorch_model.safetensors.index.json",
    "sharded/transformer/diffusion_pytorch_model-00001-of-00004.safetensors",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_model(files, model, form):
    path = files / form
    if "-of-" in form:
        path = next((files / "sharded" / "transformer").glob("*-00001-of-*"))
    assert same(load_transformer(path, dtype="float32"), model)


def test_inspect_says_what_a_file_is(files, model):
    info = inspect_checkpoint(files / "diffusers.safetensors")
    assert (info.kind, info.layout, info.quantization) == ("transformer", "diffusers", "float32")
    assert info.config == model.config
    assert info.n_parameters == sum(p.numel() for p in model.parameters())
    assert inspect_checkpoint(files / "aio.safetensors").prefix == "model.diffusion_model."


def test_the_scheduler_beside_a_folder_tells_the_variant(files):
    info = inspect_checkpoint(files / "sharded")
    assert (info.variant, info.told.source) == ("base", "scheduler")


def test_the_name_of_a_folder_tells_where_a_file_s_own_name_says_nothing(reference, tmp_path):
    reference.save_pretrained(tmp_path / "My-Z-Image-Turbo" / "transformer")
    for part in ("", "transformer", "transformer/diffusion_pytorch_model.safetensors"):
        info = inspect_checkpoint(tmp_path / "My-Z-Image-Turbo" / part)
        assert (info.variant, info.told.source) == ("turbo", "name")


def test_an_unnamed_file_is_told_by_its_weights(files):
    told = inspect_checkpoint(files / "plain.safetensors").told
    std = float(load_file(str(files / "plain.safetensors"))["layers.1.ffn_norm1.weight"].std())
    assert told.source == "weights" and f"{std:.3f}" in told.detail


def test_the_variant_can_be_overridden(files):
    assert load_transformer(files / "plain.safetensors", variant="base").info.told.source == "user"
    with pytest.raises(ValueError, match="'fast'"):
        load_transformer(files / "plain.safetensors", variant="fast")


def test_without_bfloat16_weights_stay_as_stored_and_float32_computes(files, tmp_path, monkeypatch):
    from zimage_core.checkpoint import load

    stored = {k: v.bfloat16() for k, v in load_file(str(files / "plain.safetensors")).items()}
    save_file(stored, str(tmp_path / "half.safetensors"))
    monkeypatch.setattr(load, "has_bfloat16", lambda device: False)
    model = load_transformer(tmp_path / "half.safetensors")
    assert model.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    save_file({k: v.float() for k, v in stored.items()}, str(tmp_path / "rounded.safetensors"))
    full = load_transformer(tmp_path / "rounded.safetensors", dtype="float32")
    torch.testing.assert_close(model(X, 0.5, CAPS), full(X, 0.5, CAPS), rtol=1e-5, atol=1e-5)


def test_the_arithmetic_of_each_kind_of_hardware(monkeypatch):
    from zimage_core.checkpoint import load

    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(load, "has_bfloat16", lambda device: True)
    assert load.arithmetic_dtype(gpu, 0.9) == torch.bfloat16
    monkeypatch.setattr(load, "has_bfloat16", lambda device: False)
    assert load.arithmetic_dtype(gpu, 0.3) == torch.float16
    assert load.arithmetic_dtype(gpu, 0.5) == torch.float32
    assert load.arithmetic_dtype(gpu, None) == torch.float32
    assert load.arithmetic_dtype(cpu, 0.3) == torch.float32


def broken(files, tmp_path, change):
    state = load_file(str(files / "plain.safetensors"))
    change(state)
    path = tmp_path / "broken.safetensors"
    save_file(state, str(path))
    return path


def test_missing_tensors_are_listed(files, tmp_path):
    path = broken(files, tmp_path, lambda s: [s.pop(k) for k in list(s) if k.startswith("layers.1.ffn_norm")])
    with pytest.raises(CheckpointError, match=r"2 missing \(layers\.1\.ffn_norm1\.weight, layers\.1\.ffn_norm2"):
        load_transformer(path)


def test_unexpected_tensors_are_listed(files, tmp_path):
    path = broken(files, tmp_path, lambda s: s.update({"layers.0.mystery": torch.ones(2)}))
    with pytest.raises(CheckpointError, match=r"1 unexpected \(layers\.0\.mystery\)"):
        load_transformer(path)


def test_misshapen_tensors_are_listed(files, tmp_path):
    path = broken(files, tmp_path, lambda s: s.update({"layers.0.attention.out.weight": torch.ones(128, 64)}))
    with pytest.raises(CheckpointError, match=r"1 of another shape \(layers\.0\.attention\.out\.weight\)"):
        load_transformer(path)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_whichever_tensor_is_missing_is_named(model, reference, tmp_path, layout):
    """Every single one of the first blocks' and of those outside of the blocks."""
    state = (model if layout == "original" else reference).state_dict()
    path = tmp_path / "x.safetensors"
    for name in [n for n in state if not n.startswith(("layers.1", "layers.2")) and ".1." not in n[:20]]:
        save_file({k: v for k, v in state.items() if k != name}, str(path))
        with pytest.raises(CheckpointError, match=r"missing|is not a Z-Image transformer") as error:
            load_transformer(path)
        assert "Lumina" not in str(error.value)


def test_a_stray_config_beside_a_file_is_not_believed(files, model, tmp_path):
    shutil.copy(files / "plain.safetensors", tmp_path / "z_image.safetensors")
    qwen = {"model_type": "qwen3", "rope_theta": 1e6, "axes_dims": [1, 2, 3]}
    (tmp_path / "config.json").write_text(json.dumps(qwen), encoding="utf-8")
    assert same(load_transformer(tmp_path / "z_image.safetensors", dtype="float32"), model)


def test_metadata_that_names_only_the_family_says_nothing(files, tmp_path):
    state = load_file(str(files / "plain.safetensors"))
    path = tmp_path / "z_image_turbo.safetensors"
    save_file(state, str(path), {"modelspec.architecture": "Z-Image", "ss_base_model_version": "zimage"})
    assert (inspect_checkpoint(path).variant, inspect_checkpoint(path).told.source) == ("turbo", "name")


def test_a_damaged_file_is_named(files, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((files / "plain.safetensors").read_bytes() + b"trailing bytes")
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged"):
        load_transformer(path)


def test_an_index_that_is_none(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        load_transformer(path)


def test_float64_is_dense(files, tmp_path, model):
    path = broken(files, tmp_path, lambda s: s.update({k: v.double() for k, v in s.items()}))
    assert inspect_checkpoint(path).quantization == "float64"
    assert same(load_transformer(path, dtype="float32"), model)


def test_a_missing_projection_is_not_taken_for_a_whole(reference, tmp_path):
    state = {k: v for k, v in reference.state_dict().items() if k != "layers.0.attention.to_k.weight"}
    save_file(state, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=r"1 missing \(layers\.0\.attention\.qkv\.weight\)"):
        load_transformer(tmp_path / "x.safetensors")


def test_pad_tokens_without_their_leading_1(files, tmp_path, model):
    path = broken(files, tmp_path, lambda s: s.update({k: s[k].flatten() for k in ("x_pad_token", "cap_pad_token")}))
    assert same(load_transformer(path, dtype="float32"), model)


OTHERS = {
    "a LoRA": ["diffusion_model.layers.0.attention.to_q.lora_A.weight"],
    "a Flux model": ["double_blocks.0.img_attn.qkv.weight"],
    "a Stable Diffusion UNet": ["model.diffusion_model.input_blocks.0.0.weight"],
    "a T5 text encoder": ["encoder.block.0.layer.0.SelfAttention.q.weight"],
    "a CLIP model": ["text_model.encoder.layers.0.mlp.fc1.weight"],
    "a Z-Image ControlNet": ["control_all_x_embedder.2-1.weight"],
    "of no known kind": ["something.weight"],
}


@pytest.mark.parametrize("title", OTHERS)
def test_a_file_that_is_something_else_is_named(tmp_path, title):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.ones(2, 2) for key in OTHERS[title]}, str(path))
    with pytest.raises(CheckpointError, match=title) as error:
        load_transformer(path)
    assert "other.safetensors" in str(error.value)


def test_a_vae_is_not_a_transformer():
    with pytest.raises(CheckpointError, match="is a Flux-type VAE, not a Z-Image transformer"):
        load_transformer(oracles.ROOT / "zimage_core" / "demo" / "demo_vae.safetensors")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"GGUF" + bytes(100), "GGUF"),
        (b"PK\x03\x04" + bytes(100), "pickled"),
        (b"\x80\x02}q\x00" + bytes(100), "pickled"),
        (b"hello, this is text", "not a safetensors file"),
        (b"", "empty or cut off"),
        ((9).to_bytes(8, "little") + b"{not json", "header cannot be read"),
    ],
)
def test_a_file_that_is_no_safetensors_is_named(tmp_path, content, words):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_transformer(path)


def test_a_download_that_was_cut_off(files, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((files / "plain.safetensors").read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cut off"):
        load_transformer(path)


def test_no_such_file_and_a_folder_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file or folder"):
        load_transformer(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no \.safetensors file and no \.gguf file"):
        load_transformer(tmp_path)


def test_a_missing_shard_is_named(files, tmp_path):
    copy = tmp_path / "transformer"
    shutil.copytree(files / "sharded" / "transformer", copy)
    lost = next(copy.glob("*-00002-of-*"))
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        load_transformer(copy)
