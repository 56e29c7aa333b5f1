"""Checks that run inside ComfyUI's Python: where dense weights lie while the model runs, by the patcher's own calls.

What each returns is judged in test_inside_memory.py. (Packed weights have theirs in inside_formats.py.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from hosted import PROMPTS, Parts, demo, empty, encode, load_transformer, noise_of, relative, velocity

# isort: split
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import torch
from inside_compose import ksampler

CPU = torch.device("cpu")
BIAS, WEIGHT = "diffusion_model.x_embedder.bias", "diffusion_model.layers.1.feed_forward.w2.weight"


def patched(model: Any) -> Any:
    """Slices of fused weights, a whole one, a bias, and a weight that is set."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    lora = {}
    for stem in (f"transformer.layers.{i}.attention.{part}" for i in (0, 1) for part in ("to_q", "to_v", "to_out.0")):
        lora[f"{stem}.lora_A.weight"], lora[f"{stem}.lora_B.weight"] = random(4, 128), random(128, 4)
    model = comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0.0)[0]
    state = model.model.state_dict()
    model.add_patches({BIAS: ("diff", (random(*state[BIAS].shape),)), WEIGHT: ("set", (random(*state[WEIGHT].shape),))})
    return model


def turbo(dtype: str = "auto") -> Any:
    return load_transformer(demo("turbo"), "turbo", dtype)


def seen(model: Any) -> torch.Tensor:
    caption = torch.randn(1, 20, 128, generator=torch.Generator().manual_seed(0))
    return velocity(model, [caption], noise_of(1))


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def same(model: Any, before: dict[str, torch.Tensor]) -> bool:
    now = model.model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], tensor) for name, tensor in before.items())


def functions(model: Any) -> int:
    """How many patches are applied at each use of a weight, in place of having been written into it."""
    return sum(len(getattr(m, f"{kind}_function", ())) for m in model.model.modules() for kind in ("weight", "bias"))


def check_partial_loads(p: Parts) -> dict[str, Any]:
    """LoadedModel, as load_models_gpu uses it: loads of any size, more and less of them, and all of it gone."""
    results: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        model = turbo(dtype)
        before, plain, changed = bits(model), seen(model), patched(model)
        changed.patch_model(CPU)
        want, full = seen(changed), functions(changed)
        changed.unpatch_model(CPU)
        found: dict[str, Any] = {"effect": relative(want, plain), "full": full, "differences": [], "functions": []}

        def look(changed: Any = changed, want: torch.Tensor = want, found: dict[str, Any] = found) -> None:
            found["differences"].append(relative(seen(changed), want))
            found["functions"].append(functions(changed))

        for size in (1, 400_000, 1_500_000):
            loaded = mm.LoadedModel(changed)
            loaded.model_load(size)
            look()
            # All of it: with a part the host can patch layers twice that it had loaded, those of its own models too.
            loaded.model_use_more_vram(2 * changed.model_size())
            look()
            changed.partially_unload(CPU, 300_000)
            look()
            loaded.model_unload()
            found["differences"].append(relative(seen(changed), plain))
        changed.partially_load(CPU, 10)
        look()
        changed.detach()
        found |= {"undone": same(model, before), "left": functions(changed)}
        found["memory"] = [changed.loaded_size(), changed.model_size()]
        results[dtype] = found
    return results


@contextmanager
def state_of(name: str) -> Iterator[None]:
    """The host as under --lowvram or --novram, with a CPU that counts as a device with memory of its own."""
    kept = mm.vram_state, mm.is_device_cpu
    mm.vram_state, mm.is_device_cpu = mm.VRAMState[name], lambda device: False
    try:
        yield
    finally:
        mm.unload_all_models()
        mm.vram_state, mm.is_device_cpu = kept


def check_vram_states(p: Parts) -> dict[str, Any]:
    """KSampler on a patched model, as each flag of the host loads it: [the difference, patches at use, plain again]."""
    positive, negative = encode(p.clip, PROMPTS[0]), encode(p.clip, PROMPTS[3])
    model = turbo()
    changed, plain = patched(model), ksampler(model, positive, negative, empty(2))
    want = ksampler(changed, positive, negative, empty(2))
    results: dict[str, Any] = {"effect": relative(want, plain)}
    for name in ("NORMAL_VRAM", "LOW_VRAM", "NO_VRAM"):
        with state_of(name):
            difference = relative(ksampler(changed, positive, negative, empty(2)), want)
            used = functions(changed)
            results[name] = [difference, used, relative(ksampler(model, positive, negative, empty(2)), plain)]
    return results


class OnCPU(comfy.model_patcher.ModelPatcherDynamic):
    """Dynamic loading without a GPU: no memory is streamed, and everything else is the host's."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def _vbar_get(self, create: bool = False) -> Any:
        return None


@contextmanager
def dynamic() -> Iterator[None]:
    """The host as with dynamic VRAM, whose buffers of pinned memory only a GPU has."""
    aimdo, core = comfy.model_patcher.comfy_aimdo, comfy.model_patcher.CoreModelPatcher
    buffers = SimpleNamespace(host_buffer=SimpleNamespace(HostBuffer=lambda *_: SimpleNamespace(size=0)))
    comfy.model_patcher.comfy_aimdo, comfy.model_patcher.CoreModelPatcher = buffers, OnCPU
    try:
        yield
    finally:
        comfy.model_patcher.comfy_aimdo, comfy.model_patcher.CoreModelPatcher = aimdo, core


def check_dynamic_patcher(p: Parts) -> dict[str, Any]:
    """ModelPatcherDynamic.load sets every weight up for streaming; its patches then act where the host applies them."""
    changed = patched(turbo())
    plain = seen(changed)
    changed.patch_model(CPU)
    want = seen(changed)
    changed.unpatch_model(CPU)
    with dynamic():
        model = turbo()
        before, changed = bits(model), patched(model)
        changed.partially_load(CPU)
        layers = [m for m in changed.model.modules() if hasattr(m, "weight_lowvram_function")]
        streamed = [
            (m, kind) for m in layers for kind in ("weight", "bias") if getattr(m, f"{kind}_lowvram_function", None)
        ]
        small = sum(hasattr(m, "comfy_cast_weights") and m not in layers for m in changed.model.modules())
        for layer, kind in streamed:
            # What cast_modules_with_vbar does once the weight has arrived.
            getattr(layer, f"{kind}_function").insert(0, getattr(layer, f"{kind}_lowvram_function"))
        drawn = relative(seen(changed), want)
        for layer, kind in streamed:
            getattr(layer, f"{kind}_function").pop(0)
        changed.restore_loaded_backups()
        result = {
            "dynamic": [model.is_dynamic(), type(model.clone()).__name__],
            "drawn": drawn, "effect": relative(want, plain), "streamed": len(streamed), "staged": len(layers),
            "small": small, "undone": same(model, before),
        }  # fmt: skip
        delegate = changed.get_non_dynamic_delegate()
        delegate.patch_model(CPU)
        result["delegate"] = [delegate.is_dynamic(), relative(seen(delegate), want)]
        del model, changed, delegate
    return result
