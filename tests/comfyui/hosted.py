"""ComfyUI and this pack in one process, and what the checks in it share. The process's arguments name both."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

COMFYUI, PACK, OUTPUT, FORMS = (Path(argument) for argument in sys.argv[1:5])
sys.path.insert(0, str(COMFYUI))
sys.argv = sys.argv[:1]

from comfy.cli_args import args  # noqa: E402

args.cpu = True

import torch  # noqa: E402

PROMPTS = ["a red circle on a white background", "", "一个蓝色的正方形", "a large green triangle at the top left " * 4]
DEMO = PACK / "zimage_core" / "demo"


def load_pack() -> Any:
    """As ComfyUI imports it: under a name of its own, with relative imports only."""
    spec = importlib.util.spec_from_file_location("pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    spec.loader.exec_module(module)
    return module


# What a running ComfyUI has imported before us; `utils` first, since older ones put a folder with another in front.
import utils.extra_config  # noqa: E402, F401

# isort: split
import latent_preview  # noqa: E402, F401
import server  # noqa: E402, F401
from comfy_api.latest import io  # noqa: E402, F401

BEFORE, START = set(sys.modules), time.process_time()
for _node in asyncio.run(asyncio.run(load_pack().comfy_entrypoint()).get_node_list()):
    _node.GET_SCHEMA()
SECONDS = time.process_time() - START
LATE = sorted({name.split(".")[0] for name in set(sys.modules) - BEFORE} & {"transformers", "diffusers", "tokenizers"})

import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402
from pack.nodes.host import sampling  # noqa: E402
from pack.nodes.host.model import load_transformer  # noqa: E402
from pack.nodes.host.text_encoder import load_text_encoder  # noqa: E402
from pack.nodes.host.vae import load_vae  # noqa: E402
from pack.zimage_core.checkpoint import load as engine_load  # noqa: E402
from pack.zimage_core.sampling import sample as engine_sample  # noqa: E402
from pack.zimage_core.schedule import sigmas as engine_sigmas  # noqa: E402
from pack.zimage_core.text_encoder import load_text_encoder as engine_text_encoder  # noqa: E402
from pack.zimage_core.vae import load_vae as engine_vae  # noqa: E402


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm().clamp_min(1e-12))


def demo(name: str) -> str:
    return str(DEMO / f"demo_{name}.safetensors")


def encode(clip: Any, text: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def noise_of(seed: int, h: int = 16, w: int = 16) -> torch.Tensor:
    return torch.randn(1, 16, h, w, generator=torch.Generator("cpu").manual_seed(seed))


def empty(batch: int = 1, h: int = 16, w: int = 16) -> dict[str, Any]:
    return {"samples": torch.zeros(batch, 16, h, w)}


HIDDEN = SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None)


def run(model: Any, positive: Any, negative: Any = None, latent: Any = None, mode: Any = None, **options: Any) -> Any:
    mode = {"mode": "auto", "steps": 0, "cfg": 0.0} | (mode or {})
    settings = {
        "seed": 5,
        "solver": "euler",
        "strength": 1.0,
        "shift": 0.0,
        "draft": False,
        "preview": "auto",
    } | options
    out, text = sampling.sample(model, positive, negative, latent or empty(), mode=mode, hidden=HIDDEN, **settings)
    return out["samples"], text


class Parts:
    """The demo in the host's modules and in the engine's, loaded once."""

    def __init__(self) -> None:
        self.clip = load_text_encoder(demo("text_encoder"))
        self.vae = load_vae(demo("vae"))
        self.turbo = load_transformer(demo("turbo"))
        self.base = load_transformer(demo("base"))
        self.encoder = engine_text_encoder(demo("text_encoder"), "float32")
        self.engine_vae = engine_vae(demo("vae"), "float32")
        self.engine = {name: engine_load.load_transformer(demo(name), "float32") for name in ("turbo", "base")}

    def captions(self, text: str) -> list[torch.Tensor]:
        return self.encoder.encode([text])

    def latents(self, variant: str, **options: Any) -> torch.Tensor:
        """The engine's result, as a LATENT of the host: in the VAE's space."""
        return latents_of(self.engine[variant], self.captions(PROMPTS[0]), **options)


# The host's own module with Z-Image's options, narrow: an oracle for ours, and a MODEL that is not from our loader.
NARROW = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "n_layers": 3, "n_refiner_layers": 1,
    "n_heads": 2, "n_kv_heads": 2, "multiple_of": 256, "ffn_dim_multiplier": 8.0 / 3.0, "norm_eps": 1e-5,
    "qk_norm": True, "cap_feat_dim": 128, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0, "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip


def host_model() -> Any:
    config = comfy.supported_models.ZImage(NARROW)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.diffusion_model.named_parameters():
        spread = 0.3 if "norm" in name else 0.5 / parameter.shape[-1] ** 0.5
        values = torch.randn(parameter.shape, generator=generator) * spread + (1.0 if "norm" in name else 0.0)
        parameter.data = values
    return comfy.model_patcher.CoreModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def latents_of(model: Any, captions: list[torch.Tensor], **options: Any) -> torch.Tensor:
    given = {"steps": 6, "shift": 3.0, "strength": 1.0, "seed": 5, "size": (16, 16)} | options
    start = given.get("start")
    noise = noise_of(given["seed"], *given["size"])
    levels = engine_sigmas(given["steps"], given["shift"], given["strength"])
    if start is not None:
        noise = (1 - levels[0]) * start + levels[0] * noise
    keys = ("negative", "cfg", "cfg_normalization", "cfg_truncation", "solver")
    extra = {key: given[key] for key in keys if key in given}
    *_, last = engine_sample(model, noise, levels, captions, **extra)
    return last.latents / 0.3611 + 0.1159


def velocity(model: Any, captions: list[torch.Tensor], x: torch.Tensor, options: Any = None) -> torch.Tensor:
    """The transformer as the sampler calls it, captions joined as conditions are."""
    made = [model.model.extra_conds(cross_attn=c, device="cpu", noise=x) for c in captions]
    joined = {key: made[0][key].concat([m[key] for m in made[1:]]) for key in made[0]}
    context = joined.pop("c_crossattn")
    sigma = torch.full((len(x),), 0.7)
    return model.model.diffusion_model(x, sigma, context, transformer_options=options or {}, **joined)


def message_of(case: Any) -> str:
    try:
        case()
    except (ValueError, FloatingPointError) as error:  # CheckpointError is a ValueError
        return str(error)
    return "no error"
