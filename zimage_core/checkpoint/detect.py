"""Recognise a checkpoint by its keys and shapes, from headers only, or explain what it is instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..variants import STATISTIC_KEY, VariantGuess, detect_variant, variant_in_name
from . import refusals
from .files import COMPONENT_FOLDERS, Checkpoint, open_checkpoint
from .geometry import Shapes, count, expected_shapes, geometry
from .layouts import LAYOUTS, find_layout
from .quantized import DENSE, FORMATS
from .storage import Source, sources

_NEARLY_ALL = 0.95
TITLES = {"transformer": "a Z-Image transformer", "text_encoder": "a Qwen3 text encoder", "vae": "a Flux-type VAE"}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is.

    kind           "transformer", "text_encoder" or "vae"
    layout         the key layout, a name in `layouts.py`
    quantization   how 95 % of the matrices are stored: "bfloat16", "float8_e4m3fn_scaled", "Q4_K", ...; else "mixed"
    told           Turbo or Base and how that was told; None for anything but a transformer
    config         the geometry that the shapes tell: S3DiTConfig, or keyword arguments for the module
    prefix         what every key of the component starts with
    formats        by layer group ("layers", "noise_refiner", "mlp", ...): parameters by storage format
    missing, unexpected, misshapen   canonical names in which the file differs from such a component
    sources        canonical names, and how each is stored
    parts          every kind that the file holds: several in an all-in-one checkpoint
    """

    path: Path
    kind: str
    layout: str
    quantization: str
    told: VariantGuess | None
    config: Any
    prefix: str = ""
    n_tensors: int = 0
    n_parameters: int = 0
    n_bytes: int = 0
    parts: tuple[str, ...] = ()
    formats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(Path(), {}), repr=False)

    @property
    def variant(self) -> str | None:
        """ "turbo" or "base"; None for anything but a transformer."""
        return self.told.name if self.told else None

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The formats in the file that this version recognises and does not load."""
        used = {part.format for source in self.sources.values() for part in source.parts}
        return tuple(sorted(name for name in used if name not in FORMATS or FORMATS[name].decode is None))


def inspect_checkpoint(path: str | Path, kind: str | None = None) -> CheckpointInfo:
    """Say what a checkpoint is, from headers only (and one small tensor where nothing else tells the variant).

    `kind` asks for one kind of a file that may hold several, or of a diffusers folder; without it the first one
    found is described. Raises CheckpointError, with what the file is instead, if it is none of them.
    """
    checkpoint = open_checkpoint(path, kind or _first_part(Path(path).expanduser()))
    foreign = refusals.foreign_format(checkpoint)
    if foreign:
        raise CheckpointError(f"{checkpoint.path.name} is {foreign}")
    found = {k: match for k in LAYOUTS if (match := find_layout(checkpoint.tensors, k))}
    if not found or (kind and kind not in found):
        raise CheckpointError(_explain(checkpoint, kind, tuple(found)))
    chosen = kind or next(iter(found))
    return _describe(checkpoint, chosen, *found[chosen], tuple(found))


def _describe(checkpoint: Checkpoint, kind: str, layout: str, prefix: str, parts: tuple[str, ...]) -> CheckpointInfo:
    relative = refusals.relative(checkpoint, kind, prefix)
    if relative:
        raise CheckpointError(f"{checkpoint.path.name} is not {TITLES[kind]}: it is {relative}")
    stored = sources(checkpoint, kind, layout, prefix)
    shapes = Shapes({name: source.shape for name, source in stored.items()}, checkpoint.path.name)
    config = geometry(kind, shapes, checkpoint)
    published = refusals.published(kind, config)
    if published:
        raise CheckpointError(f"{checkpoint.path.name} is not {TITLES[kind]} of Z-Image: it is {published}")
    expected = expected_shapes(kind, config)
    formats = _formats(stored)
    return CheckpointInfo(
        path=checkpoint.path,
        kind=kind,
        layout=layout,
        quantization=_quantization(stored),
        told=_variant(checkpoint, stored) if kind == "transformer" else None,
        config=config,
        prefix=prefix,
        n_tensors=len(stored),
        n_parameters=sum(prod(shape) for shape in shapes.values()),
        n_bytes=sum(checkpoint.tensors[key].size for source in stored.values() for key in source.keys),
        parts=parts,
        formats=formats,
        missing=tuple(name for name in expected if name not in stored),
        unexpected=tuple(name for name in stored if name not in expected),
        misshapen=tuple(n for n, shape in expected.items() if n in stored and not same_numbers(shapes[n], shape)),
        sources=stored,
        checkpoint=checkpoint,
    )


def same_numbers(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes differ in 1s only: a leading one that GGUF drops, a 1 x 1 convolution for a matrix."""
    return [n for n in a if n != 1] == [n for n in b if n != 1]


def _first_part(path: Path) -> str | None:
    """A diffusers folder is described by its transformer."""
    return "transformer" if path.is_dir() and (path / "transformer").is_dir() else None


def _quantization(stored: Mapping[str, Source]) -> str:
    """The format of nearly all the numbers in matrices, or "mixed": a few layers are always kept in more bits."""
    shares: dict[str, int] = {}
    for source in [source for source in stored.values() if len(source.shape) > 1] or stored.values():
        for part in source.parts:
            shares[part.title] = shares.get(part.title, 0) + prod(part.shape)
    name = max(shares, key=lambda title: shares[title])
    return name if shares[name] >= _NEARLY_ALL * sum(shares.values()) else "mixed"


def _formats(stored: Mapping[str, Source]) -> dict[str, dict[str, int]]:
    """Parameters by layer group and storage format, the larger share first."""
    groups: dict[str, dict[str, int]] = {}
    for name, source in stored.items():
        group = groups.setdefault(_group(name), {})
        for part in source.parts:
            group[part.title] = group.get(part.title, 0) + prod(part.shape)
    return {name: dict(sorted(group.items(), key=lambda item: -item[1])) for name, group in groups.items()}


def _group(name: str) -> str:
    """The layers of one depth are one group, and so is each thing that stands alone."""
    head, *rest = name.split(".")
    if head in ("layers", "noise_refiner", "context_refiner", "encoder", "decoder"):
        return head
    return head if rest else "pad tokens"


def _variant(checkpoint: Checkpoint, stored: Mapping[str, Source]) -> VariantGuess:
    told = detect_variant(scheduler=checkpoint.scheduler, metadata=checkpoint.metadata, name=_name(checkpoint))
    if told.source == "default":  # the one thing that is no header: a small tensor
        told = detect_variant(statistic=overflow_statistic(checkpoint, stored))
    return told


def _name(checkpoint: Checkpoint) -> str:
    """The name that speaks for a checkpoint: its own, or its folder's where its own is the same in every folder."""
    path = checkpoint.path.absolute()
    file = next(iter(checkpoint.tensors.values())).file.absolute()
    folder = file.parent.parent if file.parent.name in COMPONENT_FOLDERS.values() else file.parent
    names = [path.name, file.name] + ([folder.name] if file.name.startswith(("diffusion_pytorch", "model")) else [])
    return next((name for name in names if variant_in_name(name)), path.name)


def overflow_statistic(checkpoint: Checkpoint, stored: Mapping[str, Source]) -> float | None:
    """The standard deviation of the weight of `layers.{n - 2}.ffn_norm1`: below 0.42, float16 is believed safe."""
    source = stored.get(STATISTIC_KEY.format(max(count(stored, "layers") - 2, 0)))
    if source is None or source.parts[0].format not in DENSE:
        return None
    return float(checkpoint.reader()(source.parts[0].keys["data"]).float().std())


def _explain(checkpoint: Checkpoint, kind: str | None, found: tuple[str, ...]) -> str:
    wanted = TITLES[kind] if kind else "a Z-Image transformer, a Qwen3 text encoder or a Flux-type VAE"
    name = checkpoint.path.name
    title = refusals.other(checkpoint.tensors)
    if found and not title:
        return f"{name} is {TITLES[found[0]]}, not {wanted}"
    if title:
        return f"{name} is not {wanted}: it looks like {title}"
    keys = ", ".join(list(checkpoint.tensors)[:3]) or "nothing"
    return f"{name} is not {wanted}: it holds {len(checkpoint.tensors)} tensors ({keys}, ...) of no known kind"
