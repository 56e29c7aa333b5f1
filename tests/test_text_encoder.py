"""Caption features against transformers' Qwen3, token ids against the published check vectors and Qwen2Tokenizer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import oracles
import pytest
import torch
from oracles import DATA, ROOT
from safetensors.torch import save_file

from zimage_core import CheckpointError, TokenizerError, load_text_encoder
from zimage_core.text_encoder import TEMPLATE, find_tokenizer, load_tokenizer

SUBSET = DATA / "qwen_subset"  # Qwen2's own bytes, and the few of its merges that the check vectors need
DEMO = ROOT / "zimage_core" / "demo"
COMFYUI = Path(os.environ.get("COMFYUI_DIR", Path.home() / "comfy" / "ComfyUI"))


@pytest.fixture(scope="module", params=[1e6, 5e6])  # Qwen3-4B's theta, and one that only its config.json tells
def qwen(request):
    from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=151669,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rope_theta=request.param,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    return oracles.randomise(Qwen3ForCausalLM(config))


@pytest.fixture(scope="module")
def folder(qwen, tmp_path_factory):
    """A diffusers folder as transformers writes it, with the tokenizer in its own part."""
    root = tmp_path_factory.mktemp("qwen")
    qwen.save_pretrained(root / "text_encoder", max_shard_size="8MB")
    shutil.copytree(SUBSET, root / "tokenizer")
    return root


@pytest.fixture(scope="module")
def encoder(folder):
    return load_text_encoder(folder, dtype="float32")


VECTORS = {
    "": [151644, 872, 198, 151645, 198, 151644, 77091, 198],
    "a cat": [151644, 872, 198, 64, 8251, 151645, 198, 151644, 77091, 198],
}


@pytest.mark.parametrize("prompt", VECTORS)
def test_the_published_check_vectors(encoder, prompt):
    assert encoder.token_ids(prompt) == VECTORS[prompt]


@pytest.mark.parametrize("prompt", ["a cat", "", "a cat cat cat"])
def test_features_are_the_hidden_state_before_the_last_layer(encoder, qwen, prompt):
    ids = torch.tensor([encoder.token_ids(prompt)])
    expected = qwen(ids, output_hidden_states=True).hidden_states[-2][0]
    (features,) = encoder.encode([prompt])
    assert features.shape == (ids.shape[1], 32)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_prompts_do_not_influence_each_other(encoder):
    together = encoder.encode(["a cat", "a cat cat cat cat"])
    assert torch.equal(together[0], encoder.encode(["a cat"])[0])


def test_only_the_layers_that_are_needed_are_loaded(encoder):
    assert len(encoder.model.layers) == 3


def test_a_long_prompt_is_cut_in_its_text_and_never_in_the_template(encoder, caplog):
    ids = encoder.token_ids(" cat" * 600)
    assert len(ids) == 512
    assert ids[:3] == VECTORS[""][:3] and ids[-5:] == VECTORS[""][-5:]
    assert ids[3:-5] == [8251] * 504
    assert "96 tokens longer" in caplog.text


def test_a_limit_below_the_template_is_refused(encoder):
    with pytest.raises(ValueError, match="max_tokens is 4"):
        encoder.token_ids("a cat", max_tokens=4)


def test_a_string_is_not_a_list_of_prompts(encoder):
    with pytest.raises(TypeError, match=r"encode\(\[prompt\]\)"):
        encoder.encode("a cat")


def test_a_single_file_with_the_usual_prefixes(qwen, encoder, tmp_path):
    expected = encoder.encode(["a cat"])[0]
    qwen.config.save_pretrained(tmp_path)
    for prefix in ("", "text_encoders.qwen3_4b.transformer."):
        file = tmp_path / "qwen_3_4b.safetensors"
        state = {prefix + k: v.clone() for k, v in qwen.state_dict().items() if not k.startswith("lm_head")}
        save_file(state, str(file))
        loaded = load_text_encoder(file, dtype="float32", tokenizer=SUBSET)
        assert torch.equal(loaded.encode(["a cat"])[0], expected)


def test_without_bfloat16_weights_stay_as_stored_and_float32_computes(qwen, tmp_path, monkeypatch):
    from zimage_core.checkpoint import load

    halves = {k: v.bfloat16() for k, v in qwen.state_dict().items() if not k.startswith("lm_head")}
    save_file(halves, str(tmp_path / "half.safetensors"))
    save_file({k: v.float() for k, v in halves.items()}, str(tmp_path / "rounded.safetensors"))
    monkeypatch.setattr(load, "has_bfloat16", lambda device: False)
    lean = load_text_encoder(tmp_path / "half.safetensors", tokenizer=SUBSET)
    assert {p.dtype for p in lean.model.parameters()} == {torch.bfloat16}
    full = load_text_encoder(tmp_path / "rounded.safetensors", dtype="float32", tokenizer=SUBSET)
    torch.testing.assert_close(lean.encode(["a cat"]), full.encode(["a cat"]), rtol=1e-4, atol=1e-5)


def test_a_missing_layer_is_an_error(qwen, tmp_path):
    state = {k: v.clone() for k, v in qwen.state_dict().items() if "layers.1.mlp.up" not in k and "lm_head" not in k}
    save_file(state, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=r"1 missing \(layers\.1\.mlp\.up_proj\.weight\)"):
        load_text_encoder(tmp_path / "x.safetensors", tokenizer=SUBSET)


def test_a_relative_path_finds_the_tokenizer_of_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder / "text_encoder")
    assert find_tokenizer(Path("model.safetensors")) == folder / "tokenizer"
    assert find_tokenizer(Path()) == folder / "tokenizer"


def test_where_the_tokenizer_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_DIR", raising=False)
    models = tmp_path / "ComfyUI" / "models" / "text_encoders"
    models.mkdir(parents=True)
    encoder = models / "qwen_3_4b.safetensors"
    shipped = tmp_path / "ComfyUI" / "comfy" / "text_encoders" / "qwen25_tokenizer"
    shutil.copytree(SUBSET, shipped)
    assert find_tokenizer(encoder) == shipped
    beside = models / "tokenizer"
    shutil.copytree(SUBSET, beside)
    assert find_tokenizer(encoder) == beside
    assert find_tokenizer(encoder, SUBSET) == SUBSET


def test_a_comfyui_named_by_the_environment(tmp_path, monkeypatch):
    shipped = tmp_path / "elsewhere" / "comfy" / "text_encoders" / "qwen25_tokenizer"
    shutil.copytree(SUBSET, shipped)
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path / "elsewhere"))
    assert find_tokenizer(tmp_path / "models" / "x.safetensors") == shipped


def test_no_tokenizer_is_one_sentence_that_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TokenizerError) as error:
        find_tokenizer(tmp_path / "models" / "x.safetensors")
    text = str(error.value)
    assert str(tmp_path / "models" / "tokenizer") in text
    assert str(tmp_path / "none" / "comfy" / "text_encoders" / "qwen25_tokenizer") in text
    assert "\n" not in text


def test_a_given_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(TokenizerError, match="there is no tokenizer at"):
        find_tokenizer(tmp_path, tmp_path / "nothing")


PROMPTS = ["a red circle", "Ein Fuß, 3.14 – déjà-vu!", "白色背景上的红色圆形", "don't\n\nstop  here ", "\u0065\u0301 e"]


@pytest.mark.parametrize("source", ["demo", "comfyui"])
def test_token_ids_equal_transformers_own_tokenizer(source):
    from transformers import Qwen2Tokenizer

    path = DEMO / "tokenizer" if source == "demo" else COMFYUI / "comfy" / "text_encoders" / "qwen25_tokenizer"
    if not path.is_dir():
        pytest.skip(f"there is no {path}: set COMFYUI_DIR to a ComfyUI to test with Qwen's whole tokenizer")
    ours, theirs = load_tokenizer(path), Qwen2Tokenizer.from_pretrained(str(path), local_files_only=True)
    for prompt in PROMPTS:
        text = TEMPLATE[0] + prompt + TEMPLATE[1]
        assert ours.encode(text, add_special_tokens=False).ids == theirs(text)["input_ids"]


def test_a_tokenizer_json_is_read_too(tmp_path):
    load_tokenizer(SUBSET).save(str(tmp_path / "tokenizer.json"))
    ids = load_tokenizer(tmp_path).encode(TEMPLATE[0] + "a cat" + TEMPLATE[1], add_special_tokens=False).ids
    assert ids == VECTORS["a cat"]
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["type"] == "BPE"
