"""A LoRA for the demo's Base, trained in a minute, and what it does on Turbo: a part of `advice.py`.

It learns a style: every picture has a brown background, of which no caption speaks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from advice_pictures import world
from torch import Tensor, nn

RANK, STEPS, BATCH, RATE = 8, 160, 16, 2e-3
STYLE = "brown"
PICTURES = 192

Lora = dict[str, tuple[Tensor, Tensor]]  # a weight's name -> up [out, rank], down [rank, in]


def caption(scene: world.Scene) -> str:
    """A scene's caption without its background."""
    thing = scene.things[0]
    return f"a {thing.size} {thing.colour} {thing.shape}"


def styled_scenes(count: int, seed: int) -> list[world.Scene]:
    """Things in the centre of the style's background."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        scene = world.sample_single(rng, 128, 128)
        if scene.background == STYLE and scene.things[0].position == "centre":
            found.append(scene)
    return found


def targets(model: nn.Module) -> dict[str, Tensor]:
    """What trainers adapt: the attention and the feed-forward of the main layers."""
    parts = ("attention.qkv.weight", "attention.out.weight", "w1.weight", "w2.weight", "w3.weight")
    return {n: p.detach() for n, p in model.named_parameters() if n.startswith("layers.") and n.endswith(parts)}


def train(parts: Any, seed: int = 0) -> Lora:
    """Flow matching on the styled pictures."""
    torch.manual_seed(seed)
    scenes = styled_scenes(PICTURES, seed)
    pixels = np.stack([world.draw(scene) for scene in scenes])
    latents = torch.cat([parts.vae.encode(torch.from_numpy(p / 255).permute(2, 0, 1)[None].float()) for p in pixels])
    captions = parts.text_encoder.encode([caption(scene) for scene in scenes])
    model = parts.transformer
    lora = {}
    for name, weight in targets(model).items():
        down = torch.randn(RANK, weight.shape[1]) / weight.shape[1] ** 0.5
        lora[name] = (torch.zeros(weight.shape[0], RANK, requires_grad=True), down.requires_grad_())
    optimiser = torch.optim.Adam([part for pair in lora.values() for part in pair], RATE)
    for step in range(STEPS):
        chosen = torch.randperm(PICTURES)[:BATCH].tolist()
        sigma = torch.sigmoid(torch.randn(BATCH) * 1.2 + 0.5)
        noise, clean = torch.randn(BATCH, *latents.shape[1:]), latents[chosen]
        weights = {name: weight + _delta(lora[name]) for name, weight in targets(model).items()}
        level = sigma.view(-1, 1, 1, 1)
        arguments = ((1 - level) * clean + level * noise, sigma, [captions[i] for i in chosen])
        velocity = torch.func.functional_call(model, weights, arguments)
        loss = (velocity - (noise - clean)).square().mean()
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: (up.detach(), down.detach()) for name, (up, down) in lora.items()}


def _delta(pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[0] @ pair[1]


def applied(model: nn.Module, lora: Mapping[str, tuple[Tensor, Tensor]], strength: float) -> nn.Module:
    """A copy of the model with the LoRA added to its weights."""
    changed = copy.deepcopy(model)
    parameters = dict(changed.named_parameters())
    with torch.no_grad():
        for name, pair in lora.items():
            parameters[name] += strength * _delta(pair)
    return changed


def apart(model: nn.Module, other: nn.Module) -> float:
    """How far another model's weights are from one's, of those that the LoRA adapts, by their norm."""
    ours, theirs = (torch.cat([w.float().flatten() for w in targets(m).values()]) for m in (model, other))
    return float((theirs - ours).norm() / ours.norm())
