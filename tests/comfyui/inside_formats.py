"""Checks that run inside ComfyUI's Python: every form of file, and what the host does with packed weights.

Each is given the demo's parts, and what it returns is judged in test_inside_formats.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hosted import (
    FORMS,
    PROMPTS,
    Parts,
    empty,
    encode,
    engine_load,
    engine_text_encoder,
    engine_vae,
    latents_of,
    load_text_encoder,
    load_transformer,
    load_vae,
    message_of,
    noise_of,
    relative,
    run,
    velocity,
)

# isort: split
import comfy.memory_management as memory
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.quant_ops
import comfy.sample
import comfy.sd
import comfy.utils
import comfy_extras.nodes_lora_extract as extract
import comfy_extras.nodes_train as training
import pack.nodes.host
import torch
import torch.nn.functional as F
from comfy.model_patcher import LowVramPatch
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.nodes.host import files, packed
from pack.zimage_core.checkpoint import ggml
from pack.zimage_core.checkpoint.gguf_file import read_header
from pack.zimage_core.checkpoint.quantized import DENSE, Packed
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")
STEPS = 4  # which the host's scheduler meets exactly: it has 1000 levels
TURBO = {"mode": "Turbo", "steps": STEPS, "cfg": 1.0}
# One of each way in which weights are held: packed with nothing beside them, packed with scales, packed in parts of
# different formats, and as the host's own.
KINDS = ("gguf Q8_0", "fp8 rows", "three types in one", "fp8 cast")
PACKED = KINDS[:3]


def form(name: str, kind: str = "transformer") -> str:
    return json.loads(FORMS.read_text(encoding="utf-8"))[kind][name]


def forms(kind: str) -> dict[str, str]:
    return json.loads(FORMS.read_text(encoding="utf-8"))[kind]


def turbo(name: str) -> Any:
    return load_transformer(form(name), "turbo")


def held(layer: Any) -> str:
    return str(getattr(layer.weight, "_layout_cls", layer.weight.dtype))


def matrix(layer: Any) -> bool:
    return type(layer).__name__ == "Linear"


def qkv(model: Any, block: int = 0) -> Any:
    return model.model.diffusion_model.layers[block].attention.qkv


def seen(model: Any) -> torch.Tensor:
    """What a model makes of one input."""
    caption = torch.randn(1, 20, 128, generator=torch.Generator().manual_seed(0))
    return velocity(model, [caption], noise_of(1))


def bits(model: Any) -> dict[str, torch.Tensor]:
    """Every parameter as the bytes that are held."""
    plain = {name: getattr(p, "_qdata", p) for name, p in model.model.named_parameters()}
    return {name: p.detach().contiguous().view(torch.uint8).clone() for name, p in plain.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextmanager
def dense_twin(name: str) -> Iterator[Any]:
    """A MODEL from a dense file of the numbers that the engine reads from a form."""
    model = engine_load.load_transformer(form(name), "float32")
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.rpartition(".")[2][-1].isdigit()}
    for key, layer in model.named_modules():
        if hasattr(layer, "dequantized"):
            state[f"{key}.weight"] = layer.dequantized(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "dense.safetensors")
        save_file({key: tensor.float().contiguous() for key, tensor in state.items()}, path)
        yield load_transformer(path, "turbo")


def with_lora(model: Any) -> Any:
    """q, v and out of two blocks, in diffusers' names: slices of fused weights, and whole ones."""
    generator = torch.Generator().manual_seed(1)
    lora = {}
    for stem in (f"transformer.layers.{i}.attention.{part}" for i in (0, 1) for part in ("to_q", "to_v", "to_out.0")):
        lora[f"{stem}.lora_A.weight"] = torch.randn(4, 128, generator=generator)
        lora[f"{stem}.lora_B.weight"] = torch.randn(128, 4, generator=generator) * 0.1
    return comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0.0)[0]


@contextmanager
def loaded(model: Any, memory: int = 0) -> Iterator[Any]:
    """Patched, as before a run; with `memory`, only so many bytes count as on the device."""
    model.patch_model(CPU, lowvram_model_memory=memory)
    try:
        yield model
    finally:
        model.unpatch_model(CPU)


def check_transformers(p: Parts) -> dict[str, Any]:
    """Each form through both samplers, against the engine on the same file in float32."""
    positive, captions = encode(p.clip, PROMPTS[0]), p.captions(PROMPTS[0])
    results = {}
    for name in forms("transformer"):
        model = turbo(name)
        engine = latents_of(engine_load.load_transformer(form(name), "float32"), captions, steps=STEPS)
        noise, latent = noise_of(5), empty()["samples"]
        theirs = comfy.sample.sample(model, noise, STEPS, 1.0, "euler", "simple", positive, positive, latent, seed=5)
        layer = qkv(model)
        results[name] = {
            "ours": relative(run(model, positive, mode=TURBO)[0], engine),
            "KSampler": relative(theirs, engine),
            "held": held(layer),
            "bytes": model.model_size(),
            "weight only": getattr(layer, "_full_precision_mm_config", None),
            "pad token": list(model.model.diffusion_model.x_pad_token.shape),
        }
    return results


def check_text_encoders(p: Parts) -> dict[str, Any]:
    results = {}
    for name, path in forms("text_encoder").items():
        clip, engine = load_text_encoder(path), engine_text_encoder(path, "float32")
        model = clip.cond_stage_model.qwen3_4b.transformer.model
        results[name] = {
            "features": max(relative(encode(clip, text)[0][0][0], engine.encode([text])[0]) for text in PROMPTS),
            "table": held(model.embed_tokens),
            "matrix": held(model.layers[0].self_attn.q_proj),
            "full precision": getattr(model.layers[0].self_attn.q_proj, "_full_precision_mm", None),
            "bytes": clip.patcher.model_size(),
        }
    return results


def check_vaes(p: Parts) -> dict[str, float]:
    latents, results = noise_of(1, 12, 20), {}
    for name, path in forms("vae").items():
        numbers = engine_vae(forms("vae numbers").get(name, path), "float32").decode(latents)
        results[name] = relative(load_vae(path).decode(latents / 0.3611 + 0.1159).movedim(-1, 1), numbers)
    return results


def check_dense_files(p: Parts) -> dict[str, Any]:
    """Nothing of all this touches a dense file."""
    layers = [qkv(p.turbo), p.turbo.model.diffusion_model.x_embedder]
    layers += [p.clip.cond_stage_model.qwen3_4b.transformer.model.layers[0].mlp.up_proj]
    return {
        "classes": sorted({f"{type(layer).__module__}.{type(layer).__qualname__}" for layer in layers}),
        "operations": p.turbo.model.model_config.custom_operations,
        "callbacks": [len(patcher.get_all_callbacks("on_load_after")) for patcher in (p.turbo, p.clip.patcher)],
        "mixed": sorted({held(layer) for layer in turbo("fp8 each second layer").model.modules() if matrix(layer)}),
    }  # fmt: skip


def check_mapped(p: Parts) -> dict[str, Any]:
    """Packed weights of a GGUF file are its mapped memory; a format with scales is one buffer, aligned."""
    model = turbo("gguf Q8_0")
    held = [qkv(model, i).weight._qdata for i in (0, 1, 2)]
    entries, _ = read_header(Path(form("gguf Q8_0")))
    written = [entries[f"layers.{i}.attention.qkv.weight"] for i in (0, 1, 2)]
    weight = qkv(turbo("three types in one")).weight
    places = [place for rows in weight._params.rows for place in rows.places]
    return {
        # As far from each other in memory as in the file: nothing was copied.
        "mapped": [t.data_ptr() - held[0].data_ptr() for t in held] == [e.offset - written[0].offset for e in written],
        "bytes": [t.untyped_storage().nbytes() for t in held] == [entry.size for entry in written],
        "formats": [rows.format for rows in weight._params.rows],
        "aligned": all(place.offset % 16 == 0 for place in places),
        "hashable": hash(weight._params.rows) == hash(qkv(turbo("three types in one")).weight._params.rows),
    }


def check_packed_lora(p: Parts) -> dict[str, Any]:
    """A LoRA on packed weights is the LoRA on the dense ones, takes no memory, and leaves the bytes as they were."""
    results = {}
    for name in KINDS:
        model = turbo(name)
        before, plain = bits(model), seen(model)
        patched = with_lora(model)
        with dense_twin(name) as twin, loaded(with_lora(twin)) as dense, loaded(patched):
            found = {
                "patched": relative(seen(patched), seen(dense)),
                "effect": relative(seen(patched), plain),
                "bytes": [model.model_size(), comfy.model_management.module_size(patched.model)],
            }
        functions = sum(len(getattr(m, "weight_function", ())) for m in model.model.modules())
        results[name] = found | {"undone": same(bits(model), before), "again": relative(seen(model), plain),
                                 "functions": functions}  # fmt: skip
    return results


def check_partial_loading(p: Parts) -> dict[str, Any]:
    """However many layers fit on the device, and however many leave it again."""
    results: dict[str, Any] = {}
    for name in PACKED:
        model = turbo(name)
        before, patched = bits(model), with_lora(model)
        with dense_twin(name) as twin, loaded(with_lora(twin)) as dense:
            want = seen(dense)
        found = []
        for size in (1, 400_000, 1_500_000):
            with loaded(patched, size):
                found.append(relative(seen(patched), want))
                patched.partially_unload(CPU, 300_000)
                found.append(relative(seen(patched), want))
                patched.load(CPU, lowvram_model_memory=size + 500_000)
                found.append(relative(seen(patched), want))
        results[name] = {"patched": found, "undone": same(bits(model), before)}
    return results


def check_clones(p: Parts) -> dict[str, Any]:
    """Clones share their weights, and each has its own patches; one loaded anew has weights of its own."""
    model = turbo("gguf Q8_0")
    plain = seen(model)
    patched = with_lora(model.clone())
    with loaded(patched):
        during = seen(patched)
    positive = encode(p.clip, PROMPTS[0])
    first, second = (run(m, positive, mode=TURBO)[0] for m in (model, patched))
    again = run(model, positive, mode=TURBO)[0]
    # What clone(force_deepcopy=True) does where the host is new enough to know it.
    factory, given = patched.cached_patcher_init
    anew = patched.clone(model_override=factory(*given, disable_dynamic=True).get_clone_model_override())
    with loaded(anew):
        deep = seen(anew)
    return {
        "shared": patched.model is model.model,
        "effect": relative(during, plain),
        "sampled": [relative(second, first), relative(again, first)],
        "anew": [anew.model is model.model, relative(deep, during)],
        "moved": relative(moved(model), plain),
    }


def moved(model: Any) -> torch.Tensor:
    """As the host moves and casts a model; packed bytes must not be cast with it."""
    model.model.to(CPU, torch.float64).to(torch.float32)
    return seen(model)


def check_saving(p: Parts) -> dict[str, Any]:
    """As the Save nodes write: dense in the compute type, LoRA merged, FP8 as the host's; both loaders read it back."""
    results = {}
    for name in KINDS:
        model = turbo(name)
        patched = with_lora(model)
        with loaded(patched):
            plain, merged = seen(model), seen(patched)
        plain = seen(model)
        for title, patcher, want in (("plain", model, plain), ("lora", patched, merged)):
            for size in (None, 0, 1_000_000):
                results[f"{name}, {title}, {size}"] = saved(patcher, size, want)
    return results


def saved(patcher: Any, size: int | None, want: torch.Tensor) -> dict[str, Any]:
    """A model saved while it is not loaded (None), loaded (0) or loaded in part, and what is made of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "saved.safetensors")
        if size is None:
            write(patcher.state_dict_for_saving(), path)
        else:
            with loaded(patcher, size):
                write(patcher.state_dict_for_saving(), path)
        state = load_file(path)
        return {
            "ours": relative(seen(load_transformer(path, "turbo")), want),
            "keys": len(state),
            "types": sorted({str(t.dtype) for key, t in state.items() if key.endswith("qkv.weight")}),
            "bytes": Path(path).stat().st_size,
        }


def write(state: dict[str, Any], path: str) -> None:
    """What the host's save_checkpoint does with a state dict."""
    for key in state:
        if not state[key].is_contiguous():
            state[key] = state[key].contiguous()
    comfy.utils.save_torch_file(state, path)


def check_saved_text_encoder(p: Parts) -> dict[str, Any]:
    """Through the host's own checkpoint form: `text_encoders.` before the keys."""
    results = {}
    for name in ("gguf Q4_0", "fp8 comfy_quant"):
        clip = load_text_encoder(form(name, "text_encoder"))
        state = clip.state_dict_for_saving()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "saved.safetensors"
            write({f"text_encoders.{key}": t for key, t in state.items() if isinstance(t, torch.Tensor)}, str(path))
            (Path(folder) / "tokenizer").symlink_to(Path(form(name, "text_encoder")).parent / "tokenizer")
            again = load_text_encoder(str(path))
            results[name] = relative(encode(again, PROMPTS[0])[0][0], encode(clip, PROMPTS[0])[0][0])
    return results


def check_extracted_lora(p: Parts) -> dict[str, float]:
    """Two packed models merged and taken apart: the host asks for weights by way of `convert_weight` and of saving."""
    model, other = turbo("gguf Q8_0"), turbo("gguf Q4_0")
    difference = model.clone()
    for key, patch in other.get_key_patches("diffusion_model.").items():
        difference.add_patches({key: patch}, -1.0, 1.0)
    found = extract.calc_lora_model(difference, 4, "diffusion_model.", "d.", {}, extract.LORAType.FULL_DIFF)
    comfy.model_management.unload_all_models()
    want = qkv(model).weight.dequantize() - qkv(other).weight.dequantize()
    entry = model.model.diffusion_model.state_dict()["layers.0.attention.qkv.weight"]
    return {
        "difference": relative(found["d.layers.0.attention.qkv.diff"], want),
        "entry": relative(entry.float(), qkv(model).weight.dequantize()),
        "bytes": entry.nbytes / qkv(model).weight._qdata.nbytes,
    }


def check_streamed(p: Parts) -> dict[str, Any]:
    """Dynamic VRAM, which needs a GPU: the host's own functions on memory that a test has laid out as they would."""
    model = turbo("gguf Q8_0")
    layer = model.model.diffusion_model.x_embedder
    weight, bias, x = layer.weight, layer.bias, torch.randn(3, 64)
    before, size = weight._qdata.clone(), memory.vram_aligned_size([weight, bias])
    buffer = torch.empty(size, dtype=torch.uint8)
    comfy.model_management.cast_to_gathered([weight, bias], buffer)
    views = memory.interpret_gathered_like([weight, bias], buffer)
    results: dict[str, Any] = {
        "size": [size, sum(-(-n // 1024) * 1024 for n in (before.nbytes, 4, bias.nbytes))],
        "round trip": torch.equal(views[0].dequantize(), weight.dequantize()) and torch.equal(views[1], bias),
        "in the buffer": views[0]._qdata.data_ptr() == buffer.data_ptr(),
    }
    difference = torch.randn(weight.shape)
    patches = {"x_embedder.weight": [(0.5, ("diff", (difference,)), 1.0, None, None)]}
    # As ModelPatcherDynamic.load sets a layer up, and cast_modules_with_vbar prepares it.
    layer._v, layer.seed_key = object(), "x_embedder"
    layer.weight_lowvram_function = LowVramPatch("x_embedder.weight", patches)
    layer.weight_function, layer.bias_lowvram_function, layer.bias_function = [], None, []
    geometry = memory.tensors_to_geometries([weight, bias])
    layer._prefetch = {"signature": 1, "resident": False, "xfer_dest": buffer, "cast_dest": None,
                       "cast_geometry": geometry, "needs_cast": False}  # fmt: skip

    def use(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        cast = comfy.ops.resolve_cast_module_with_vbar(layer, dtype, CPU, dtype, dtype, True)
        return layer._forward(x.to(dtype), *cast)

    patched = F.linear(x, weight.dequantize() + 0.5 * difference, bias)
    results["uses"] = [[relative(use(), patched), layer._prefetch["resident"]] for _ in range(3)]
    results["bfloat16"] = relative(use(torch.bfloat16), patched)
    results["for the host"] = [layer.weight_lowvram_function is None, len(layer.weight_function)]
    layer.weight_lowvram_function = None
    results["without"] = relative(use(), F.linear(x, weight.dequantize(), bias))
    results["unchanged"] = torch.equal(buffer[: before.numel()], before)
    hosts = turbo("fp8 cast").model.diffusion_model.x_embedder
    hosts.weight_lowvram_function = "a patch"
    results["a layer of the host's"] = hosts.weight_lowvram_function
    return results


def check_dynamic_loading(p: Parts) -> dict[str, Any]:
    """More of dynamic VRAM: weights that are assigned and not copied, and small layers that are loaded by force."""
    patcher = comfy.model_patcher.ModelPatcher
    original, patcher.is_dynamic = patcher.is_dynamic, lambda self: True
    try:
        models = {name: turbo(name) for name in KINDS}
    finally:
        patcher.is_dynamic = original
    results = {name: relative(seen(model), seen(turbo(name))) for name, model in models.items()}
    model = with_lora(models["gguf Q8_0"])
    before, key = bits(model), "diffusion_model.layers.0.attention.qkv.weight"
    with loaded(turbo("gguf Q8_0")) as plain, loaded(with_lora(turbo("gguf Q8_0"))) as patched:
        want = [seen(plain), seen(patched)]
    for name in before:
        model.patch_weight_to_device(name, device_to=CPU, force_cast=True)
    forced = held(qkv(model))
    packed.patch_at_use(model)
    results["forced"] = relative(seen(model), want[1])
    comfy.utils.set_attr_param(model.model, key, model.backup[key].weight)
    left = len(qkv(model).weight_function)
    return results | {"held": forced, "left": left, "unchanged": same(bits(model), before)}


def check_hooks(p: Parts) -> dict[str, str]:
    """The host writes scheduled LoRAs over weights in place; on its own quantised ones it does not allow it either."""
    new = torch.zeros(384, 128)
    layers = {name: qkv(turbo(name)) for name in ("gguf Q8_0", "fp8 cast")}
    return {name: message_of(lambda: layer.set_weight(new, inplace_update=True)) for name, layer in layers.items()}  # noqa: B023


def check_text_encoder_patches(p: Parts) -> dict[str, Any]:
    """A patched table and matrix, and the text generation that reads the table as a head."""
    results = {}
    stem = "qwen3_4b.transformer.model."
    generator = torch.Generator().manual_seed(3)
    for name in ("gguf Q4_0", "fp8 rows"):
        clip = load_text_encoder(form(name, "text_encoder"))
        model = clip.cond_stage_model.qwen3_4b.transformer.model
        table, matrix = (layer.weight.dequantize() for layer in (model.embed_tokens, model.layers[0].mlp.up_proj))
        d = {key: torch.randn(t.shape, generator=generator) * 0.01 for key, t in (("t", table), ("m", matrix))}
        patched = clip.clone()
        patched.add_patches({f"{stem}embed_tokens.weight": ("diff", (d["t"],)),
                             f"{stem}layers.0.mlp.up_proj.weight": ("diff", (d["m"],))})  # fmt: skip
        before, during, after = (encode(c, PROMPTS[0])[0][0] for c in (clip, patched, clip))
        twin = load_text_encoder(form(name, "text_encoder"))
        theirs = twin.cond_stage_model.qwen3_4b.transformer.model
        theirs.embed_tokens.weight = torch.nn.Parameter(table + d["t"], requires_grad=False)
        theirs.layers[0].mlp.up_proj.weight = torch.nn.Parameter(matrix + d["m"], requires_grad=False)
        tokens = clip.tokenize(PROMPTS[0])
        results[name] = {
            "patched": relative(during, encode(twin, PROMPTS[0])[0][0]),
            "effect": relative(during, before),
            "after": relative(after, before),
            "generated": len(clip.generate(tokens, do_sample=False, max_length=2, temperature=1.0, top_k=1, top_p=1.0,
                                           min_p=0.0, repetition_penalty=1.0, seed=0)),
        }  # fmt: skip
    return results


def check_compile(p: Parts) -> dict[str, Any]:
    """A block as the Torch Compile node's compiler sees it, in one and the same number of graphs as a dense one."""
    results: dict[str, Any] = {}
    for name in ("shards", "gguf Q8_0"):
        model = turbo(name).model.diffusion_model
        x, time_ = torch.randn(1, 96, 128), model.embed_sigma(torch.tensor([0.7]), noise_of(1))
        rope, _ = model.rope([20], 16, 24, CPU)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        block = model.layers[0]
        compiled = torch.compile(block, backend="aot_eager")(x, rope, None, plain_attention, time_)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        results[name] = [relative(compiled, block(x, rope, None, plain_attention, time_)), graphs]
    node = TorchCompileModel.execute(turbo("gguf Q8_0"), "inductor")
    results["node"] = sorted(node.result[0].model_options["torch_compile_kwargs"])
    return results


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def check_compiled_formats(p: Parts) -> dict[str, bool]:
    """Every format of GGUF in one graph; those that look codewords up in tables too."""
    operations = packed.operations(comfy.ops.mixed_precision_ops({}, torch.float32))
    results = {}
    x = torch.randn(2, 256)
    for name, kind in ggml.TYPES.items():
        if name in DENSE:
            continue
        layer = operations.Linear(256, 4, bias=False, dtype=torch.float32)
        data = torch.randint(0, 50, (4, 256 // kind.weights * kind.bytes), dtype=torch.uint8)
        layer.load_state_dict({"weight": packed.pack([Packed(name, (4, 256), {"data": data})], torch.float32)})
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
        results[name] = torch.allclose(compiled, layer(x), equal_nan=True)
    return results


def check_training(p: Parts) -> dict[str, Any]:
    """The Train LoRA node, both of its ways; and a gradient through one packed layer."""
    results = {}
    caption = torch.randn(1, 20, 128, generator=torch.Generator().manual_seed(0))
    given = {
        "latents": [{"samples": noise_of(3)}], "positive": [[[caption, {}]]], "batch_size": [1], "steps": [1],
        "grad_accumulation_steps": [1], "learning_rate": [1e-3], "rank": [4], "optimizer": ["AdamW"],
        "loss_function": ["MSE"], "seed": [0], "training_dtype": ["none"], "lora_dtype": ["fp32"],
        "quantized_backward": [False], "algorithm": ["LoRA"], "checkpoint_depth": [1], "offloading": [False],
        "existing_lora": ["[None]"], "bucket_mode": [False],
    }  # fmt: skip
    for bypass in (False, True):
        out = training.TrainLoraNode.execute(
            model=[turbo("gguf Q8_0")], gradient_checkpointing=[not bypass], bypass_mode=[bypass], **given
        )
        lora = next(value for value in out.result if isinstance(value, dict) and len(value) > 1)
        ups = [t for key, t in lora.items() if "lora_up" in key and "layers." in key]
        results[f"bypass {bypass}"] = [len(ups), sum(float(t.abs().max()) > 0 for t in ups)]
    with torch.inference_mode(False):
        layer = qkv(turbo("gguf Q8_0"))
        x = torch.randn(5, 128, requires_grad=True)
        layer(x).sum().backward()
        results["gradient"] = relative(x.grad, torch.ones(5, 384) @ layer.weight.dequantize())
    return results


def check_old_hosts(p: Parts) -> dict[str, Any]:
    """A host without FP8 in its table, and one without comfy-kitchen."""
    want, algorithms = seen(turbo("fp8 comfy_quant")), comfy.quant_ops.QUANT_ALGOS
    comfy.quant_ops.QUANT_ALGOS = {}
    try:
        model = turbo("fp8 comfy_quant")
        results: dict[str, Any] = {"without fp8": [held(qkv(model)), relative(seen(model), want)]}
    finally:
        comfy.quant_ops.QUANT_ALGOS = algorithms
    kept = {name: sys.modules[name] for name in ("comfy_kitchen.tensor", "pack.nodes.host.packed")}
    sys.modules["comfy_kitchen.tensor"] = None  # type: ignore[assignment]
    del sys.modules["pack.nodes.host.packed"], pack.nodes.host.packed
    try:
        results["without kitchen"] = message_of(lambda: turbo("gguf Q8_0"))
        results["dense"] = message_of(lambda: turbo("shards"))
    finally:
        sys.modules.update(kept)
        pack.nodes.host.packed = packed
    return results


def check_wanted_types(p: Parts) -> dict[str, Any]:
    """What the dtype widget means for packed weights: the type they are unpacked to."""
    results = {}
    for dtype in ("float32", "bfloat16", "float16"):
        model = load_transformer(form("gguf Q8_0"), "turbo", dtype)
        results[dtype] = [str(qkv(model).weight.dtype), str(model.model.get_dtype_inference()), held(qkv(model))]
    return results


def check_fp8_marks(p: Parts) -> dict[str, Any]:
    """What decides whether the host may round activations to FP8: only what a file says of its own."""
    weight, scale = torch.randn(384, 128).to(torch.float8_e4m3fn), torch.tensor(0.5)
    marked = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    full = torch.tensor(list(b'{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}'), dtype=torch.uint8)
    fused = {"qkv.weight": weight}
    parts = {f"to_{letter}.weight": rows.clone() for letter, rows in zip("qkv", weight.chunk(3))}
    parts |= {f"to_{letter}.weight_scale": scale.clone() for letter in "qkv"}

    def inputs(*scales: float) -> dict[str, torch.Tensor]:
        return {f"to_{letter}.input_scale": torch.tensor(value) for letter, value in zip("qkv", scales)}

    cases = {
        "cast": fused,
        "scale without a mark": fused | {"qkv.weight_scale": scale},
        "marked": fused | {"qkv.weight_scale": scale, "qkv.comfy_quant": marked},
        "marked as full": fused | {"qkv.weight_scale": scale, "qkv.comfy_quant": full},
        "legacy": fused | {"qkv.scale_weight": scale, "scaled_fp8": torch.zeros(0)},
        "legacy, full": fused | {"qkv.scale_weight": scale, "scaled_fp8": torch.zeros(2)},
        "calibrated": fused | {"qkv.weight_scale": scale, "qkv.input_scale": torch.tensor(0.25)},
        "calibrated alike": parts | inputs(0.25, 0.25, 0.25),
        "calibrated apart": parts | inputs(0.25, 0.25, 0.5),
        "calibrated in part": parts | inputs(0.25, 0.25),
    }
    results = {}
    for name, tensors in cases.items():
        base = load_file(form("diffusers, fp8 cast" if "to_q.weight" in tensors else "fp8 cast"))
        given = {key if key == "scaled_fp8" else f"layers.0.attention.{key}": t for key, t in tensors.items()}
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "case.safetensors")
            save_file(base | given, path)
            layer = qkv(load_transformer(path, "turbo"))
        activations = getattr(layer, "input_scale", None)
        results[name] = [layer._full_precision_mm_config, None if activations is None else float(activations)]
    return results


@contextmanager
def folders(**given: list[Path]) -> Iterator[None]:
    """The host's model folders, for a while, by their keys."""
    known = files.folder_paths.folder_names_and_paths
    kept = dict(known)
    known.update({key: ([str(path) for path in paths], {".safetensors"}) for key, paths in given.items()})
    try:
        yield
    finally:
        known.clear()
        known.update(kept)


def check_long_list(p: Parts) -> dict[str, Any]:
    """Files that are nothing of ours are looked at once, and then not opened again."""
    names = [f"model.diffusion_model.input_blocks.{i}.weight" for i in range(2000)]
    entries = {n: {"dtype": "F16", "shape": [1], "data_offsets": [2 * i, 2 * i + 2]} for i, n in enumerate(names)}
    header = json.dumps(entries).encode()
    with tempfile.TemporaryDirectory() as folder, folders(checkpoints=[Path(folder)]):
        for i in range(300):
            data = len(header).to_bytes(8, "little") + header + bytes(2 * len(names))
            Path(folder, f"other_{i}.safetensors").write_bytes(data)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            listed = files.entries("transformer")
            times.append(time.perf_counter() - start)
    return {"listed": [e.label for e in listed if not e.own], "first": times[0], "again": times[1]}


def check_folders(p: Parts) -> dict[str, Any]:
    """Another pack's key for GGUF files, over a folder of ours and one of its own; and files that come and change."""
    with tempfile.TemporaryDirectory() as base:
        ours, theirs = Path(base, "ours"), Path(base, "theirs")
        ours.mkdir()
        theirs.mkdir()
        with folders(diffusion_models=[ours], unet_gguf=[ours, theirs], checkpoints=[], diffusers=[]):
            results: dict[str, Any] = {"empty": files.choices("transformer")}
            whole = Path(form("gguf Q4_0")).read_bytes()
            (ours / "a.gguf").write_bytes(whole[:-1000])
            results["cut off"] = files.choices("transformer")
            (ours / "a.gguf").write_bytes(whole)
            results["whole"] = files.choices("transformer")
            stamp = files.stamp("transformer", "a.gguf")
            for folder in (ours, theirs):
                (folder / "b.gguf").write_bytes(whole)
            results["both"] = files.choices("transformer")[0][:-2]
            results["theirs"] = files.path_of("transformer", "b.gguf [unet_gguf]") == theirs / "b.gguf"
            (ours / "a.gguf").write_bytes(whole + bytes(32))
            results["changed"] = files.stamp("transformer", "a.gguf") != stamp
            results["keys"] = "clip_gguf" in files.folder_paths.folder_names_and_paths
            files.entries("text_encoder")
            results["keys"] |= "clip_gguf" in files.folder_paths.folder_names_and_paths
    return results


def check_names(p: Parts) -> dict[str, Any]:
    """Which entry a label from elsewhere means."""
    labels = ["sub/a.safetensors", "other/b.gguf", "b.gguf", "big.safetensors.index.json", "x/model.safetensors",
              "all.safetensors [checkpoints]", "Pipe [diffusers]"]  # fmt: skip
    listed = [SimpleNamespace(label=label, rank=2 if label == "b.gguf" else 0) for label in labels]
    listed.sort(key=lambda entry: entry.rank)
    cases = [
        "sub\\a.safetensors", "a.safetensors", "elsewhere/a.safetensors", "z/b.gguf", "big-00002-of-00003.safetensors",
        "model.safetensors", "X\\Model.safetensors", "all.safetensors", "all.safetensors [unet_gguf]", "Pipe",
        "none.gguf",
    ]  # fmt: skip
    return {case: [entry.label for entry in files._alike(listed, case)] for case in cases}
