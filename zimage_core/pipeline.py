"""Prompt -> picture, with nothing hidden: encode, sample, decode."""

from __future__ import annotations

import logging
import math
import operator
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpoint.detect import inspect_checkpoint
from .checkpoint.files import COMPONENT_FOLDERS
from .checkpoint.load import load_transformer
from .errors import CheckpointError
from .guidance import cfg_from_guidance
from .model import S3DiT
from .sampling import MAX_SEED, SOLVERS, Step, forwards, sample, seeded_noise
from .schedule import sigmas
from .sizes import check_size
from .text_encoder import TextEncoder, load_text_encoder
from .vae import VAE, load_vae
from .variants import Variant, notes

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

MAX_STEPS = 10_000
MAX_COUNT = 1_000_000
DEMO = Path(__file__).parent / "demo"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a picture, resolved. `guidance` is the official scale, cfg - 1; both are recorded."""

    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    cfg: float
    guidance: float
    cfg_normalization: float
    cfg_truncation: float
    shift: float
    seed: int
    solver: str
    forwards: int
    variant: str
    variant_source: str
    model: str


class ZImagePipeline:
    """The three parts of a Z-Image model, and `generate`.

    `default_size` is what `generate` draws without a size: 1024 x 1024, or 128 x 128 for the demo model.
    """

    def __init__(
        self, transformer: S3DiT, text_encoder: TextEncoder, vae: VAE, default_size: tuple[int, int] = (1024, 1024)
    ) -> None:
        if text_encoder.width != transformer.config.cap_feat_dim:
            raise CheckpointError(
                f"{text_encoder.info.path.name} gives features of width {text_encoder.width} and "
                f"{transformer.info.path.name} takes {transformer.config.cap_feat_dim}: they belong to different models"
            )
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.vae = vae
        self.default_size = default_size

    @property
    def variant(self) -> Variant:
        return self.transformer.info.told.variant

    @classmethod
    def from_files(
        cls,
        transformer: str | Path,
        text_encoder: str | Path,
        vae: str | Path,
        *,
        tokenizer: str | Path | None = None,
        variant: str = "auto",
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "cpu",
        default_size: tuple[int, int] = (1024, 1024),
    ) -> ZImagePipeline:
        """Load the three parts from a file or folder each. `dtype` is that of the transformer and the text encoder."""
        return cls(
            load_transformer(transformer, dtype, device, variant),
            load_text_encoder(text_encoder, dtype, device, tokenizer),
            load_vae(vae, device=device),
            default_size,
        )

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> ZImagePipeline:
        """Load a diffusers folder with `transformer`, `text_encoder` and `vae`, or one file that holds all three.

        Options are those of `from_files`.
        """
        folder = Path(folder).expanduser()
        if folder.is_file():
            held = inspect_checkpoint(folder).parts
            absent = [kind for kind in COMPONENT_FOLDERS if kind not in held]
            if absent:
                lack = f"holds {' and '.join(held)} and no {' and no '.join(absent)}"
                raise CheckpointError(f"{folder.name} {lack}: give it as the {held[0]}, with the other parts")
            return cls.from_files(folder, folder, folder, **options)
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder} is not there; a model is a diffusers folder, or a file with all three parts"
            )
        missing = [name for name in COMPONENT_FOLDERS.values() if not (folder / name).is_dir()]
        if missing:
            raise CheckpointError(f"{folder} is not a diffusers folder: it has no {' and no '.join(missing)} in it")
        return cls.from_files(folder, folder, folder, **options)

    def generate(
        self,
        prompt: str | Sequence[str],
        negative: str | Sequence[str] | None = "",
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        guidance: float | None = None,
        cfg_normalization: float = 0.0,
        cfg_truncation: float = 1.0,
        shift: float | None = None,
        seed: int | None = None,
        count: int = 1,
        solver: str = "euler",
        callback: Callable[[int, Step], None] | None = None,
        on_picture: Callable[[int, Image], None] | None = None,
    ) -> list[Image]:
        """Draw `count` pictures of each prompt; what is None is the variant's own.

        prompt     one or several; the pictures come prompt by prompt
        negative   one for all or one for each prompt; used where cfg is not 1
        width, height   multiples of 16
        cfg        ComfyUI's scale; or `guidance`, the official one (cfg = guidance + 1), not both
        seed       of the first picture; picture i of the list has seed + i. None draws one
        callback   called with the picture's index and a `Step` after each forward of the model
        on_picture called with each picture as soon as it is there

        Picture i of seed s is exactly the picture of seed s + i alone: noise is drawn on the CPU for each picture by
        itself, and pictures run one by one, since batching changes rounding and saves a large model next to nothing.
        Each picture's `.info["zimage"]` is its `Settings` as a dictionary. Raises ValueError for settings that
        cannot be run; what is unusual for the variant is run as set and noted in the log.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negative = negative or ""
        negatives = [negative] * len(prompts) if isinstance(negative, str) else list(negative)
        if len(negatives) != len(prompts):
            raise ValueError(
                f"{len(negatives)} negatives for {len(prompts)} prompts: give one for all, or one for each"
            )
        first = self.resolve(
            width=width, height=height, steps=steps, cfg=cfg, guidance=guidance, shift=shift, seed=seed, count=count,
            cfg_normalization=cfg_normalization, cfg_truncation=cfg_truncation, solver=solver,
        )  # fmt: skip
        for note in notes(self.variant, first.cfg, any(negatives)):
            log.warning(note)
        pictures: list[Image] = []
        for text, other in zip(prompts, negatives):
            captions = self.text_encoder.encode([text])
            negative_captions = self.text_encoder.encode([other]) if first.cfg != 1 else None
            for _ in range(count):
                index = len(pictures)
                seed = (first.seed + index) % (MAX_SEED + 1)
                settings = replace(first, prompt=text, negative=other, seed=seed)
                pictures.append(self._draw(settings, captions, negative_captions, index, callback))
                if on_picture is not None:
                    on_picture(index, pictures[-1])
        return pictures

    def resolve(
        self,
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        guidance: float | None = None,
        cfg_normalization: float = 0.0,
        cfg_truncation: float = 1.0,
        shift: float | None = None,
        seed: int | None = None,
        count: int = 1,
        solver: str = "euler",
    ) -> Settings:
        """The settings that `generate` would run, with the variant's defaults filled in; ValueError if it cannot."""
        variant = self.variant
        if cfg is not None and guidance is not None:
            raise ValueError(f"both cfg {cfg:g} and guidance {guidance:g} are set: give one (cfg = guidance + 1)")
        if guidance is not None:
            _check("guidance", guidance, 0, math.inf, "0 turns guidance off")
            cfg = cfg_from_guidance(guidance)
        cfg = variant.cfg if cfg is None else float(cfg)
        _check("cfg", cfg, 1, math.inf, "1 turns guidance off")
        _check("cfg normalisation", cfg_normalization, 0, math.inf, "0 is off, 1 is usual")
        _check("cfg truncation", cfg_truncation, 0, 1, "1 is off")
        width = self.default_size[0] if width is None else _whole("width", width)
        height = self.default_size[1] if height is None else _whole("height", height)
        check_size(width, height)
        _check("count", _whole("count", count), 1, MAX_COUNT, "how many pictures")
        if solver not in SOLVERS:
            raise ValueError(f"there is no solver {solver!r}; there are {', '.join(SOLVERS)}")
        seed = secrets.randbelow(2**32) if seed is None else _whole("seed", seed)
        _check("seed", seed, 0, MAX_SEED, "any whole number from 0")
        steps = variant.steps if steps is None else _whole("steps", steps)
        _check("steps", steps, 1, MAX_STEPS, "8 for Turbo, 28 to 50 for Base")
        shift = variant.shift if shift is None else float(shift)
        sigmas(1, shift)  # says what is wrong with it
        info = self.transformer.info
        return Settings(
            prompt="", negative="", width=width, height=height, steps=steps, cfg=cfg, guidance=round(cfg - 1, 6),
            cfg_normalization=cfg_normalization, cfg_truncation=cfg_truncation, shift=shift, seed=seed, solver=solver,
            forwards=forwards(solver, steps), variant=info.told.name, variant_source=info.told.source,
            model=info.path.name,
        )  # fmt: skip

    def _draw(
        self,
        settings: Settings,
        captions: list[Tensor],
        negative: list[Tensor] | None,
        index: int,
        callback: Callable[[int, Step], None] | None,
    ) -> Image:
        steps = sample(
            self.transformer,
            noise(settings.seed, settings.width, settings.height).to(self.transformer.device),
            sigmas(settings.steps, settings.shift),
            captions,
            negative=negative,
            cfg=settings.cfg,
            cfg_normalization=settings.cfg_normalization,
            cfg_truncation=settings.cfg_truncation,
            solver=settings.solver,
        )
        for step in steps:
            if callback is not None:
                callback(index, step)
        image = to_pil(self.vae.decode(step.latents))[0]
        image.info["zimage"] = asdict(settings)
        return image


def _check(name: str, value: float, least: float, most: float, hint: str) -> None:
    if not (least <= value <= most and math.isfinite(value)):
        top = f" and at most {most:g}" if math.isfinite(most) else ""
        raise ValueError(f"{name} is {value:.15g}: it must be at least {least:g}{top} ({hint})")


def _whole(name: str, value: int) -> int:
    """Any kind of integer as Python's own."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}: it must be a whole number") from None


def noise(seed: int, width: int, height: int) -> Tensor:
    """The noise of one picture, `[1, 16, height / 8, width / 8]`."""
    return seeded_noise(seed, (1, 16, height // 8, width // 8))


def to_pil(images: Tensor) -> list[Image]:
    """Images `[B, 3, H, W]` in [0, 1] -> Pillow pictures."""
    from PIL import Image

    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def demo_pipeline(name: str = "turbo", **options: Any) -> ZImagePipeline:
    """The embedded demo model, which draws simple shapes: "turbo" or "base"; options as for `from_files`."""
    if name not in ("turbo", "base"):
        raise ValueError(f"there is no demo model {name!r}; there are turbo and base")
    return ZImagePipeline.from_files(
        DEMO / f"demo_{name}.safetensors",
        DEMO / "demo_text_encoder.safetensors",
        DEMO / "demo_vae.safetensors",
        **({"default_size": (128, 128)} | options),
    )
