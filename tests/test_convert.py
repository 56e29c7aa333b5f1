"""`zimage convert`: what it writes is read by other people's readers, and is what the rounding explains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import oracles
import pytest
import torch
import writers
from oracles import ROOT, captions, latents, relative
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from zimage_core import inspect_checkpoint, load_text_encoder, load_transformer, load_vae
from zimage_core.checkpoint import convert, encode, plan
from zimage_core.checkpoint.geometry import expected_shapes
from zimage_core.checkpoint.layouts import canonical, file_keys
from zimage_core.cli import main
from zimage_core.cli.convert import FORMS

DEMO = ROOT / "zimage_core" / "demo"
TURBO, ENCODER, VAE = (DEMO / f"demo_{name}.safetensors" for name in ("turbo", "text_encoder", "vae"))
E4M3 = torch.float8_e4m3fn
HIGH = ("embedder", "adaLN_modulation", "final_layer")  # what stays in 16 bits beside norms, biases and pad tokens


@pytest.fixture(scope="module")
def original():
    """diffusers' transformer with blocks of 32 in every row but those of the picture's patches' outputs."""
    return oracles.diffusers_transformer(dim=96, n_layers=2, n_heads=3)


@pytest.fixture(scope="module")
def sources(original, tmp_path_factory):
    """Files in the forms people have, and the numbers that an independent reader finds in each."""
    root = tmp_path_factory.mktemp("sources")
    state = original.state_dict()
    plain = writers.undiffused(state)
    original.save_pretrained(root / "folder" / "transformer", max_shard_size="1MB")
    assert len(list((root / "folder" / "transformer").glob("*.safetensors"))) > 2
    (root / "folder" / "scheduler").mkdir()
    (root / "folder" / "scheduler" / "scheduler_config.json").write_text('{"shift": 6.0}', encoding="utf-8")
    sdcpp = writers.sdcpp_transformer(plain)
    back = {
        "dense": writers.dense(torch.bfloat16)(plain, root / "dense"),
        "folder": plain,
        "fp8": writers.fp8_scaled("legacy")(plain, root / "fp8", "model.diffusion_model."),
        "fp8 split": writers.undiffused(
            writers.fp8_scaled("comfy_quant", every=2)(writers.diffusers_transformer(plain), root / "fp8 split")
        ),
        "gguf": writers.ggml("Q5_0")(plain, root / "gguf"),
        "sd.cpp": plain,
    }
    writers.dense(torch.float32)(sdcpp, root / "sd.cpp", "model.diffusion_model.")
    for name in back:
        if name != "folder":
            (root / name).rename(root / (name + (".gguf" if name == "gguf" else ".safetensors")))
    return {name: (next(p for p in root.iterdir() if p.stem == name), numbers) for name, numbers in back.items()}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments) -> int:
    try:
        return main(["convert", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)


def made(source, target: str, *options: str) -> Path:
    assert run(source, target, *options) == 0
    assert sorted(p.name for p in Path().iterdir() if ".tmp" in p.name) == []
    return Path(target)


def is_matrix(name: str, tensor: torch.Tensor, everything: bool = False) -> bool:
    return writers.is_matrix(name, tensor) and (everything or not any(part in name for part in HIGH))


def fp8_scaled(numbers: torch.Tensor) -> torch.Tensor:
    scale = numbers.abs().max() / 448
    return (numbers / scale).clamp(-448, 448).to(E4M3).float() * scale


def q8_0(numbers: torch.Tensor) -> torch.Tensor:
    kind = gguf.GGMLQuantizationType.Q8_0
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(numbers.numpy(), kind), kind))


# What each form makes of a matrix, by other people's code or in one line.
ROUNDED = {
    "bf16": lambda numbers: numbers.bfloat16().float(),
    "fp16": lambda numbers: numbers.half().float(),
    "fp8": lambda numbers: numbers.clamp(-448, 448).to(E4M3).float(),
    "fp8-scaled": fp8_scaled,
    "q8_0": q8_0,
}


def wanted(numbers: writers.State, to: str, everything: bool = False) -> writers.State:
    dense, matrix = ROUNDED["fp16" if to == "fp16" else "bf16"], ROUNDED[to]
    high = {"q8_0": lambda t: t}.get(to, dense)  # GGUF keeps what is no matrix in float32
    return {
        name: matrix(t) if is_matrix(name, t, everything) else dense(t) if writers.is_matrix(name, t) else high(t)
        for name, t in numbers.items()
    }


def read_safetensors(path: Path) -> writers.State:
    """As safetensors reads it, scales multiplied by hand."""
    stored = load_file(str(path))
    found = {}
    for name, tensor in stored.items():
        if name.endswith((".weight_scale", ".comfy_quant", ".input_scale")):
            continue
        mark = stored.get(f"{name.rpartition('.')[0]}.comfy_quant") if name.endswith(".weight") else None
        assert mark is None or json.loads(bytes(mark.tolist()))["format"] == str(tensor.dtype).removeprefix("torch.")
        found[name] = tensor.float() * (1 if mark is None else stored[name + "_scale"])
    return found


def read_gguf(path: Path) -> writers.State:
    reader = gguf.GGUFReader(path)
    found = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        found[tensor.name] = torch.from_numpy(numbers.copy())
    return found


def read(path: Path) -> writers.State:
    return read_gguf(path) if path.suffix == ".gguf" else read_safetensors(path)


def suffix(to: str) -> str:
    return ".gguf" if to == "q8_0" else ".safetensors"


def differing(a: writers.State, b: writers.State) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


SOURCES = ["dense", "folder", "fp8", "fp8 split", "gguf", "sd.cpp"]


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_in_every_form(sources, name, to, capsys):
    source, numbers = sources[name]
    path = made(source, "new" + suffix(to), "--to", to)
    found, want = read(path), wanted(numbers, to)
    # A tensor that had the form already is as it was; the source's own scales are better than new ones.
    if name == "fp8" and to == "fp8-scaled":
        want |= {n: t for n, t in numbers.items() if writers.is_matrix(n, t)}
    if name == "fp8 split" and to == "fp8-scaled":
        want |= {n: t for n, t in numbers.items() if writers.is_matrix(n, t) and ".qkv." not in n}
        for n in [n for n in differing(found, want) if ".qkv." not in n]:  # what was not quantised before
            torch.testing.assert_close(found.pop(n), fp8_scaled(want.pop(n)))
    assert differing(found, want) == []
    info = inspect_checkpoint(path)
    assert (info.kind, info.layout, info.prefix, info.missing, info.misshapen) == (
        "transformer",
        "original",
        "",
        (),
        (),
    )
    assert "note" not in capsys.readouterr().out.replace("note  Turbo is a guess", "").replace("note  Base is a", "")


def test_the_table_of_forms_is_the_command_s():
    assert tuple(plan.FORMS) == FORMS


@pytest.mark.parametrize(
    "to, limit", [("bf16", 0.01), ("fp16", 0.002), ("fp8", 0.2), ("fp8-scaled", 0.1), ("q8_0", 0.02)]
)
def test_what_the_model_computes_differs_as_the_rounding_explains(sources, original, to, limit):
    model = load_transformer(made(sources["folder"][0], "new" + suffix(to), "--to", to), dtype="float32")
    x, words = latents(1, 8, 8), captions(20)
    want = oracles.diffusers_velocity(original, x, torch.tensor([0.6]), words)
    assert 1e-5 < relative(model(x, 0.6, words), want) < limit


def test_everything_is_quantised_if_asked(sources):
    source, numbers = sources["folder"]
    found = read(made(source, "new.safetensors", "--to", "fp8-scaled", "--all"))
    assert differing(found, wanted(numbers, "fp8-scaled", everything=True)) == []
    stored = load_file("new.safetensors")
    assert stored["x_embedder.weight"].dtype == stored["final_layer.linear.weight"].dtype == E4M3
    assert stored["x_pad_token"].dtype == stored["x_embedder.bias"].dtype == torch.bfloat16
    load_transformer("new.safetensors")(latents(1, 8, 8).bfloat16(), 0.6, captions(20))


def test_16_bits_that_are_there_are_kept(sources, tmp_path):
    plain = sources["folder"][1]
    save_file({name: tensor.half() for name, tensor in plain.items()}, "half.safetensors")
    stored = load_file(str(made("half.safetensors", "new.safetensors", "--to", "fp8")))
    assert {str(tensor.dtype) for tensor in stored.values()} == {"torch.float16", "torch.float8_e4m3fn"}
    kinds = {
        t.name: t.tensor_type.name for t in gguf.GGUFReader(made("half.safetensors", "n.gguf", "--to", "q8_0")).tensors
    }
    assert (kinds["x_embedder.weight"], kinds["x_embedder.bias"], kinds["x_pad_token"]) == ("F16", "F32", "F32")


@pytest.mark.parametrize("name", ["dense", "folder", "sd.cpp"])
def test_layouts_keep_every_bit_both_ways(sources, original, name):
    source, numbers = sources[name]
    there = made(source, "diffusers.safetensors", "--layout", "diffusers")
    theirs = load_file(str(there))
    original_like = oracles.diffusers_transformer(dim=96, n_layers=2, n_heads=3, seed=1)
    original_like.load_state_dict({key: tensor.float() for key, tensor in theirs.items()}, strict=True)
    assert differing(writers.undiffused({k: t.float() for k, t in theirs.items()}), numbers) == []
    back = load_file(str(made(there, "original.safetensors", "--layout", "original")))
    assert {tensor.dtype for tensor in back.values()} == {tensor.dtype for tensor in theirs.values()}
    assert differing({key: tensor.float() for key, tensor in back.items()}, numbers) == []


def test_scaled_fp8_is_split_with_its_scales_and_joined_again(sources, capsys):
    source, numbers = sources["fp8"]
    split = made(source, "split.safetensors", "--layout", "diffusers")
    assert "loses the attention's scales" in capsys.readouterr().out
    assert differing(writers.undiffused(read(split)), numbers) == []
    joined = made(split, "joined.safetensors", "--layout", "original")
    assert "note" not in capsys.readouterr().out.replace("note  Turbo is a guess", "")
    stored = load_file(str(joined))
    assert all(tensor.shape == () for name, tensor in stored.items() if name.endswith("weight_scale"))
    assert differing(read(joined), numbers) == []


def test_parts_of_different_scales_get_one_for_each_row(original, capsys):
    state = original.state_dict()
    back = writers.undiffused(writers.fp8_scaled("comfy_quant")(state, Path("split.safetensors")))
    joined = made("split.safetensors", "joined.safetensors", "--layout", "original")
    assert "6 matrices get a scale for each row" in capsys.readouterr().out
    assert load_file(str(joined))["layers.0.attention.qkv.weight_scale"].shape == (288, 1)
    assert differing(read(joined), back) == []
    assert differing(writers.undiffused(read(made(joined, "again.safetensors", "--layout", "diffusers"))), back) == []
    assert load_file("again.safetensors").keys() == load_file("split.safetensors").keys()


def test_what_an_fp8_file_says_of_its_layers_is_kept(sources):
    weights = load_file(str(sources["fp8"][0]))
    weights["model.diffusion_model.scaled_fp8"] = torch.empty(2, dtype=E4M3)
    weights = {n: torch.tensor(0.5) if n.endswith("scale_input") else t for n, t in weights.items()}
    layers = [n for n in weights if n.endswith("scale_weight")]
    weights |= {n.replace("scale_weight", "scale_input"): torch.tensor(0.5) for n in layers}
    save_file(weights, "legacy.safetensors")
    stored = load_file(str(made("legacy.safetensors", "new.safetensors", "--layout", "diffusers")))
    mark = json.loads(bytes(stored["layers.0.attention.to_k.comfy_quant"].tolist()))
    assert mark == {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    assert float(stored["layers.1.attention.to_v.input_scale"]) == 0.5


def test_a_gguf_file_in_the_common_layout_keeps_its_blocks(sources):
    plain = sources["folder"][1]
    back = writers.ggml("Q4_0", "")(writers.sdcpp_transformer(plain), Path("sd.gguf"), "model.diffusion_model.")
    path = made("sd.gguf", "new.gguf", "--layout", "original")
    found = read(path)
    for name, tensor in back.items():
        if ".qkv.weight" not in name:
            assert torch.equal(found[name], tensor)
    parts = [back["layers.1.attention.qkv.weight" + end] for end in ("", ".1", ".2")]
    assert torch.equal(found["layers.1.attention.qkv.weight"], torch.cat(parts))
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "lumina2"
    assert "general.file_type" not in reader.fields
    assert sorted(found) == sorted(plain)


def test_a_gguf_file_is_as_other_readers_expect(sources):
    reader = gguf.GGUFReader(made(sources["folder"][0], "new.gguf", "--to", "q8_0"))
    facts = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    expected = {"general.architecture": "lumina2", "general.file_type": 7, "general.quantization_version": 2}
    assert facts == expected | {"zimage.variant": "base"}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors["x_pad_token"].shape.tolist() == [96, 1] and tensors["x_pad_token"].tensor_type.name == "F32"
    raw = Path("new.gguf").read_bytes()
    block = tensors["layers.0.attention.out.weight"]
    want = gguf.quants.quantize(sources["folder"][1]["layers.0.attention.out.weight"].numpy(), block.tensor_type)
    assert raw[block.data_offset : block.data_offset + block.n_bytes] == want.tobytes()
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors) and len(raw) % 32 == 0


def test_a_safetensors_file_is_aligned_and_whole(sources):
    path = made(sources["folder"][0], "new.safetensors", "--to", "fp8-scaled")
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert size % 8 == 0 and header.pop("__metadata__") == {"format": "pt", "zimage.variant": "base"}
    sizes = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1}
    assert all(entry["data_offsets"][0] % sizes[entry["dtype"]] == 0 for entry in header.values())
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(raw) - 8 - size


def test_rows_that_are_no_whole_blocks_stay_in_16_bits(capsys):
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(made(TURBO, "new.gguf", "--to", "q8_0")).tensors}
    assert (kinds["layers.0.feed_forward.w2.weight"], kinds["layers.0.feed_forward.w1.weight"]) == ("BF16", "Q8_0")
    assert "8 matrices (feed_forward.w2) stay in 16 bits" in capsys.readouterr().out


def test_the_errors_that_are_printed(sources, capsys):
    source, numbers = sources["folder"]
    found = read(made(source, "new.safetensors", "--to", "fp8-scaled", "-v"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    errors = {words[0]: float(words[1]) for words in lines if len(words) == 3 and words[2] == "%"}
    assert errors.keys() == {n for n in numbers if relative(found[n], numbers[n]) > 0}
    for name, percent in errors.items():
        assert percent == pytest.approx(100 * relative(found[name], numbers[name]), rel=0.06)
    (group,) = [words for words in lines if words[:2] == ["feed_forward.w3", "6"]]
    ours = [errors[n] for n in errors if "feed_forward.w3" in n]
    assert float(group[4]) == pytest.approx(sum(ours) / 6, rel=0.06) and float(group[8]) == max(ours)


def test_metadata_goes_along(sources):
    source = sources["dense"][0]
    metadata = {
        "modelspec.title": "Z-Image Turbo by me", "modelspec.hash_sha256": "0x12", "note": "中文",
        "_quantization_metadata": '{"layers": {}}', "empty": "",
    }  # fmt: skip
    save_file(load_file(str(source)), "source.safetensors", metadata)
    kept = {"modelspec.title": "Z-Image Turbo by me", "note": "中文", "zimage.variant": "turbo"}
    with safe_open(made("source.safetensors", "new.safetensors", "--to", "bf16"), "pt") as file:
        assert file.metadata() == kept | {"empty": "", "format": "pt"}
    reader = gguf.GGUFReader(made("source.safetensors", "new.gguf", "--to", "q8_0"))
    assert {name: reader.fields[name].contents() for name in kept} == kept
    with safe_open(made("new.gguf", "back.safetensors", "--to", "fp8"), "pt") as file:
        assert file.metadata() == kept | {"format": "pt"}
    assert inspect_checkpoint("back.safetensors").told.source == "metadata"


def test_a_guessed_variant_is_not_written_down(sources, capsys):
    with safe_open(made(sources["dense"][0], "new.safetensors", "--to", "bf16"), "pt") as file:
        assert "zimage.variant" not in file.metadata()
    assert "a guess from its weights" in capsys.readouterr().out
    made(sources["dense"][0], "told.safetensors", "--to", "bf16", "--variant", "base")
    assert "guess" not in capsys.readouterr().out
    assert inspect_checkpoint("told.safetensors").told.source == "metadata"
    assert inspect_checkpoint("told.safetensors").variant == "base"


# The other parts.


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Qwen3 with a tokenizer beside it, in a diffusers folder; its config.json says what no tensor can."""
    from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=600, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, rope_theta=5e6, tie_word_embeddings=True,
    )  # fmt: skip
    root = tmp_path_factory.mktemp("encoder")
    oracles.randomise(Qwen3ForCausalLM(config)).save_pretrained(root / "text_encoder", max_shard_size="100KB")
    shutil.copytree(DEMO / "tokenizer", root / "tokenizer")
    return root


@pytest.mark.parametrize("to", FORMS)
def test_a_text_encoder(encoders, to):
    options = ["--kind", "text_encoder", "--to", to]
    path = made(encoders, "new" + suffix(to), *options)
    shutil.copytree(DEMO / "tokenizer", "tokenizer")
    shutil.copy(encoders / "text_encoder" / "config.json", "config.json")
    ours, theirs = (load_text_encoder(p, dtype="float32") for p in (path, encoders))
    limit = {"bf16": 0.02, "fp16": 0.002, "fp8": 0.3, "fp8-scaled": 0.15, "q8_0": 0.03}[to]
    a, b = (encoder.encode(["a red circle on a white background"])[0] for encoder in (ours, theirs))
    assert 1e-5 < relative(a, b) < limit
    stored = read(path)
    table = stored["token_embd.weight" if to == "q8_0" else "model.embed_tokens.weight"]
    want = load_file(str(sorted((encoders / "text_encoder").glob("*.safetensors"))[0]))
    assert torch.equal(table, ROUNDED["fp16" if to == "fp16" else "bf16"](want["model.embed_tokens.weight"]))


def test_a_text_encoder_s_gguf_file_says_all_of_it(encoders, capsys):
    made(encoders, "new.gguf", "--kind", "text_encoder", "--to", "q8_0")
    assert "note" not in capsys.readouterr().out
    info = inspect_checkpoint("new.gguf")
    assert (info.layout, info.config["rope_theta"]) == ("llama.cpp", 5e6)
    ours, theirs = load_text_encoder("new.gguf", dtype="float32"), load_text_encoder(encoders, dtype="float32")
    assert ours.token_ids("a red circle 红色") == theirs.token_ids("a red circle 红色")
    assert relative(ours.encode(["a red circle"])[0], theirs.encode(["a red circle"])[0]) < 0.03
    facts = {name: field.contents() for name, field in gguf.GGUFReader("new.gguf").fields.items() if "qwen3." in name}
    assert facts == {
        "qwen3.block_count": 3, "qwen3.context_length": 40960, "qwen3.embedding_length": 64,
        "qwen3.feed_forward_length": 96, "qwen3.attention.head_count": 2, "qwen3.attention.head_count_kv": 1,
        "qwen3.attention.key_length": 32, "qwen3.attention.value_length": 32, "qwen3.rope.freq_base": 5e6,
        "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-6), "qwen3.vocab_size": 600,
    }  # fmt: skip


def test_transformers_reads_a_text_encoder_s_gguf_file(tmp_path):
    from transformers import Qwen3Model

    made(ENCODER, "new.gguf", "--to", "q8_0")
    theirs = Qwen3Model.from_pretrained(tmp_path, gguf_file="new.gguf", dtype=torch.float32)
    ours = read_gguf(Path("new.gguf"))
    assert torch.equal(theirs.layers[1].mlp.up_proj.weight, ours["blk.1.ffn_up.weight"])
    assert torch.equal(theirs.embed_tokens.weight, ours["token_embd.weight"])
    assert len(theirs.state_dict()) == len(ours)


def test_a_tokenizer_in_the_source_is_kept(encoders):
    made(encoders, "new.gguf", "--kind", "text_encoder", "--to", "q8_0")
    Path("elsewhere").mkdir()
    made("new.gguf", "elsewhere/again.gguf", "--layout", "original")
    first, second = (gguf.GGUFReader(path).fields for path in ("new.gguf", "elsewhere/again.gguf"))
    names = [name for name in first if name.startswith("tokenizer.")]
    assert len(names) == 9 and all(first[n].contents() == second[n].contents() for n in names)
    assert all(first[n].types == second[n].types for n in names)


def test_what_a_file_cannot_say_is_said(encoders, capsys):
    made(encoders, "new.safetensors", "--kind", "text_encoder", "--layout", "original")
    assert "cannot say rope_theta 5000000.0: copy" in capsys.readouterr().out
    shutil.copy(ENCODER, "alone.safetensors")
    made("alone.safetensors", "new.gguf", "--to", "q8_0")
    assert "no tokenizer lies beside the source" in capsys.readouterr().out


def test_a_vae_both_ways(capsys):
    there = made(VAE, "diffusers.safetensors", "--layout", "diffusers")
    theirs = load_file(str(there))
    assert theirs["encoder.mid_block.attentions.0.to_q.weight"].shape == (64, 64)
    back = load_file(str(made(there, "ldm.safetensors", "--layout", "original")))
    assert differing(back, load_file(str(VAE))) == []
    made(VAE, "half.safetensors", "--to", "fp16")
    z = latents(1, 4, 4)
    images = [load_vae(path, dtype="float32").decode(z) for path in (VAE, there, "half.safetensors")]
    assert torch.equal(images[0], images[1]) and relative(images[2], images[0]) < 0.01


def test_one_part_of_an_all_in_one_file(capsys):
    state = {"model.diffusion_model." + name: tensor for name, tensor in load_file(str(TURBO)).items()}
    state |= {"vae." + name: tensor for name, tensor in load_file(str(VAE)).items()}
    save_file(state, "all.safetensors")
    made("all.safetensors", "transformer.safetensors", "--layout", "original")
    assert "only the transformer was taken; the source also holds vae (--kind)" in capsys.readouterr().out
    assert differing(load_file("transformer.safetensors"), load_file(str(TURBO))) == []
    made("all.safetensors", "vae.safetensors", "--layout", "original", "--kind", "vae")
    assert differing(load_file("vae.safetensors"), load_file(str(VAE))) == []


@pytest.mark.parametrize("kind, layout", [("transformer", "diffusers"), ("text_encoder", "llama.cpp"), ("vae", "ldm")])
def test_tables_of_keys_lead_back(kind, layout):
    info = inspect_checkpoint({"transformer": TURBO, "text_encoder": ENCODER, "vae": VAE}[kind])
    names = list(expected_shapes(kind, info.config))
    keys = {name: file_keys(name, kind, layout, 4) for name in names}
    assert canonical([key for parts in keys.values() for key in parts], kind, layout) == keys


# What is refused, and what a failure leaves.


def files_to_refuse():
    save_file({n: t * 3e5 for n, t in load_file(str(TURBO)).items()}, "large.safetensors")
    bad = {
        n: torch.full_like(t, float("nan")) if n == "x_embedder.bias" else t for n, t in load_file(str(TURBO)).items()
    }
    save_file(bad, "nan.safetensors")
    try:
        Path("link.safetensors").symlink_to(Path("large.safetensors"))
        os.link("large.safetensors", "hard.safetensors")
    except OSError:
        pytest.skip("links cannot be made here")
    Path("there.safetensors").write_bytes(b"an older file")
    Path("folder.safetensors").mkdir()


WRONG = {
    "nothing to do": ([TURBO, "x.safetensors"], ["--to", "--layout"]),
    "an unknown form": ([TURBO, "x.safetensors", "--to", "q4_0"], ["q4_0", "q8_0"]),
    "the wrong suffix": ([TURBO, "x.safetensors", "--to", "q8_0"], ["q8_0", ".gguf"]),
    "the other suffix": ([TURBO, "x.gguf", "--to", "fp8"], ["fp8", ".safetensors"]),
    "no suffix": ([TURBO, "x", "--layout", "diffusers"], [".safetensors", ".gguf"]),
    "a GGUF file of diffusers": ([TURBO, "x.gguf", "--to", "q8_0", "--layout", "diffusers"], [".gguf", "one layout"]),
    "a quantised VAE": ([VAE, "x.safetensors", "--to", "fp8"], ["demo_vae", "VAE", "bf16"]),
    "a VAE as GGUF": ([VAE, "x.gguf", "--layout", "original"], ["demo_vae", "bf16"]),
    "--all of nothing": ([TURBO, "x.safetensors", "--to", "bf16", "--all"], ["--all", "q8_0"]),
    "a text encoder's variant": ([ENCODER, "x.safetensors", "--to", "fp8", "--variant", "base"], ["variant"]),
    "no source": (["no.safetensors", "x.safetensors", "--to", "fp8"], ["no.safetensors"]),
    "another file": ([ROOT / "LICENSE", "x.safetensors", "--to", "fp8"], ["LICENSE"]),
    "no folder": ([TURBO, "no/x.safetensors", "--to", "fp8"], ["no folder no"]),
    "a folder": ([TURBO, "folder.safetensors", "--to", "fp8"], ["is a folder"]),
    "a file that is there": ([TURBO, "there.safetensors", "--to", "fp8"], ["there.safetensors exists", "--force"]),
    "itself": (["large.safetensors", "large.safetensors", "--to", "fp8", "--force"], ["the source itself"]),
    "itself otherwise": (["large.safetensors", "folder.safetensors/../large.safetensors", "--to", "fp8"], ["itself"]),
    "itself by a link": (["large.safetensors", "link.safetensors", "--to", "fp8", "--force"], ["the source itself"]),
    "itself by a hard link": (["large.safetensors", "hard.safetensors", "--to", "fp8", "--force"], ["itself"]),
    "a link to itself": (["link.safetensors", "large.safetensors", "--to", "fp8", "--force"], ["the source itself"]),
    "too large for fp16": (["large.safetensors", "x.safetensors", "--to", "fp16"], ["float16", "bf16"]),
    "no numbers": (["nan.safetensors", "x.safetensors", "--to", "fp16"], ["nan.safetensors", "x_embedder.bias"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(case, capsys):
    files_to_refuse()
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    arguments, words = WRONG[case]
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_blocks_do_not_fit_into_safetensors(sources, capsys):
    assert run(sources["gguf"][0], "x.safetensors", "--layout", "diffusers") == 2
    assert "gguf.gguf holds Q5_0, which a .safetensors file cannot" in capsys.readouterr().err
    assert run(sources["fp8"][0], "x.gguf", "--layout", "original") == 2
    assert "which a .gguf file cannot" in capsys.readouterr().err


def test_force_replaces(sources):
    Path("new.safetensors").write_bytes(b"an older file")
    made(sources["dense"][0], "new.safetensors", "--to", "bf16", "--force")
    load_transformer("new.safetensors")


def test_a_full_disk_is_said_beforehand(sources, capsys, monkeypatch):
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1_000_000))
    assert run(sources["dense"][0], "x.safetensors", "--to", "bf16") == 1
    assert "x.safetensors cannot be written: 2 MB are needed, 1 MB are free" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_failing_write_leaves_what_was_there(sources, capsys, monkeypatch):
    source = sources["dense"][0]
    before = source.read_bytes()
    Path("x.safetensors").write_bytes(b"an older file")
    steps = iter(range(10))

    def fail(*arguments):
        if next(steps) == 9:
            raise OSError(28, "No space left on device")
        return quantise(*arguments)

    quantise = encode._quantise
    monkeypatch.setattr(encode, "_quantise", fail)
    assert run(source, "x.safetensors", "--to", "fp8", "-f") == 1
    assert "x.safetensors cannot be written: No space left on device" in capsys.readouterr().err
    assert [p.name for p in Path().iterdir()] == ["x.safetensors"]
    assert Path("x.safetensors").read_bytes() == b"an older file" and source.read_bytes() == before


def test_a_stop_leaves_nothing(sources, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "_quantise", stop)
    assert run(sources["dense"][0], "x.gguf", "--to", "q8_0") == 1
    assert list(Path().iterdir()) == []


def test_a_killed_run_leaves_nothing_under_the_name_and_the_next_one_cleans_up(sources, tmp_path):
    source = shutil.copy(sources["dense"][0], "source.safetensors")
    before = Path(source).read_bytes()
    code = (
        "import sys, time; from zimage_core.checkpoint import encode; from zimage_core.cli import main\n"
        "encode._quantise = lambda *a: (print('begun', flush=True), time.sleep(60))\n"
        "main(['convert', 'source.safetensors', 'new.safetensors', '--to', 'fp8'])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        while process.stdout.readline() not in ("begun\n", ""):
            pass
        process.kill()
    left = "new.safetensors.zimage-convert.tmp"
    assert sorted(p.name for p in tmp_path.iterdir()) == [left, f"{left}.lock", "source.safetensors"]
    assert Path(source).read_bytes() == before
    made(source, "new.safetensors", "--to", "fp8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.safetensors", "source.safetensors"]


def test_of_two_runs_only_one_writes(sources, capsys, monkeypatch):
    quantise, codes = encode._quantise, []

    def meanwhile(*arguments):
        if not codes:
            codes.append(run(sources["dense"][0], "x.safetensors", "--to", "bf16"))
        return quantise(*arguments)

    monkeypatch.setattr(encode, "_quantise", meanwhile)
    made(sources["dense"][0], "x.safetensors", "--to", "fp8")
    assert codes == [1] and "another run is writing it" in capsys.readouterr().err
    assert [p.name for p in Path().iterdir()] == ["x.safetensors"]


MEASURE = """
import resource, sys
from pathlib import Path
from zimage_core import inspect_checkpoint
from zimage_core.checkpoint.convert import write
from zimage_core.checkpoint.plan import plan
def peak(source, target, to):
    write(plan(inspect_checkpoint(source), Path(target).suffix, to), Path(target))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for to, target in (("fp8-scaled", "a.safetensors"), ("q8_0", "a.gguf"), ("bf16", "b.safetensors")):
    before = peak("small.safetensors", target, to)
    print(peak("large.safetensors", target, to) - before, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux counts memory")
def test_memory_does_not_grow_with_the_file():
    """A file of 77 MB, whose largest tensor has 4 MB, read from a mapped file and written to another."""
    from zimage_core.model import S3DiT, S3DiTConfig

    for name, dim, heads in (("small", 96, 3), ("large", 576, 9)):
        config = S3DiTConfig(
            dim=dim, n_layers=1, n_refiner_layers=2, n_heads=heads, cap_feat_dim=96, ffn_dim=dim * 8 // 3
        )
        save_file(S3DiT(config).state_dict(), f"{name}.safetensors")
    assert Path("large.safetensors").stat().st_size > 75e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    grown = [int(number) for number in done.stdout.split()]
    assert len(grown) == 3 and max(grown) < 40, grown
