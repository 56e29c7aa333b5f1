"""Checks that run inside ComfyUI's Python: conditions that run together, through our sampler and the host's.

Each is given the demo's parts, and what it returns is judged in test_inside_compose.py.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from types import SimpleNamespace
from typing import Any

from hosted import (
    HIDDEN,
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
)

# isort: split
import comfy.sample
import pack.nodes
import server
import torch
from inside_sampling import count
from pack.nodes.host import conditions, prompts, version

import nodes

# About 20 and 100 tokens, the template's eight counted: they fill up to 32 and 128.
SHORT = "a red circle on a white background, one shape"
LONG = "and a large green triangle at the top left of a yellow background " * 7 + "again"
GUIDED = {"mode": "Base", "steps": 3, "cfg": 5.0}


def ksampler(
    model: Any,
    positive: Any,
    negative: Any,
    latent: Any = None,
    steps: int = 3,
    cfg: float = 5.0,
    strength: float = 1.0,
) -> torch.Tensor:
    """The host's node, which draws its own noise: for one picture the same as ours."""
    out = nodes.KSampler().sample(
        model, 5, steps, cfg, "euler", "simple", positive, negative, latent or empty(), strength
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


def check_prompt_batch(p: Parts) -> dict[str, Any]:
    """Picture i of a batch with prompt i, against runs of one picture each."""
    texts, avoid = [SHORT, LONG, "a blue square"], "blurry, dark, " * 12
    positive, negative, number, said = prompts.encode_batch(p.clip, "\n \n".join(texts) + "\n", avoid, HIDDEN)
    each, of_all = [encode(p.clip, text) for text in texts], encode(p.clip, avoid)
    noise = [noise_of(seed) for seed in (1, 2, 3, 4, 5, 6)]

    def hosts(model: Any, latent: Any, positive: Any, negative: Any, noise: Any, cfg: float = 5.0) -> torch.Tensor:
        """The host's KSampler with noise that is ours."""
        return comfy.sample.sample(
            model, torch.cat(noise), 3, cfg, "euler", "simple", positive, negative, latent["samples"],
            noise_mask=latent.get("noise_mask"), seed=5,
        )  # fmt: skip

    def both(model: Any, positive: Any, each: list[Any], change: Any = None) -> dict[str, Any]:
        """A batch against single runs; `change` is what a node makes of a CONDITIONING."""
        change = change or (lambda made: made)
        together, rows = counted(model, hosts, empty(3), change(positive), negative, noise[:3])
        alone = [hosts(model, empty(), change(c), of_all, [n]) for c, n in zip(each, noise)]
        mine, my_rows = counted(model, ours, change(positive), negative, empty(3))
        singly = [run(model, change(c), of_all, mode=GUIDED, seed=5 + i)[0] for i, c in enumerate(each)]
        return {
            "KSampler": relative(together, torch.cat(alone)), "ours": relative(mine, torch.cat(singly)),
            "forwards": [rows, my_rows],
        }  # fmt: skip

    def regional(made: Any) -> Any:
        half = torch.zeros(1, 16, 16)
        half[..., 8:] = 1
        kept = nodes.ConditioningSetMask().append(made, half, "default", 1.0)[0]
        area = nodes.ConditioningSetArea().append(each[0], 64, 128, 0, 0, 1.0)[0]
        return nodes.ConditioningCombine().combine(kept, area)[0]

    def ranged(made: Any) -> Any:
        first = nodes.ConditioningSetTimestepRange().set_range(made, 0.0, 0.5)[0]
        return first + nodes.ConditioningSetTimestepRange().set_range(each[2], 0.5, 1.0)[0]

    second = nodes.LatentFromBatch().frombatch(empty(3), 1, 2)[0]
    whole = ours(p.base, positive, negative, empty(3))
    twice = hosts(p.base, empty(6), positive, negative, noise, 1.0)
    joined = nodes.ConditioningConcat().concat(positive, positive)[0]
    return {
        "plain": both(p.base, positive, each),
        "patched": both(patched(p.base, "double block"), positive, each),
        "regional": both(p.base, positive, each, regional),
        "ranged": both(p.base, positive, each, ranged),
        "cfg 1": counted(p.turbo, hosts, empty(3), positive, negative, noise[:3], 1.0)[1],
        "count": number,
        "says": said,
        "each of its own": relative(whole[0], whole[2]),
        "twice": max(
            relative(twice[i : i + 1], hosts(p.base, empty(), each[i % 3], of_all, [noise[i]], 1.0)) for i in range(6)
        ),
        "part of a batch": relative(ours(p.base, positive, negative, second), whole[1:]),
        "wrong count": message_of(lambda: ours(p.base, positive, negative, empty(2))),
        "wrong count, host's": message_of(lambda: ksampler(p.base, positive, negative, second)),
        "joined": message_of(lambda: ksampler(p.base, joined, negative, empty(3))),
        "none": message_of(lambda: prompts.encode_batch(p.clip, " \n", "", HIDDEN)),
        "no encoder": message_of(lambda: prompts.encode_batch(None, "a", "", HIDDEN)),
    }


def check_prompt_batch_on_hosts_model(p: Parts) -> dict[str, Any]:
    """A MODEL of the host's knows no lengths: equal ones are drawn, others are refused."""
    theirs, generator = host_model(), torch.Generator().manual_seed(0)
    captions = [torch.randn(length, 128, generator=generator) for length in (20, 20, 50)]
    equal, ragged = ([conditions.batch_of(part, {})] for part in (captions[:2], captions[1:]))
    alone = [[[caption[None], {}]] for caption in captions[:2]]
    turbo = {"mode": "Turbo", "steps": 2, "cfg": 1.0}
    batch = run(theirs, equal, latent=empty(2), mode=turbo)[0]
    singly = [run(theirs, c, mode=turbo, seed=5 + i)[0] for i, c in enumerate(alone)]
    return {
        "equal": relative(batch, torch.cat(singly)),
        "ragged": message_of(lambda: run(theirs, ragged, latent=empty(2), mode=turbo)),
        "ragged, host's": message_of(lambda: ksampler(theirs, ragged, ragged, empty(2))),
    }


def check_prompt_batch_is_kept(p: Parts) -> list[int]:
    """A batch longer than what is kept: of twelve prompts and a negative, the one that changed is encoded again."""
    clip = load_text_encoder(demo("text_encoder"))
    calls: list[int] = []
    original = clip.cond_stage_model.encode_token_weights

    def encoding(tokens: Any) -> Any:
        calls.append(1)
        return original(tokens)

    clip.cond_stage_model.encode_token_weights = encoding
    made = []
    for last in ("a blue square", "a red square"):
        calls.clear()
        prompts.encode_batch(clip, "\n".join([*(f"picture {i}" for i in range(11)), last]), "dark", HIDDEN)
        made.append(len(calls))
    return made


def check_old_host(p: Parts) -> dict[str, list[str]]:
    """What the log says as the extension is loaded, by the host's version."""
    found: dict[str, list[str]] = {}
    logger, real = logging.getLogger(version.__name__), importlib.import_module("comfyui_version")
    server.PromptServer.instance = None  # there is none in this process
    for name in ("0.3.75", "0.23.9", "0.24.0", "0.24.0rc1", "0.33.0", "1.0.0", "nightly", ""):
        records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record, records=records: records.append(record.getMessage())  # type: ignore[misc]
        sys.modules["comfyui_version"] = SimpleNamespace(__version__=name) if name else None  # type: ignore[assignment]
        logger.addHandler(handler)
        try:
            asyncio.run(pack.nodes.ZImageExtension().on_load())
        finally:
            logger.removeHandler(handler)
            sys.modules["comfyui_version"] = real
        found[name] = records
    del server.PromptServer.instance
    return found


def check_wrong_inputs_of_ksampler(p: Parts) -> dict[str, Any]:
    """What our sampler says of wrong parts, the host's says with our MODEL too."""
    positive, negative = encode(p.clip, SHORT), encode(p.clip, "")
    real = [[torch.zeros(1, 8, 2560), {}]]
    nan, inf = ([[c.clone(), dict(d)] for c, d in given] for given in (positive, negative))
    nan[0][0][0, 3, 5], inf[0][0][0, 0, 0] = float("nan"), float("inf")
    picture = {"samples": torch.ones(1, 16, 16, 16)}
    picture["samples"][0, 3, 4, 5] = float("inf")
    cases = {
        "features": (real, negative, empty()),
        "negative": (positive, real, empty()),
        "other family": (positive, negative, {"samples": torch.ones(1, 4, 16, 16)}),
        "video": (positive, negative, {"samples": torch.ones(1, 16, 3, 16, 16)}),
        "NaN": (nan, negative, empty()),
        "infinite negative": (positive, inf, empty()),
        "infinite latent": (positive, negative, picture),
        "nothing": (positive, negative, empty()),
    }
    found: dict[str, Any] = {name: message_of(lambda: ksampler(p.base, *case)) for name, case in cases.items()}  # noqa: B023
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[misc]
    logger = logging.getLogger(load_transformer.__module__)
    logger.addHandler(handler)
    for latent in (empty(1, 4, 4), empty(1, 4, 4), empty(), empty(1, 12, 20)):
        ksampler(p.base, positive, negative, latent, 1)
    logger.removeHandler(handler)
    return found | {"sizes": records}
