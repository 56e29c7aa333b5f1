"""Runs inside ComfyUI's Python, never in the test process: checks against the host's own modules.

`python inside.py COMFYUI_DIR PACK OUTPUT.json FORMS.json` runs every function named check_..., here and in
the other inside_....py that it imports, and writes what each returned.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hosted import (
    LATE,
    OUTPUT,
    PROMPTS,
    SECONDS,
    Parts,
    demo,
    empty,
    encode,
    engine_vae,
    host_model,
    load_text_encoder,
    load_transformer,
    load_vae,
    message_of,
    noise_of,
    relative,
    run,
    sampling,
    velocity,
)

# isort: split
import comfy.diffusers_convert
import comfy.lora
import comfy.patcher_extension
import comfy.sample
import comfy.sd
import comfy.text_encoders.llama
import inside_compose
import inside_formats
import inside_memory
import inside_nodes
import inside_sampling
import inside_size
import torch
from pack.nodes.host import files
from safetensors.torch import save_file


def check_start(p: Parts) -> dict[str, Any]:
    return {"seconds": SECONDS, "late": LATE}


def check_text_features(p: Parts) -> list[float]:
    return [relative(encode(p.clip, text)[0][0][0], p.captions(text)[0]) for text in PROMPTS]


def check_vae(p: Parts) -> dict[str, float]:
    latents = noise_of(1, 12, 20)
    host = p.vae.decode(latents / 0.3611 + 0.1159).movedim(-1, 1)
    engine = p.engine_vae.decode(latents)
    image = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(2))
    encoded = (p.vae.encode(image.movedim(1, -1)) - 0.1159) * 0.3611
    return {"decode": relative(host, engine), "encode": relative(encoded, p.engine_vae.encode(image))}


def check_real_encoder(p: Parts) -> dict[str, Any]:
    """The way of Qwen3-4B, with the host's idea of its size made small: names, options, tokenizer, features."""
    import pack.nodes.host.text_encoder as ours

    config = p.encoder.info.config
    small = {key: config[key] for key in ours._SIZES}
    real, ours.REAL_ENCODER = ours.REAL_ENCODER, {}
    original = comfy.text_encoders.llama.Qwen3_4BConfig
    comfy.text_encoders.llama.Qwen3_4BConfig = lambda **given: original(**small | given)
    try:
        clip = load_text_encoder(demo("text_encoder"))
    finally:
        ours.REAL_ENCODER, comfy.text_encoders.llama.Qwen3_4BConfig = real, original
    ids = p.encoder.token_ids(PROMPTS[0])
    features = clip.encode_from_tokens({"qwen3_4b": [[(i, 1.0) for i in ids]]})
    tokens = clip.tokenize("a cat")["qwen3_4b"][0]
    return {"features": relative(features[0], p.captions(PROMPTS[0])[0]), "tokens": [token for token, _ in tokens]}


def check_real_vae(p: Parts) -> dict[str, float]:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    widths = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
    config = p.engine_vae.info.config | widths
    torch.manual_seed(0)
    weights = {k: v.to(torch.bfloat16).contiguous() for k, v in AutoencoderKL(**config).state_dict().items()}
    latents = noise_of(1, 4, 4)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for layout, state in (("diffusers", weights), ("ldm", comfy.diffusers_convert.convert_vae_state_dict(weights))):
            path = str(Path(folder) / f"{layout}.safetensors")
            save_file(state, path)
            host = load_vae(path).decode(latents / 0.3611 + 0.1159).movedim(-1, 1)
            if layout == "diffusers":
                engine = engine_vae(path, "float32").decode(latents)
            results[layout] = relative(host, engine)
    return results


def check_latents(p: Parts) -> dict[str, float]:
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "a blue square")
    six = {"steps": 6}
    base = {"mode": "Base", "steps": 6, "cfg": 5.0, "cfg_normalization": False, "cfg_truncation": 1.0}
    other = p.captions("a blue square")
    start = noise_of(9) * 0.5
    picture = {"samples": start / 0.3611 + 0.1159}
    truncated = {"cfg_normalization": True, "cfg_truncation": 0.5}
    guided = {"negative": other, "cfg": 5.0, "shift": 6.0}
    return {
        "turbo": relative(run(p.turbo, positive, mode=six)[0], p.latents("turbo")),
        "landscape": relative(run(p.turbo, positive, latent=empty(1, 12, 20), mode=six)[0],
                              p.latents("turbo", size=(12, 20))),
        "heun": relative(run(p.turbo, positive, mode=six, solver="heun")[0], p.latents("turbo", solver="heun")),
        "shift": relative(run(p.turbo, positive, mode=six, shift=1.5)[0], p.latents("turbo", shift=1.5)),
        "strength": relative(run(p.turbo, positive, latent=picture, mode=six, strength=0.6)[0],
                             p.latents("turbo", strength=0.6, start=start)),
        "base": relative(run(p.base, positive, negative, mode=base)[0], p.latents("base", **guided)),
        "normalised and truncated": relative(
            run(p.base, positive, negative, mode=base | truncated)[0],
            p.latents("base", **guided, cfg_normalization=1.0, cfg_truncation=0.5)),
    }  # fmt: skip


def check_texts(p: Parts) -> dict[str, str]:
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")
    base = {"mode": "Base", "steps": 4, "cfg": 5.0, "cfg_normalization": True, "cfg_truncation": 0.1}
    shifted = p.turbo.clone()
    shifted.add_object_patch("model_sampling", flow_sampling(p.turbo, 2.5))
    flux = p.turbo.clone()
    flux.add_object_patch("model_sampling", flux_sampling(p.turbo))
    return {
        "auto turbo": run(p.turbo, positive)[1],
        "auto base": run(p.base, positive, negative, mode={"steps": 2})[1],
        "negative": run(p.turbo, positive, negative, mode={"steps": 2})[1],
        "cfg on turbo": run(p.turbo, positive, negative, mode={"mode": "Turbo", "steps": 2, "cfg": 2.0})[1],
        "truncated": run(p.base, positive, negative, mode=base)[1],
        "from the graph": run(shifted, positive, mode={"steps": 2})[1],
        "widget over graph": run(shifted, positive, mode={"steps": 2}, shift=4.0)[1],
        "heun": run(p.turbo, positive, mode={"steps": 3}, solver="heun")[1],
        "strength 0": run(p.turbo, positive, strength=0.0)[1],
        "mode base on turbo": run(p.turbo, positive, mode={"mode": "Base", "steps": 2, "cfg": 1.0})[1],
        "a schedule of its own": run(flux, positive, mode={"steps": 2})[1],
    }


def flow_sampling(model: Any, shift: float) -> Any:
    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling_ = Sampling(model.model.model_config)
    sampling_.set_parameters(shift=shift, multiplier=1.0)
    return sampling_


def flux_sampling(model: Any) -> Any:
    class Sampling(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
        pass

    return Sampling(model.model.model_config)


def check_composed_guidance(p: Parts) -> dict[str, float]:
    """Normalisation acts on top of another node's cfg function."""
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")
    plain = {"mode": "Base", "steps": 3, "cfg": 5.0}
    same, none = p.base.clone(), p.base.clone()
    same.set_model_sampler_cfg_function(lambda a: a["uncond"] + (a["cond"] - a["uncond"]) * a["cond_scale"])
    none.set_model_sampler_cfg_function(lambda a: a["cond"])
    normal = run(p.base, positive, negative, mode=plain | {"cfg_normalization": True})[0]
    return {
        "same": relative(run(same, positive, negative, mode=plain | {"cfg_normalization": True})[0], normal),
        "has an effect": relative(normal, run(p.base, positive, negative, mode=plain)[0]),
        "other": relative(run(none, positive, negative, mode=plain | {"cfg_normalization": True})[0],
                          run(p.base, positive, mode={"mode": "Base", "steps": 3, "cfg": 1.0})[0]),
    }  # fmt: skip


def check_evaluations(p: Parts) -> dict[str, list[int]]:
    """Calls of the model, and the rows of all calls together."""
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")

    def count(model: Any, mode: dict[str, Any]) -> list[int]:
        rows: list[int] = []

        def wrapper(executor: Any, x: torch.Tensor, *a: Any, **kw: Any) -> Any:
            rows.append(len(x))
            return executor(x, *a, **kw)

        model = model.clone()
        model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
        run(model, positive, negative, mode=mode)
        return [len(rows), sum(rows)]

    base = {"mode": "Base", "steps": 4, "cfg": 5.0}
    return {
        "turbo with a negative": count(p.turbo, {}),
        "base": count(p.base, base),
        "base truncated": count(p.base, base | {"cfg_truncation": 0.1}),
    }


def check_batches(p: Parts) -> dict[str, float]:
    """Picture i of a batch is that of seed + i; strength 0 keeps the latent."""
    positive = encode(p.clip, PROMPTS[0])
    three = run(p.turbo, positive, latent=empty(3), mode={"steps": 3}, seed=7)[0]
    alone = [run(p.turbo, positive, mode={"steps": 3}, seed=seed)[0] for seed in (7, 8, 9)]
    picked = run(p.turbo, positive, latent=empty() | {"batch_index": [2]}, mode={"steps": 3}, seed=7)[0]
    picture = {"samples": noise_of(3)}
    return {
        "batch": max(relative(three[i : i + 1], alone[i]) for i in range(3)),
        "differs": relative(alone[0], alone[1]),
        "batch_index": relative(picked, alone[2]),
        "strength 0": float((run(p.turbo, positive, latent=picture, strength=0.0)[0] - picture["samples"]).abs().max()),
    }


def check_mask(p: Parts) -> dict[str, float]:
    """A noise mask keeps the latent where it is 0, by the host's own means."""
    positive, start = encode(p.clip, PROMPTS[0]), noise_of(3)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    out = run(p.turbo, positive, latent={"samples": start, "noise_mask": mask}, mode={"steps": 3})[0]
    return {"kept": relative(out[..., :7], start[..., :7]), "drawn": relative(out[..., 9:], start[..., 9:])}


def check_ragged(p: Parts) -> dict[str, float]:
    """Captions of different lengths in one batch give what each alone gives, also where patches look on."""
    captions = [torch.randn(1, n, 128, generator=torch.Generator().manual_seed(n)) for n in (9, 40, 70, 33)]
    x = noise_of(1).expand(4, -1, -1, -1) * torch.tensor([1.0, 0.5, 0.8, 1.2]).view(4, 1, 1, 1)
    alone = torch.cat([velocity(p.turbo, [c], x[i : i + 1]) for i, c in enumerate(captions)])
    seen: list[tuple[int, ...]] = []

    def look(args: dict[str, Any]) -> dict[str, Any]:
        seen.append((args["img"].shape[0], args["txt"].shape[1], *args["transformer_options"]["cond_or_uncond"]))
        return {}

    options = {"patches": {"double_block": [look]}, "cond_or_uncond": [0, 1, 2, 3]}
    patched = velocity(p.turbo, captions, x, options)
    joinable = p.turbo.model.extra_conds(cross_attn=captions[0], device="cpu", noise=x)
    others = p.turbo.model.extra_conds(cross_attn=captions[1], device="cpu", noise=x)
    return {
        "together": relative(velocity(p.turbo, captions, x), alone),
        "patched": relative(patched, alone),
        "groups": sorted(set(seen)),
        "joined": all(joinable[k].can_concat(others[k]) for k in joinable) and joinable.keys() == others.keys(),
    }


def check_seam(p: Parts) -> dict[str, Any]:
    """Wrappers, patches, replacements, attention overrides, RoPE options, odd sizes."""
    caption = [torch.randn(1, 20, 128, generator=torch.Generator().manual_seed(0))]
    x = noise_of(1, 14, 18)
    plain = velocity(p.turbo, caption, x)
    depth = p.turbo.model.model_config.unet_config["n_layers"]
    calls: dict[str, list[Any]] = {"wrapper": [], "double": [], "refiner": [], "attention": [], "keys": []}

    def wrapper(executor: Any, *a: Any, **kw: Any) -> Any:
        calls["wrapper"].append(len(a))
        return executor(*a, **kw)

    def double(a: dict[str, Any]) -> dict[str, Any]:
        options = a["transformer_options"]
        calls["double"].append(
            (a["block_index"], options["block_index"], options["total_blocks"], options["block_type"])
        )
        calls["keys"] = sorted(a), list(a["pe"].shape), list(a["img"].shape), list(a["txt"].shape), list(a["x"].shape)
        return {"img": a["img"], "txt": a["txt"]}

    def refiner(a: dict[str, Any]) -> dict[str, Any]:
        calls["refiner"].append((a["block_index"], a["block_type"], list(a["pe"].shape)))
        return {}

    def attention(func: Any, *a: Any, **kw: Any) -> Any:
        calls["attention"].append(a[0].shape[1])
        return func(*a, **kw)

    def through(a: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        return extra["original_block"](a)

    def skip(a: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        return a

    def in_place(a: dict[str, Any]) -> dict[str, Any]:
        a["img"] += 1.0
        return {}

    wrapped: dict[str, Any] = {}
    comfy.patcher_extension.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper, wrapped)
    patches = {"patches": {"double_block": [double], "noise_refiner": [refiner]}}
    results = {
        "wrapper": relative(velocity(p.turbo, caption, x, wrapped), plain),
        "patches": relative(velocity(p.turbo, caption, x, patches), plain),
        "override": relative(velocity(p.turbo, caption, x, {"optimized_attention_override": attention}), plain),
        "replaced": relative(velocity(p.turbo, caption, x, replace(through, depth)), plain),
        "skipped": relative(velocity(p.turbo, caption, x, replace(skip, 1)), plain),
        "in place": relative(velocity(p.turbo, caption, x, {"patches": {"double_block": [in_place]}}), plain),
        "rope 1": relative(velocity(p.turbo, caption, x, {"rope_options": {"scale_x": 1.0, "shift_y": 0.0}}), plain),
        "rope 2": relative(velocity(p.turbo, caption, x, {"rope_options": {"scale_x": 2.0, "scale_y": 1.5}}), plain),
        "odd": list(velocity(p.turbo, caption, noise_of(1, 15, 17)).shape),
    }
    return results | {"calls": calls, "depth": depth}


def replace(function: Any, blocks: int) -> dict[str, Any]:
    return {"patches_replace": {"dit": {("double_block", i): function for i in range(blocks)}}}


def check_host_module(p: Parts) -> dict[str, Any]:
    """Our module against the host's, on the same weights; and our sampler with a MODEL of the host's."""
    theirs = host_model()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "narrow.safetensors")
        save_file({k: v.contiguous() for k, v in theirs.model.diffusion_model.state_dict().items()}, path)
        ours = load_transformer(path, "turbo", "float32")
        half = load_transformer(path, "turbo", "bfloat16")
    caption = torch.randn(1, 50, 128, generator=torch.Generator().manual_seed(0))
    conditioning = [[caption, {}]]
    differences = []
    for size in ((16, 16), (14, 18), (15, 17)):
        x = noise_of(1, *size)
        want = theirs.model.diffusion_model(x, torch.tensor([0.7]), caption, caption.shape[1])
        differences.append(relative(velocity(ours, [caption], x), want))
    samples, text = run(theirs, conditioning, mode={"mode": "Turbo", "steps": 3, "cfg": 1.0})
    other, _ = run(ours, conditioning, mode={"mode": "Turbo", "steps": 3, "cfg": 1.0}, shift=3.0)
    lora = comfy.lora.model_lora_keys_unet(ours.model, {}) == comfy.lora.model_lora_keys_unet(theirs.model, {})
    return {"velocity": differences, "samples": relative(samples, other), "text": text, "lora map": lora,
            "bfloat16": [str(half.model.get_dtype()), str(half.model.get_dtype_inference())]}  # fmt: skip


def check_lora(p: Parts) -> dict[str, Any]:
    """A diffusers-named LoRA reaches the fused weights, has an effect, and leaves no trace when it is gone."""
    generator = torch.Generator().manual_seed(1)
    dim = p.turbo.model.model_config.unet_config["dim"]
    stems = [f"transformer.layers.{i}.attention.{part}" for i in (0, 1) for part in ("to_q", "to_v", "to_out.0")]
    lora = {}
    for stem in stems:
        lora[f"{stem}.lora_A.weight"] = torch.randn(4, dim, generator=generator)
        lora[f"{stem}.lora_B.weight"] = torch.randn(dim, 4, generator=generator)
    patched, _ = comfy.sd.load_lora_for_models(p.turbo, None, lora, 0.5, 0.0)
    keys = comfy.lora.model_lora_keys_unet(p.turbo.model, {})
    positive = encode(p.clip, PROMPTS[0])
    before = run(p.turbo, positive, mode={"steps": 2})[0]
    during = run(patched, positive, mode={"steps": 2})[0]
    after = run(p.turbo, positive, mode={"steps": 2})[0]
    return {
        "mapped": all(stem in keys for stem in stems),
        "patches": len(patched.patches),
        "effect": relative(during, before),
        "undone": float((after - before).abs().max()),
    }


def check_patcher(p: Parts) -> dict[str, Any]:
    """What other nodes lean on: clones, factories, the variant, saving."""
    again = p.base.cached_patcher_init[0](*p.base.cached_patcher_init[1], disable_dynamic=True)
    clip = p.clip.patcher.cached_patcher_init
    vae = p.vae.patcher.cached_patcher_init
    saved = p.turbo.state_dict_for_saving() if hasattr(p.turbo, "state_dict_for_saving") else {}
    return {
        "clone": sampling.variant_of(p.base.clone()).name,
        "reloaded": sampling.variant_of(again).name,
        "forced": sampling.variant_of(load_transformer(demo("turbo"), "base")).name,
        "shift": [p.turbo.model.model_sampling.shift, p.base.model.model_sampling.shift],
        "clip": type(clip[0](*clip[1])).__name__,
        "vae": type(vae[0](*vae[1])).__name__,
        "latent": p.turbo.model.latent_format.latent_channels,
        "tensors": len(p.turbo.model.diffusion_model.state_dict()),
        "saved": len([k for k in saved if k.startswith("model.diffusion_model.")]),
        "geometry": dataclasses.asdict(p.turbo.model.diffusion_model.config)["dim"],
    }


def check_ksampler(p: Parts) -> dict[str, Any]:
    """The host's sampler on our MODEL: `simple` is our schedule, so the picture is ours."""
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")
    latent, noise = empty()["samples"], noise_of(5)
    theirs = comfy.sample.sample(p.turbo, noise, 8, 1.0, "euler", "simple", positive, negative, latent, seed=5)
    guided = comfy.sample.sample(p.base, noise, 5, 5.0, "euler", "simple", positive, negative, latent, seed=5)
    base = {"mode": "Base", "steps": 5, "cfg": 5.0}
    return {
        "turbo": relative(run(p.turbo, positive)[0], theirs),
        "base": relative(run(p.base, positive, negative, mode=base)[0], guided),
    }


def check_errors(p: Parts) -> dict[str, str]:
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, "")
    other = SimpleNamespace(model=SimpleNamespace(model_config=SimpleNamespace(unet_config={})))
    with tempfile.TemporaryDirectory() as folder:
        broken = str(Path(folder) / "broken.safetensors")
        state = dict(torch_file(demo("turbo")))
        state.pop("layers.1.attention.out.weight")
        save_file(state, broken)
        vae = str(Path(folder) / "vae.safetensors")
        state = dict(torch_file(demo("vae")))
        state.pop("decoder.norm_out.bias")
        save_file(state, vae)
        encoder = str(Path(folder) / "encoder.safetensors")
        state = dict(torch_file(demo("text_encoder")))
        state.pop(next(k for k in state if k.endswith("layers.1.mlp.up_proj.weight")))
        save_file(state, encoder)
        text = Path(folder) / "text.safetensors"
        text.write_text("not a model", encoding="utf-8")
        cases = {
            "no negative": lambda: run(p.base, positive),
            "cfg 0.5": lambda: run(p.turbo, positive, negative, mode={"cfg": 0.5}),
            "not z-image": lambda: sampling.variant_of(other),
            "vae as model": lambda: load_transformer(demo("vae")),
            "model as vae": lambda: load_vae(demo("turbo")),
            "model as text encoder": lambda: load_text_encoder(demo("turbo")),
            "missing tensor": lambda: load_transformer(broken),
            "missing in vae": lambda: load_vae(vae),
            "missing in text encoder": lambda: load_text_encoder(encoder),
            "text": lambda: load_transformer(str(text)),
            "no file": lambda: files.path_of("transformer", "gone.safetensors"),
        }
        return {name: message_of(case) for name, case in cases.items()}


def torch_file(path: str) -> Any:
    from safetensors.torch import load_file

    return load_file(path).items()


def main() -> None:
    results: dict[str, Any] = {"seconds": {}}
    with torch.inference_mode():
        parts = Parts()
        modules = (
            sys.modules[__name__], inside_formats, inside_sampling, inside_compose, inside_nodes, inside_memory,
            inside_size,
        )  # fmt: skip
        checks = [item for module in modules for item in vars(module).items()]
        for name, check in checks:
            if name.startswith("check_"):
                start = time.perf_counter()
                try:
                    results[name] = check(parts)
                except Exception:
                    results[name] = {"traceback": traceback.format_exc()}
                results["seconds"][name] = round(time.perf_counter() - start, 2)
    OUTPUT.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


main()
