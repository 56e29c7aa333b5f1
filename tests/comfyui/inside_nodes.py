"""Checks that run inside ComfyUI's Python: the host's nodes on our MODEL and on the host's, with the same weights.

What each returns is judged in test_inside_nodes.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hosted import Parts, empty, host_model, load_transformer, noise_of, relative, run

# isort: split
import comfy.hooks
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_hooks as hooks
import folder_paths
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow
from comfy_extras.nodes_rope import ScaleROPE
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
from comfy_extras.nodes_torch_compile import TorchCompileModel
from inside_compose import counted, ksampler
from safetensors.torch import load_file, save_file

import nodes

STEPS, CFG = 5, 3.0  # steps that the host's scheduler meets exactly: it has 1000 levels
CAPTIONS = torch.Generator().manual_seed(0)
# Of one length, which the host too runs together; and two of other lengths.
FIRST, SECOND, SHORT, LONG = (
    [[torch.randn(1, length, 128, generator=CAPTIONS), {"pooled_output": None}]] for length in (50, 50, 20, 100)
)


def narrow(folder: Path) -> tuple[Any, Any]:
    """The host's narrow module, and ours with its weights out of a file."""
    theirs = host_model()
    path = str(folder / "narrow.safetensors")
    save_file({k: v.contiguous() for k, v in theirs.model.diffusion_model.state_dict().items()}, path)
    return theirs, load_transformer(path, "turbo", "float32")


def sampled(
    model: Any, positive: Any = FIRST, negative: Any = SECOND, latent: Any = None, strength: float = 1.0
) -> torch.Tensor:
    return ksampler(model, positive, negative, latent, STEPS, CFG, strength)


def advanced(model: Any, positive: Any, negative: Any, latent: Any, strength: float) -> torch.Tensor:
    """SamplerCustomAdvanced with the host's guider and schedule."""
    guider = custom.CFGGuider.execute(model, positive, negative, CFG).result[0]
    sigmas = custom.BasicScheduler.execute(model, "simple", STEPS, strength).result[0]
    sampler = custom.KSamplerSelect.execute("dpmpp_2m").result[0]
    noise = custom.RandomNoise.execute(3).result[0]
    return custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).result[0]["samples"]


def easy(threshold: float, node: Any = EasyCacheNode) -> Callable[[Any], Any]:
    return lambda m: node.execute(m, threshold, 0.0, 1.0, False).result[0]


def aura(shift: float) -> Callable[[Any], Any]:
    return lambda m: ModelSamplingAuraFlow().patch_aura(m, shift)[0]


def rope(m: Any) -> Any:
    return ScaleROPE.execute(m, 1.5, 2.0, 0.75, -3.0, 1.0, 0.0).result[0]


CHANGES = {
    "AuraFlow": aura(1.5), "ScaleROPE": rope, "EasyCache": easy(0.4), "EasyCache 0": easy(0.0),
    "LazyCache": easy(0.4, LazyCacheNode),
    "AuraFlow, ScaleROPE, EasyCache": lambda m: easy(0.4)(rope(aura(1.5)(m))),
}  # fmt: skip


def check_host_nodes(p: Parts) -> dict[str, Any]:
    """Nodes that change a MODEL: [ours against the host's module, the effect, forwards of both]."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = narrow(Path(folder))
    plain = sampled(ours)
    for name, change in CHANGES.items():
        mine, my_calls = counted(change(ours), sampled)
        want, calls = counted(change(theirs), sampled)
        results[name] = [relative(mine, want), relative(mine, plain), my_calls, calls]
    # With lengths of their own the host runs positive and negative apart, and we together: caches see another order.
    apart = [counted(easy(0.4)(model), sampled, SHORT, LONG) for model in (ours, theirs)]
    results["EasyCache, lengths"] = [relative(apart[0][0], apart[1][0]), relative(apart[0][0], plain),
                                     apart[0][1], apart[1][1]]  # fmt: skip
    return results


def check_compiled_model(p: Parts) -> dict[str, Any]:
    """TorchCompileModel, with positive and negative of two lengths: by the backend that needs no compiler."""
    with tempfile.TemporaryDirectory() as folder:
        model = narrow(Path(folder))[1].clone()
    # The host's attention for CPUs asks how much memory is free, which no graph can hold.
    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = lambda function, *given, **named: attention_pytorch(*given, **named)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = TorchCompileModel.execute(model, "aot_eager").result[0]
    difference = relative(sampled(compiled, SHORT, LONG), sampled(model, SHORT, LONG))
    return {"difference": difference, "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"]}


def half(side: str) -> torch.Tensor:
    mask = torch.zeros(1, 128, 128)
    mask[..., (slice(64, None) if side == "right" else slice(64))] = 1
    return mask


def masked(positive: Any, negative: Any) -> tuple[Any, Any]:
    left = nodes.ConditioningSetMask().append(positive, half("left"), "default", 1.0)[0]
    right = nodes.ConditioningSetMask().append(LONG, half("right"), "mask bounds", 0.7)[0]
    return nodes.ConditioningCombine().combine(left, right)[0], negative


def ranged(positive: Any, negative: Any) -> tuple[Any, Any]:
    node = nodes.ConditioningSetTimestepRange()
    return node.set_range(positive, 0.0, 0.4)[0] + node.set_range(LONG, 0.4, 1.0)[0], negative


def area(positive: Any, negative: Any) -> tuple[Any, Any]:
    return positive + nodes.ConditioningSetArea().append(SHORT, 64, 96, 32, 16, 0.8)[0], negative


def average(positive: Any, negative: Any) -> tuple[Any, Any]:
    return nodes.ConditioningAverage().addWeighted(positive, LONG, 0.6)[0], negative


CONDITIONS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "lengths": lambda positive, negative: (SHORT, LONG),
    "mask": masked,
    "timestep range": ranged,
    "area": area,
    "average": average,
    "concat": lambda positive, negative: (nodes.ConditioningConcat().concat(positive, SHORT)[0], negative),
    "zeroed": lambda positive, negative: (positive, nodes.ConditioningZeroOut().zero_out(positive)[0]),
}
PICTURE = {"samples": noise_of(9)}
LATENTS = {
    "batch of 3": (empty(3), 1.0),
    "not of 32": (empty(1, 18, 14), 1.0),
    "odd": (empty(1, 15, 17), 1.0),
    "img2img": (PICTURE, 0.5),
    "inpainting": (PICTURE | {"noise_mask": half("left")[:, None]}, 1.0),
}


def check_host_conditions(p: Parts) -> dict[str, Any]:
    """Nodes that change conditionings, and latents of all kinds: [ours against the host's module, the effect]."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = narrow(Path(folder))
    plain = sampled(ours)
    for name, change in CONDITIONS.items():
        mine, want = (sampled(model, *change(FIRST, SECOND)) for model in (ours, theirs))
        results[name] = [relative(mine, want), relative(mine, plain)]
    for name, (latent, strength) in LATENTS.items():
        mine, want = (sampled(model, SHORT, LONG, latent, strength) for model in (ours, theirs))
        results[name] = [relative(mine, want), float(mine.std())]
        if name in ("batch of 3", "inpainting"):
            other, wanted = (advanced(model, SHORT, LONG, latent, strength) for model in (ours, theirs))
            results[f"{name}, SamplerCustomAdvanced"] = [relative(other, wanted), relative(other, mine)]
    kept = sampled(ours, latent=LATENTS["inpainting"][0])[..., 8:]
    return results | {"kept outside the mask": relative(kept, PICTURE["samples"][..., 8:])}


def lora_file(path: Path, layout: str) -> dict[str, torch.Tensor]:
    """A LoRA of rank 4 and alpha 2 in one of the two layouts -> what it adds to weights, by canonical names."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}

    def matrix(name: str, rows: int, columns: int) -> torch.Tensor:
        down, up = (torch.randn(*size, generator=generator) * 0.1 for size in ((4, columns), (rows, 4)))
        state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] = down, up
        state[f"{name}.alpha"] = torch.tensor(2.0)
        return up @ down * (2.0 / 4)

    for i in (0, 2):
        stem = f"layers.{i}.attention"
        if layout == "diffusers":
            parts = [matrix(f"transformer.{stem}.{part}", 256, 256) for part in ("to_q", "to_k", "to_v")]
            added[f"{stem}.qkv.weight"] = torch.cat(parts)
            added[f"{stem}.out.weight"] = matrix(f"transformer.{stem}.to_out.0", 256, 256)
        else:
            added[f"{stem}.qkv.weight"] = matrix(f"diffusion_model.{stem}.qkv", 768, 256)
    added["cap_embedder.1.weight"] = matrix("diffusion_model.cap_embedder.1", 256, 128)
    save_file(state, str(path))
    return added


def check_lora_nodes(p: Parts) -> dict[str, Any]:
    """Load LoRA on both MODELs in both samplers, in both layouts: what a dense change of the weights does."""
    results: dict[str, Any] = {}
    known = dict(folder_paths.folder_names_and_paths)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        folder_paths.folder_names_and_paths["loras"] = ([base], {".safetensors"})
        try:
            theirs, ours = narrow(folder)
            for layout in ("diffusers", "canonical"):
                added = lora_file(folder / "lora.safetensors", layout)
                dense = load_file(str(folder / "narrow.safetensors"))
                for name, delta in added.items():
                    dense[name] = dense[name] + 0.8 * delta
                save_file(dense, str(folder / "dense.safetensors"))
                changed = load_transformer(str(folder / "dense.safetensors"), "turbo", "float32")
                results[layout] = lora_results(theirs, ours, changed)
        finally:
            folder_paths.folder_names_and_paths.clear()
            folder_paths.folder_names_and_paths.update(known)
    return results


def lora_results(theirs: Any, ours: Any, dense: Any) -> dict[str, float]:
    """Differences from the dense change; a LoRA node of its own each time, since a node keeps the file it read."""
    settings = {"mode": {"mode": "Turbo", "steps": 4, "cfg": CFG}, "shift": 3.0}

    def loaded(model: Any) -> Any:
        return nodes.LoraLoaderModelOnly().load_lora_model_only(model, "lora.safetensors", 0.8)[0]

    def mine(model: Any) -> torch.Tensor:
        return run(model, SHORT, LONG, **settings)[0]

    def hooked() -> torch.Tensor:
        """As a hook on both conditionings, over the whole run."""
        group = hooks.CreateHookLoraModelOnly().create_hook_model_only("lora.safetensors", 0.8)[0]
        pair = hooks.PairConditioningSetProperties().set_properties(SHORT, LONG, 1.0, "default", hooks=group)
        return sampled(ours, *pair)

    def scheduled(model: Any) -> torch.Tensor:
        """As a hook on the positive alone, at half strength, gone after half of the run."""
        group = hooks.CreateHookLoraModelOnly().create_hook_model_only("lora.safetensors", 0.8)[0]
        frames = comfy.hooks.HookKeyframeGroup()
        frames.add(comfy.hooks.HookKeyframe(0.5, 0.0))
        frames.add(comfy.hooks.HookKeyframe(0.0, 0.5))
        group.set_keyframes_on_hooks(frames)
        return sampled(model, hooks.SetModelHooksOnCond().attach_hook(SHORT, group)[0], LONG)

    want, wanted = sampled(dense, SHORT, LONG), mine(dense)
    return {
        "KSampler": relative(sampled(loaded(ours), SHORT, LONG), want),
        "our sampler": relative(mine(loaded(ours)), wanted),
        "the host's model, our sampler": relative(mine(loaded(theirs)), wanted),
        "hook": relative(hooked(), want),
        "scheduled hook": relative(scheduled(ours), scheduled(theirs)),
        "effect": relative(want, sampled(ours, SHORT, LONG)),
        "effect of the schedule": relative(scheduled(ours), sampled(ours, SHORT, LONG)),
    }


def check_skip_layers(p: Parts) -> dict[str, Any]:
    """SkipLayerGuidance against its formula: denoised + scale * (positive - positive without the layers)."""
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = narrow(Path(folder))
        without = load_file(str(Path(folder) / "narrow.safetensors"))
        # A block whose gates are closed hands on what it gets: the last norms of both of its halves are zero.
        for name in ("attention_norm2.weight", "ffn_norm2.weight"):
            without[f"layers.1.{name}"] = torch.zeros_like(without[f"layers.1.{name}"])
        save_file(without, str(Path(folder) / "without.safetensors"))
        less = load_transformer(str(Path(folder) / "without.safetensors"), "turbo", "float32")
    scale, sigmas = 2.5, comfy.samplers.calculate_sigmas(ours.get_model_object("model_sampling"), "simple", STEPS)

    def denoised(model: Any, conditioning: Any, x: torch.Tensor, sigma: float) -> torch.Tensor:
        v = model.model.diffusion_model(x, torch.tensor([sigma]), conditioning[0][0])
        return x - sigma * v

    x = noise_of(5)
    for now, after in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        positive, negative = denoised(ours, SHORT, x, now), denoised(ours, LONG, x, now)
        guided = negative + CFG * (positive - negative) + scale * (positive - denoised(less, SHORT, x, now))
        x = x + (after - now) * (x - guided) / now
    by_hand = x / 0.3611 + 0.1159

    def node(model: Any) -> torch.Tensor:
        return sampled(SkipLayerGuidanceDiT.execute(model, scale, 0.0, 1.0, "1", "").result[0], SHORT, LONG)

    def simple(model: Any) -> torch.Tensor:
        return sampled(SkipLayerGuidanceDiTSimple.execute(model, 0.0, 1.0, "1", "").result[0], SHORT, LONG)

    def by_ours(model: Any) -> torch.Tensor:
        changed = SkipLayerGuidanceDiT.execute(model, scale, 0.0, 1.0, "1", "").result[0]
        return run(changed, SHORT, LONG, mode={"mode": "Turbo", "steps": STEPS, "cfg": CFG}, shift=3.0)[0]

    plain, calls = counted(ours, sampled, SHORT, LONG)
    drawn, more = counted(ours, lambda m, *_: node(m))
    return {
        "formula": relative(drawn, by_hand),
        "formula, our sampler": relative(by_ours(ours), by_hand),
        "simple": relative(simple(ours), plain),
        "the host's own": relative(node(theirs), sampled(theirs, SHORT, LONG)),
        "effect": relative(drawn, plain),
        "forwards": [calls, more],
    }
