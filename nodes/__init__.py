"""The nodes: a schema and one call each. What they share with ComfyUI's insides is in `host`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .compare import Compare
from .conditioning import PromptBatch, TextEncode
from .custom_sampling import Guider, ModelSampling, Sigmas
from .host import report
from .host.version import warn_if_old
from .latent import LatentSize
from .loaders import TextEncoderLoader, TransformerLoader, VAELoader
from .pick import PickSeeds
from .sampler import Sampler

NODES: list[type[io.ComfyNode]] = [
    TransformerLoader,
    TextEncoderLoader,
    VAELoader,
    TextEncode,
    PromptBatch,
    LatentSize,
    Sampler,
    Guider,
    Sigmas,
    ModelSampling,
    PickSeeds,
    Compare,
]


class ZImageExtension(ComfyExtension):
    async def on_load(self) -> None:
        warn_if_old()
        report.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ZImageExtension:
    return ZImageExtension()
