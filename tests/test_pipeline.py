"""`ZImagePipeline.generate`: what decides a picture, and what does not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from oracles import DATA, ROOT
from safetensors.torch import load_file, save_file

import zimage_core
from zimage_core import CheckpointError, ZImagePipeline, demo_pipeline, sample, sigmas
from zimage_core.pipeline import noise, to_pil

PROMPT = "a red circle on a white background"


def pixels(image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def test_a_seed_is_a_picture(turbo):
    first, again, other = (turbo.generate(PROMPT, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(pixels(first), pixels(again))
    assert not np.array_equal(pixels(first), pixels(other))


def test_picture_i_of_a_batch_is_that_of_seed_plus_i(turbo):
    batch = turbo.generate(PROMPT, seed=10, count=3)
    assert [image.info["zimage"]["seed"] for image in batch] == [10, 11, 12]
    for i, image in enumerate(batch):
        assert np.array_equal(pixels(image), pixels(turbo.generate(PROMPT, seed=10 + i)[0]))


def test_several_prompts_are_each_drawn_as_alone(turbo):
    prompts = [PROMPT, "a large blue square in the top left on a yellow background"]
    both = turbo.generate(prompts, seed=5)
    for image, prompt in zip(both, prompts):
        settings = image.info["zimage"]
        assert settings["prompt"] == prompt
        assert np.array_equal(pixels(image), pixels(turbo.generate(prompt, seed=settings["seed"])[0]))
    assert [image.info["zimage"]["seed"] for image in both] == [5, 6]


def test_generate_is_its_parts(turbo):
    """The whole pipeline, spelled out."""
    captions = turbo.text_encoder.encode([PROMPT])
    *_, last = sample(turbo.transformer, noise(7, 128, 128), sigmas(8, 3.0), captions)
    assert np.array_equal(pixels(to_pil(turbo.vae.decode(last.latents))[0]), pixels(turbo.generate(PROMPT, seed=7)[0]))


def test_noise_is_drawn_for_each_picture_on_the_cpu():
    generator = torch.Generator("cpu").manual_seed(42)
    assert torch.equal(noise(42, 160, 96), torch.randn(1, 16, 12, 20, generator=generator))


@pytest.mark.parametrize("size", [(128, 128), (160, 96), (96, 160), (112, 144)])
def test_sizes(turbo, size):
    assert turbo.generate(PROMPT, width=size[0], height=size[1], steps=1, seed=0)[0].size == size


def test_both_scales_are_accepted_and_recorded(base):
    a = base.generate(PROMPT, seed=1, steps=2, cfg=5)[0]
    b = base.generate(PROMPT, seed=1, steps=2, guidance=4)[0]
    assert np.array_equal(pixels(a), pixels(b))
    assert a.info["zimage"] == b.info["zimage"]
    assert (a.info["zimage"]["cfg"], a.info["zimage"]["guidance"]) == (5, 4)
    assert base.resolve(guidance=0).cfg == 1
    with pytest.raises(ValueError, match="both cfg 5 and guidance 4"):
        base.resolve(cfg=5, guidance=4)


def test_defaults_are_the_variants_own(turbo, base):
    fast, full = turbo.resolve(), base.resolve()
    assert (fast.steps, fast.cfg, fast.shift, fast.width, fast.height) == (8, 1, 3, 128, 128)
    assert (full.steps, full.cfg, full.shift) == (30, 5, 6)
    assert (fast.variant, fast.variant_source) == ("turbo", "metadata")


def test_the_negative_prompt_matters_to_base_and_not_to_turbo(base, turbo, caplog):
    plain, other = (base.generate(PROMPT, n, seed=2, steps=4)[0] for n in ("", "red"))
    assert not np.array_equal(pixels(plain), pixels(other))
    plain, other = (turbo.generate(PROMPT, n, seed=2)[0] for n in ("", "red"))
    assert np.array_equal(pixels(plain), pixels(other))
    assert caplog.text.count("the negative prompt has no effect at cfg 1") == 1


def test_cfg_on_turbo_is_run_as_set_and_noted_once(turbo, caplog):
    plain = turbo.generate(PROMPT, seed=2)[0]
    guided = turbo.generate(PROMPT, seed=2, cfg=3.5, count=2)
    assert guided[0].info["zimage"]["cfg"] == 3.5
    assert not np.array_equal(pixels(plain), pixels(guided[0]))
    assert caplog.text.count("cfg 3.5 is run as set") == 1


def test_whole_numbers_may_come_from_numpy(turbo):
    settings = turbo.resolve(seed=np.uint64(2**64 - 1), width=np.int64(160), height=np.int32(96), steps=np.int16(3))
    assert (settings.seed, settings.width, settings.steps) == (2**64 - 1, 160, 3)


def test_no_negative_is_an_empty_one(base):
    none, empty = (base.generate(PROMPT, negative, seed=1, steps=2)[0] for negative in (None, ""))
    assert np.array_equal(pixels(none), pixels(empty))


def test_each_picture_is_handed_over_as_soon_as_it_is_there(turbo):
    order = []
    turbo.generate(
        PROMPT, steps=1, count=2, seed=0,
        callback=lambda i, step: order.append(("step", i)), on_picture=lambda i, image: order.append(image.size),
    )  # fmt: skip
    assert order == [("step", 0), (128, 128), ("step", 1), (128, 128)]


def test_a_callback_sees_every_forward(turbo):
    seen = []
    turbo.generate(PROMPT, seed=0, steps=3, solver="heun", count=2, callback=lambda i, s: seen.append((i, s.index)))
    assert seen == [(picture, forward) for picture in range(2) for forward in range(5)]
    assert turbo.resolve(steps=3, solver="heun").forwards == 5


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"steps": 0}, "steps is 0"),
        ({"width": 100}, "100x128"),
        ({"cfg": 0.5}, "cfg is 0.5"),
        ({"guidance": -1}, "guidance is -1"),
        ({"cfg": float("nan")}, "cfg is nan"),
        ({"cfg": float("inf")}, "cfg is inf"),
        ({"shift": float("inf")}, "shift is inf"),
        ({"cfg_normalization": -1}, "cfg normalisation is -1"),
        ({"cfg_truncation": 2}, "cfg truncation is 2"),
        ({"width": 0}, "0x128"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": 10**20}, "steps is 1e"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"shift": -2}, "shift is -2"),
        ({"solver": "magic"}, "'magic'"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name_and_value(turbo, settings, words):
    with pytest.raises(ValueError, match=words):
        turbo.generate(PROMPT, **settings)


def test_negatives_must_match_the_prompts(base):
    with pytest.raises(ValueError, match="3 negatives for 1 prompts"):
        base.generate([PROMPT], ["a", "b", "c"])


def test_parts_of_different_models_are_refused(turbo, model):
    with pytest.raises(CheckpointError, match=r"width 128 and .* takes 96"):
        ZImagePipeline(model, turbo.text_encoder, turbo.vae)


def test_a_folder_that_is_no_diffusers_folder():
    with pytest.raises(CheckpointError, match="no transformer"):
        ZImagePipeline.from_folder(DATA)


def test_one_file_that_holds_all_three_parts(turbo, tmp_path):
    """Under the prefixes of ComfyUI's all-in-one checkpoints; its tokenizer lies beside it."""
    demo = ROOT / "zimage_core" / "demo"
    prefixes = {
        "demo_turbo": ("model.diffusion_model.", ""), "demo_vae": ("vae.", ""),
        "demo_text_encoder": ("text_encoders.qwen3_4b.transformer.model.", "model."),
    }  # fmt: skip
    parts = {name: load_file(str(demo / f"{name}.safetensors")) for name in prefixes}
    whole = {
        prefixes[name][0] + k.removeprefix(prefixes[name][1]): t for name, p in parts.items() for k, t in p.items()
    }
    save_file(whole, str(tmp_path / "zimage_turbo_all.safetensors"))
    save_file(parts["demo_turbo"], str(tmp_path / "alone.safetensors"))
    shutil.copytree(demo / "tokenizer", tmp_path / "tokenizer")
    pipeline = ZImagePipeline.from_folder(tmp_path / "zimage_turbo_all.safetensors", dtype="float32")
    one, other = (p.generate(PROMPT, seed=3, width=128, height=128, steps=2)[0] for p in (pipeline, turbo))
    assert np.abs(pixels(one) - pixels(other)).max() <= 1
    with pytest.raises(CheckpointError, match=r"holds transformer and no text_encoder and no vae"):
        ZImagePipeline.from_folder(tmp_path / "alone.safetensors")


def test_an_unknown_demo():
    with pytest.raises(ValueError, match="'pro'"):
        demo_pipeline("pro")


def test_bfloat16_draws_the_same_scene(turbo):
    half = demo_pipeline("turbo", dtype="bfloat16")
    a, b = (pipeline.generate(PROMPT, seed=1)[0] for pipeline in (half, turbo))
    assert np.abs(pixels(a) - pixels(b)).mean() < 8


@pytest.mark.parametrize("page", ["docstring", "README.md"])
def test_the_examples_run_as_they_are_written(page, tmp_path, monkeypatch):
    text = zimage_core.__doc__ if page == "docstring" else (ROOT / page).read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "circle.png").is_file()
