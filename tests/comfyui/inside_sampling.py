"""Checks that run inside ComfyUI's Python: sampling in parts, the official guidance, what stops a run, prompts.

Each is given the demo's parts, and what it returns is judged in test_inside_sampling.py.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hosted import (
    HIDDEN,
    PROMPTS,
    Parts,
    demo,
    empty,
    encode,
    host_model,
    load_text_encoder,
    load_transformer,
    message_of,
    noise_of,
    relative,
    run,
    sampling,
)

# isort: split
import comfy.hooks
import comfy.model_base
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import comfy.sd
import comfy.supported_models
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow
from pack.nodes.host import checks, guider, prompts, schedule
from pack.nodes.settings import Guidance, size_notes

sys.path.append(str(Path(__file__).parents[1]))
import oracles

BASE = {"mode": "Base", "steps": 6, "cfg": 5.0}
SIZE = (8, 12)


def guider_of(model: Any, positive: Any, negative: Any = None, **asked: Any) -> Any:
    return guider.make_guider(model, positive, negative, Guidance(**({"cfg": 0.0} | asked)), HIDDEN)[0]


def sigmas_of(model: Any, steps: int = 0, strength: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return schedule.make_sigmas(model, steps, strength, shift, HIDDEN)[0]


def custom(made: Any, sigmas: torch.Tensor, latent: Any = None, noise: Any = None, solver: str = "euler") -> Any:
    """SamplerCustomAdvanced; its noise is RandomNoise of the seed that `run` has."""
    sampler = comfy.samplers.sampler_object(solver)
    output = SamplerCustomAdvanced.execute(noise or Noise_RandomNoise(5), made, sampler, sigmas, latent or empty())
    return output.result[0]["samples"]


class OurNoise:
    """As our sampler draws it: picture i from seed + i."""

    seed = 5

    def generate_noise(self, latent: dict[str, Any]) -> torch.Tensor:
        return sampling._noise(latent["samples"], self.seed, sampling.indices_of(latent))


def check_parts(p: Parts) -> dict[str, float]:
    """Guider, sigmas and model sampling in SamplerCustomAdvanced, against our sampler at the same seed."""
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "a blue square")
    official = {"cfg_normalization": True, "cfg_truncation": 0.5}
    guided = {"cfg": 5.0, "normalization": 1.0, "truncation": 0.5}
    picture = {"samples": noise_of(9)}
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    masked = picture | {"noise_mask": mask}
    shifted = schedule.set_shift(p.turbo, {"preset": "custom", "shift": 1.5}, HIDDEN)[0]
    as_base = schedule.set_shift(p.turbo, {"preset": "Base"}, HIDDEN)[0]
    turbo, base = guider_of(p.turbo, positive), guider_of(p.base, positive, negative)
    theirs, plain = host_model(), [[torch.randn(1, 50, 128, generator=torch.Generator().manual_seed(0)), {}]]
    six = {"steps": 6}
    three = empty(3)
    batch = run(p.turbo, positive, latent=three, mode=six)[0]
    drawn = custom(turbo, sigmas_of(p.turbo, 6), three)
    return {
        "turbo": relative(custom(turbo, sigmas_of(p.turbo)), run(p.turbo, positive)[0]),
        "again": relative(custom(turbo, sigmas_of(p.turbo)), run(p.turbo, positive)[0]),
        "base": relative(custom(base, sigmas_of(p.base, 6)), run(p.base, positive, negative, mode=BASE)[0]),
        "own steps": relative(custom(base, sigmas_of(p.base)), run(p.base, positive, negative)[0]),
        "official": relative(
            custom(guider_of(p.base, positive, negative, **guided), sigmas_of(p.base, 6)),
            run(p.base, positive, negative, mode=BASE | official)[0],
        ),
        "heun": relative(
            custom(turbo, sigmas_of(p.turbo, 6), solver="heun"), run(p.turbo, positive, mode=six, solver="heun")[0]
        ),
        "sde": relative(
            custom(turbo, sigmas_of(p.turbo, 6), solver="euler_ancestral"),
            run(p.turbo, positive, mode=six, solver="euler_ancestral")[0],
        ),
        "landscape": relative(
            custom(turbo, sigmas_of(p.turbo, 6), empty(1, 12, 20)),
            run(p.turbo, positive, latent=empty(1, 12, 20), mode=six)[0],
        ),
        "strength": relative(
            custom(turbo, sigmas_of(p.turbo, 6, 0.6), picture),
            run(p.turbo, positive, latent=picture, mode=six, strength=0.6)[0],
        ),
        "strength 0": relative(custom(turbo, sigmas_of(p.turbo, 6, 0.0), picture), picture["samples"]),
        "mask": relative(
            custom(turbo, sigmas_of(p.turbo, 6), masked), run(p.turbo, positive, latent=masked, mode=six)[0]
        ),
        "shift": relative(
            custom(turbo, sigmas_of(p.turbo, 6, 1.0, 1.5)), run(p.turbo, positive, mode=six, shift=1.5)[0]
        ),
        "shift of the model": relative(
            custom(guider_of(shifted, positive), sigmas_of(shifted, 6)),
            run(p.turbo, positive, mode=six, shift=1.5)[0],
        ),
        "preset": relative(
            custom(guider_of(as_base, positive), sigmas_of(as_base, 6)), run(p.turbo, positive, mode=six, shift=6.0)[0]
        ),
        "host's model": relative(
            custom(guider_of(theirs, plain, cfg=1.0), sigmas_of(theirs, 6)),
            run(theirs, plain, mode=six | {"mode": "Turbo", "cfg": 1.0})[0],
        ),
        "batch": relative(custom(turbo, sigmas_of(p.turbo, 6), three, OurNoise()), batch),
        "first of a batch": relative(drawn[:1], batch[:1]),
        # RandomNoise draws a batch in one go: its other pictures are not those of seed + i.
        "others of a batch differ": 0.0 if relative(drawn[1:], batch[1:]) > 0.1 else 1.0,
    }


def check_shift_nodes(p: Parts) -> dict[str, Any]:
    """What ZImageSigmas and ZImageModelSampling say, on our models and on others."""
    generous = {"preset": "custom", "shift": 2.0}

    def other(config: Any, model_type: Any) -> Any:
        """A MODEL of another family, as far as its sampling goes."""
        model = torch.nn.Linear(1, 1)
        model.model_config, model.model_type = config, model_type
        model.model_sampling = comfy.model_base.model_sampling(config, model_type)
        return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))

    aura = ModelSamplingAuraFlow().patch_aura(p.turbo, 2.5)[0].get_model_object("model_sampling")
    ours = schedule.set_shift(p.turbo, generous | {"shift": 2.5}, HIDDEN)[0].get_model_object("model_sampling")
    flow, flux = comfy.model_base.ModelType.FLOW, comfy.model_base.ModelType.FLUX
    sd3 = other(comfy.supported_models.SD3({}), flow)
    moved = schedule.set_shift(sd3, generous, HIDDEN)[0].get_model_object("model_sampling")
    before = sd3.get_model_object("model_sampling")
    set_twice = schedule.set_shift(schedule.set_shift(p.base, generous, HIDDEN)[0], {"preset": "auto"}, HIDDEN)
    return {
        "sd3": [moved.shift, moved.multiplier, float(moved.timestep(torch.tensor(0.5)))],
        "sd3 before": [before.shift, before.multiplier],
        "untouched": [p.base.model.model_sampling.shift, len(p.base.object_patches)],
        "auto": [set_twice[1], set_twice[0].get_model_object("model_sampling").shift],
        "as the host's node": [
            relative(ours.sigmas, aura.sigmas), float(aura.shift), float(ours.timestep(torch.tensor(1.0)))],
        "sampler": run(schedule.set_shift(p.turbo, generous, HIDDEN)[0], encode(p.clip, ""), mode={"steps": 1})[1],
        "sigmas": schedule.make_sigmas(p.base, 0, 0.5, 0.0, HIDDEN)[1],
        "none": len(sigmas_of(p.base, 4, 0.0)),
        "guider": guider.make_guider(p.base, encode(p.clip, "a"), encode(p.clip, ""), Guidance(0.0, 1.0, 0.5),
                                     HIDDEN)[1],
        "guider on turbo": guider.make_guider(p.turbo, encode(p.clip, "a"), encode(p.clip, ""), Guidance(0.0),
                                              HIDDEN)[1],
        "refused": message_of(lambda: schedule.set_shift(
            other(comfy.supported_models.Flux({}), flux), generous, HIDDEN)),
        "auto of another": message_of(lambda: schedule.set_shift(sd3, {"preset": "auto"}, HIDDEN)),
        "sigmas of another": message_of(lambda: sigmas_of(sd3)),
        "guider of another": message_of(lambda: guider_of(sd3, [])),
        "no negative": message_of(lambda: guider_of(p.base, [])),
        "no preset": message_of(lambda: schedule.set_shift(p.turbo, None, HIDDEN)),
    }  # fmt: skip


def pipeline(reference: Any) -> Any:
    """diffusers' pipeline around its own transformer, with prompts already encoded and no VAE at the end."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    pipe = ZImagePipeline.__new__(ZImagePipeline)
    super(ZImagePipeline, pipe).__init__()
    pipe.register_modules(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0), vae=None, text_encoder=None, tokenizer=None,
        transformer=reference,
    )  # fmt: skip
    pipe.vae_scale_factor = 8
    pipe.set_progress_bar_config(disable=True)
    return pipe


def check_diffusers(p: Parts) -> dict[str, Any]:
    """Whole trajectories of the official guidance through our sampler and through SamplerCustomAdvanced."""
    reference = oracles.diffusers_transformer()
    pipe = pipeline(reference)
    with tempfile.TemporaryDirectory() as folder:
        path = oracles.save_canonical(reference, Path(folder) / "oracle.safetensors")
        model = load_transformer(str(path), "base", "float32")
    positive, negative = (c[None] for c in oracles.captions(37, 12))
    differences, forwards, effects = {}, {}, {}
    for batch in (1, 3):
        latent = empty(batch, *SIZE)
        noise = torch.cat([noise_of(5 + i, *SIZE) for i in range(batch)])
        for guidance, normalization, truncation in (
            (0.0, 0.0, 1.0), (4.0, 0.0, 1.0), (4.0, 1.0, 1.0), (3.0, 0.0, 0.4), (4.0, 1.0, 0.2), (4.0, 1.0, 0.0),
        ):  # fmt: skip
            expected = pipe(
                prompt_embeds=[positive[0]] * batch, negative_prompt_embeds=[negative[0]] * batch, latents=noise,
                height=8 * SIZE[0], width=8 * SIZE[1], num_inference_steps=6, guidance_scale=guidance,
                cfg_normalization=bool(normalization), cfg_truncation=truncation, output_type="latent",
            ).images  # fmt: skip
            expected = expected / 0.3611 + 0.1159
            mode = BASE | {"cfg": guidance + 1, "cfg_normalization": bool(normalization), "cfg_truncation": truncation}
            ours, _ = run(model, [[positive, {}]], [[negative, {}]], latent, mode)
            made = guider_of(model, [[positive, {}]], [[negative, {}]], cfg=guidance + 1, normalization=normalization,
                             truncation=truncation)  # fmt: skip
            theirs = custom(made, sigmas_of(model, 6), latent, OurNoise())
            name = f"{batch}: {guidance:g}, {normalization:g}, {truncation:g}"
            differences[name] = [relative(ours, expected), relative(theirs, expected)]
            forwards[name] = made.forwards
            effects[name] = expected
    first = [effects[f"{batch}: 4, 0, 1"] for batch in (1, 3)]
    changed = min(
        relative(value, first[0 if name[0] == "1" else 1]) for name, value in effects.items() if "4, 0, 1" not in name
    )
    return {"differences": differences, "forwards": forwards, "effect": changed}


def count(model: Any, work: Any) -> list[int]:
    """Calls of the model, and the rows of all calls together, while `work` runs on a clone of it."""
    rows: list[int] = []

    def wrapper(executor: Any, x: torch.Tensor, *a: Any, **kw: Any) -> Any:
        rows.append(len(x))
        return executor(x, *a, **kw)

    model = model.clone()
    model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    work(model)
    return [len(rows), sum(rows)]


def check_guider_evaluations(p: Parts) -> dict[str, list[int]]:
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")

    def draw(latent: Any = None, **asked: Any) -> Any:
        return lambda model: custom(guider_of(model, positive, negative, **asked), sigmas_of(model, 4), latent)

    return {
        "turbo": count(p.turbo, draw()),
        "base": count(p.base, draw()),
        "truncated": count(p.base, draw(cfg=5.0, truncation=0.1)),
        "truncated from the start": count(p.base, draw(cfg=5.0, truncation=0.0)),
        "truncated, batch": count(p.base, draw(empty(3), cfg=5.0, truncation=0.1)),
    }


def overflowing(model: Any) -> Any:
    """A clone whose last projection has infinite weights."""
    key = "diffusion_model.final_layer.linear.weight"
    weight = torch.full_like(model.model.state_dict()[key], float("inf"))
    model = model.clone()
    model.add_patches({key: ("set", (weight,))})
    return model


def breaks_at(model: Any, sigma: float) -> Any:
    """A clone whose prediction is NaN once the noise is below `sigma`."""

    def wrapper(executor: Any, x: torch.Tensor, timesteps: torch.Tensor, *a: Any, **kw: Any) -> Any:
        out = executor(x, timesteps, *a, **kw)
        return out * float("nan") if float(timesteps[0]) < sigma else out

    model = model.clone()
    model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    return model


def check_not_finite(p: Parts) -> dict[str, Any]:
    """Each place where a number can stop being finite, through our sampler and through SamplerCustomAdvanced."""
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")
    nan, inf = [[c.clone(), dict(d)] for c, d in positive], [[c.clone(), dict(d)] for c, d in negative]
    nan[0][0][0, 3, 5], inf[0][0][0, 0, 0] = float("nan"), float("inf")
    picture = empty()
    picture["samples"][0, 3, 4, 5] = float("inf")
    late = breaks_at(p.turbo, 0.8)  # Turbo's fifth step of eight is at 0.75
    third = count(late, lambda m: message_of(lambda: run(m, positive)))
    isfinite, asked = torch.isfinite, []

    def counting(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(tensor.shape)
        return isfinite(tensor)

    checks.torch.isfinite = counting
    try:
        run(p.turbo, positive, mode={"steps": 4})
    finally:
        checks.torch.isfinite = isfinite
    levels, at = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.5])
    bad = torch.full((1, 16, 2, 2), float("nan"))
    half = SimpleNamespace(model=SimpleNamespace(manual_cast_dtype=torch.float16))
    return {
        "positive": message_of(lambda: run(p.turbo, nan)),
        "negative": message_of(lambda: run(p.base, positive, inf, mode=BASE)),
        "latent": message_of(lambda: run(p.turbo, positive, latent=picture, strength=0.5)),
        "first step": message_of(lambda: run(overflowing(p.turbo), positive)),
        "late": message_of(lambda: run(late, positive)),
        "late, by the guider": message_of(lambda: custom(guider_of(late, positive), sigmas_of(late))),
        "late, heun": message_of(lambda: run(late, positive, solver="heun")),
        "the solver": message_of(lambda: checks.check_finite_step(p.turbo, bad, bad, at, levels)),
        "float16": message_of(lambda: checks.check_finite_step(half, at, bad, at, levels)),
        "stopped after": third,
        "good": message_of(lambda: run(p.turbo, positive, mode={"steps": 2})),
        "questions": len(asked),
    }


def check_mismatches(p: Parts) -> dict[str, Any]:
    positive = encode(p.clip, PROMPTS[0])

    def features(width: int) -> Any:
        return [[torch.zeros(1, 8, width), {}]]

    def model_of(width: int) -> Any:
        return SimpleNamespace(model=SimpleNamespace(
            model_config=SimpleNamespace(unet_config={"cap_feat_dim": width})))  # fmt: skip

    def mixed(width: int, model: int) -> str:
        return message_of(lambda: checks.check_features(model_of(model), {"positive": features(width)}))

    return {
        "real encoder, demo": message_of(lambda: run(p.turbo, features(2560))),
        "demo encoder, real": mixed(128, 2560),
        "klein": mixed(7680, 2560),
        "unknown": mixed(777, 2560),
        "negative": message_of(lambda: guider_of(p.base, positive, features(2560), cfg=5.0)),
        "other family": message_of(lambda: run(p.turbo, positive, latent={"samples": torch.ones(1, 4, 16, 16)})),
        "video": message_of(lambda: custom(
            guider_of(p.turbo, positive), sigmas_of(p.turbo), {"samples": torch.ones(1, 16, 1, 16, 16)})),
        "large demo": run(p.turbo, positive, latent=empty(1, 40, 40), mode={"steps": 1})[1],
        "demo": run(p.turbo, positive, latent=empty(1, 12, 20), mode={"steps": 1})[1],
        "notes": [len(size_notes(*size, 2560)) for size in
                  ((512, 512), (1024, 1024), (2048, 2048), (896, 512), (2048, 1152), (496, 512), (2064, 2048))],
        "words": size_notes(256, 256, 2560),
    }  # fmt: skip


def check_prompts(p: Parts) -> dict[str, Any]:
    """Features are the host's own; what is kept is never that of another encoder, LoRA, layer or text."""
    clip = load_text_encoder(demo("text_encoder"))
    calls: list[int] = []
    original = clip.cond_stage_model.encode_token_weights

    def encoding(tokens: Any) -> Any:
        calls.append(1)
        return original(tokens)

    clip.cond_stage_model.encode_token_weights = encoding

    def made(clip: Any, positive: str, negative: str = "") -> tuple[Any, Any, int]:
        calls.clear()
        (first, second), _ = prompts.encode_prompts(clip, {"positive": positive, "negative": negative}, HIDDEN)
        return first, second, len(calls)

    def same(clip: Any, text: str) -> float:
        return relative(made(clip, text)[0][0][0], encode(clip, text)[0][0])

    positive, _, both = made(clip, PROMPTS[0], "blurry")
    counts = {
        "both": both,
        "again": made(clip, PROMPTS[0], "blurry")[2],
        "negative": made(clip, PROMPTS[0], "dark")[2],
        "swapped": made(clip, "blurry", PROMPTS[0])[2],
        "clone": made(clip.clone(), PROMPTS[0], "dark")[2],
    }
    positive[0][1]["strength"], positive[0][0] = 3.0, None
    clean = made(clip, PROMPTS[0])[0][0]

    lora = clip.clone()
    key = next(k for k in clip.patcher.model.state_dict() if k.endswith("layers.1.mlp.up_proj.weight"))
    shape = clip.patcher.model.state_dict()[key].shape
    lora.add_patches({key: ("diff", (torch.randn(shape, generator=torch.Generator().manual_seed(3)),))})
    counts["lora"] = made(lora, PROMPTS[0], "dark")[2]
    results = {
        "same": max(same(clip, text) for text in PROMPTS),
        "lora": same(lora, PROMPTS[0]),
        "lora effect": relative(encode(lora, PROMPTS[0])[0][0], clean[0]),
    }
    counts["back"] = made(clip, PROMPTS[0])[2]
    layer = clip.clone()
    layer.clip_layer(-3)
    counts["layer"] = made(layer, PROMPTS[0])[2]
    results["layer"] = same(layer, PROMPTS[0])
    optioned, hooked, wrapped, replaced = (clip.clone() for _ in range(4))
    optioned.patcher.model_options["transformer_options"] = {"something": 1}
    hooked.apply_hooks_to_conds = comfy.hooks.HookGroup()
    wrapped.patcher.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, lambda executor, *a: executor(*a))
    replaced.patcher.add_object_patch("something", 1)
    others = {"options": optioned, "hooks": hooked, "wrapper": wrapped, "object patch": replaced}
    counts |= {name: made(changed, PROMPTS[0])[2] for name, changed in others.items()}
    other = load_text_encoder(demo("text_encoder"))
    prompts.encode_prompts(other, {"positive": PROMPTS[0]}, HIDDEN)
    for i in range(2 * prompts.KEPT):
        made(clip, f"picture {i}")
    kept = [len(kept) for kept in prompts._kept.values()]
    encoders = [len(prompts._kept)]
    del other
    gc.collect()
    encoders.append(len(prompts._kept))
    long = prompts.encode_prompts(clip, {"positive": "a red circle " * 300, "negative": ""}, HIDDEN)
    return {
        "counts": counts, "results": results, "clean": sorted(clean[1]), "kept": max(kept), "encoders": encoders,
        "text": prompts.encode_prompts(clip, {"positive": "a cat", "negative": ""}, HIDDEN)[1],
        "no encoder": message_of(lambda: prompts.encode_prompts(None, {"positive": "a cat"}, HIDDEN)),
        "tokens": len(p.encoder.token_ids("a cat")),
        "long": long[1], "not cut": int(long[0][0][0][0].shape[1]),
    }  # fmt: skip
