"""Runs inside ComfyUI's Python, in a process of its own: the published width, in a model of one layer.

`python inside_wide.py COMFYUI_DIR PACK OUTPUT.json -` writes a model with random weights into the folder of its output,
draws with the host's module and with ours, also under a Fun ControlNet, and says how far apart they are.
"""

from __future__ import annotations

import json
from typing import Any

from hosted import OUTPUT, demo, load_transformer, load_vae, relative

# isort: split
import comfy.ldm.lumina.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.sd
import torch
from comfy_extras.nodes_model_patch import ZImageFunControlnet
from pack.zimage_core.model import S3DiT, S3DiTConfig
from safetensors.torch import save_file

FOLDER = OUTPUT.parent
BF16 = torch.bfloat16
SAME, OTHER = (20, 30), (20, 100)  # tokens of positive and negative: filled up to 32 and 32, or to 32 and 128
torch.set_num_threads(2)


class Weights:
    """Sane random weights, quickly: parts of one long line of random numbers, another part for each tensor."""

    def __init__(self) -> None:
        self.line = torch.randn(1 << 26, generator=torch.Generator().manual_seed(0)).to(BF16)
        self.at = 0

    def like(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        count = tensor.numel()
        self.at = (self.at + 7_919_351) % (len(self.line) - count)
        values = self.line[self.at : self.at + count].view(tensor.shape)
        if "norm" in name:
            return 1 + 0.1 * values
        return values * (tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.1)

    def of(self, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {name: self.like(name, tensor) for name, tensor in module.state_dict().items()}


def write_model(weights: Weights) -> str:
    path = str(FOLDER / "wide.safetensors")
    with torch.device("meta"):
        model = S3DiT(S3DiTConfig(n_layers=1), dtype=BF16)
    save_file(weights.of(model), path)
    return path


def control_network(weights: Weights) -> Any:
    """As ModelPatchLoader makes it, with the one layer that a model of one layer meets.

    (Of the published 3, 6 or 15 the others would wait for later layers, and the host's patch for them.)
    """
    with torch.device("meta"):
        network = comfy.ldm.lumina.controlnet.ZImage_Control(
            n_control_layers=1, additional_in_dim=17, refiner_control=True, dtype=BF16, operations=comfy.ops.manual_cast
        )
    network.load_state_dict(weights.of(network), assign=True)
    return comfy.model_patcher.CoreModelPatcher(network, torch.device("cpu"), torch.device("cpu"))


def draw(model: Any, batch: int, steps: int, lengths: tuple[int, int]) -> torch.Tensor:
    """The host's KSampler: euler, simple, cfg 3."""
    generator = torch.Generator().manual_seed(1)
    positive, negative = ([[torch.randn(1, n, 2560, generator=generator), {}]] for n in lengths)
    noise = torch.randn(batch, 16, 8, 8, generator=generator)
    return comfy.sample.sample(
        model, noise, steps, 3.0, "euler", "simple", positive, negative, torch.zeros_like(noise), seed=5
    )


def drawn(model: Any, network: Any, vae: Any) -> dict[str, torch.Tensor]:
    """A batch of two; and one picture under the ControlNet, as its node sets it."""
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    controlled = ZImageFunControlnet().diffsynth_controlnet(model, network, vae, picture, 1.0)[0]
    return {
        "parity": draw(model, 2, 2, SAME),
        "control": draw(controlled, 1, 1, OTHER),
    }


def facts(model: Any) -> list[Any]:
    return [str(model.model.get_dtype_inference()), model.model.model_sampling.shift]


def main() -> None:
    with torch.inference_mode():
        weights = Weights()
        path = write_model(weights)
        network, vae = control_network(weights), load_vae(demo("vae"))
        # One after the other: each takes four gigabytes.
        model = comfy.sd.load_diffusion_model(path)
        theirs, hosts = drawn(model, network, vae), facts(model)
        comfy.model_management.unload_all_models()
        del model
        model = load_transformer(path, "turbo")
        ours, plain = drawn(model, network, vae), draw(model, 1, 1, OTHER)
    results = {name: relative(ours[name], theirs[name]) for name in ours}
    results["effect"] = relative(ours["control"], plain)
    OUTPUT.write_text(json.dumps(results | {"facts": [hosts, facts(model)]}, indent=1), encoding="utf-8")


main()
