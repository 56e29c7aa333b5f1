"""Checks that run inside ComfyUI's Python: conditions that run together, through our sampler and the host's.

Each is given the demo's parts, and what it returns is judged in test_inside_compose.py.
"""

from __future__ import annotations

from typing import Any

from hosted import Parts, demo, empty, encode, load_transformer, relative, run

# isort: split
import torch
from inside_sampling import count

import nodes

# About 20 and 100 tokens, the template's eight counted: they fill up to 32 and 128.
SHORT = "a red circle on a white background, one shape"
LONG = "a large green triangle at the top left of a yellow background, " * 7
GUIDED = {"mode": "Base", "steps": 3, "cfg": 5.0}


def ksampler(
    model: Any, positive: Any, negative: Any, latent: Any = None, steps: int = 3, cfg: float = 5.0, seed: int = 5
) -> torch.Tensor:
    """The host's node, which draws its own noise."""
    out = nodes.KSampler().sample(
        model, seed, steps, cfg, "euler", "simple", positive, negative, latent or empty()
    )  # fmt: skip
    return out[0]["samples"]


def ours(model: Any, positive: Any, negative: Any, latent: Any = None) -> torch.Tensor:
    return run(model, positive, negative, latent, GUIDED)[0]


SAMPLERS = {"ours": ours, "KSampler": ksampler}


def counted(model: Any, sample: Any, *given: Any) -> tuple[torch.Tensor, list[int]]:
    """What was drawn, and the calls of the model and the rows of all calls together."""
    out: list[torch.Tensor] = []
    calls = count(model, lambda m: out.append(sample(m, *given)))
    return out[0], calls


def patched(model: Any, kind: str) -> Any:
    """A clone with a patch that mixes what it sees of the text, and of its length, into the picture."""

    def mix(args: dict[str, Any], extra: Any = None) -> dict[str, Any]:
        out = extra["original_block"](args) if extra else args
        text = out["txt"].mean(1, keepdim=True) / out["txt"].shape[1] ** 0.5
        return {"img": out["img"] + text, "txt": out["txt"]} if kind != "noise refiner" else {"img": out["img"] + text}

    model = model.clone()
    if kind == "double block":
        model.set_model_double_block_patch(mix)
    elif kind == "noise refiner":
        model.set_model_noise_refiner_patch(mix)
    else:
        model.set_model_patch_replace(mix, "dit", "double_block", 1)
    return model


def check_joint(p: Parts) -> dict[str, Any]:
    """Positive and negative of different length: in one forward, against the model that runs each alone."""
    positive, negative = encode(p.clip, SHORT), encode(p.clip, LONG)
    alone = load_transformer(demo("base"), joint_cfg=False)
    results: dict[str, Any] = {"tokens": [positive[0][0].shape[1], negative[0][0].shape[1]]}
    for name, sample in SAMPLERS.items():
        for kind in ("plain", "double block", "noise refiner", "replaced block"):
            made = {}
            for together, model in ((True, p.base), (False, alone)):
                changed = model if kind == "plain" else patched(model, kind)
                made[together] = counted(changed, sample, positive, negative, empty(2))
            if kind == "plain":
                plain = made[True][0]
            results[f"{name}, {kind}"] = {
                "difference": relative(made[True][0], made[False][0]),
                "effect": relative(made[True][0], plain),
                "forwards": [made[True][1], made[False][1]],
            }
    reloaded = alone.cached_patcher_init[0](*alone.cached_patcher_init[1])
    return results | {"kept": [m.model.joint_cfg for m in (p.base, p.base.clone(), alone, reloaded)]}
