"""What a converted file will hold: every tensor's new name, format and place, planned from headers and scales only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import carried, ggml
from .detect import TITLES, CheckpointInfo
from .encode import beside
from .geometry import expected_shapes
from .layouts import file_keys
from .load import Reader, check, unused
from .quantized import DENSE, FORMATS
from .storage import Source
from .writers import Entry


@dataclass(frozen=True)
class Form:
    """A number format that files are converted to.

    matrices   the format of the matrices, a name in quantized.FORMATS; of every tensor where that is dense
    scaled     whether each matrix has a scale
    suffix     of the file that holds it
    """

    matrices: str
    scaled: bool = False
    suffix: str = ".safetensors"

    @property
    def title(self) -> str:
        return _title(self.matrices, self.scaled)

    @property
    def dense(self) -> bool:
        return self.matrices in DENSE


FORMS = {
    "bf16": Form("BF16"),
    "fp16": Form("F16"),
    "fp8": Form("F8_E4M3"),
    "fp8-scaled": Form("F8_E4M3", scaled=True),
    "q8_0": Form("Q8_0", suffix=".gguf"),
}

# Which matrices stay in 16 bits where the others are quantised: a group, its canonical names, and why. Whatever is no
# matrix does so too.
KEPT: dict[str, list[tuple[str, str, str]]] = {
    "transformer": [
        ("embedders", r"(x|cap|t)_embedder\..+", "all of the picture, the text and the time goes through them"),
        ("modulation", r".+\.adaLN_modulation\..+", "a few inputs scale and gate whole layers"),
        ("final layer", r"final_layer\..+", "its error is seen in the picture as it is"),
    ],
    "text_encoder": [("token table", r"embed_tokens\..+", "hosts look rows up in it and expect it plain")],
    "vae": [],
}
# Groups that are no matrices, for the report.
_OTHERS = [
    ("biases", r".+\.bias"),
    ("pad tokens", r".+_pad_token"),
    ("norms", r"(.+[._])?(norm\d?|\w+layernorm)\.weight|cap_embedder\.0\..+"),
]

# By kind and suffix: what a layout is called, its name in layouts.py, and what its keys begin with.
LAYOUTS: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    ("transformer", ".safetensors"): {"original": ("original", ""), "diffusers": ("diffusers", "")},
    ("transformer", ".gguf"): {"original": ("original", "")},
    ("text_encoder", ".safetensors"): {"original": ("transformers", "model."), "diffusers": ("transformers", "model.")},
    ("text_encoder", ".gguf"): {"original": ("llama.cpp", "")},
    ("vae", ".safetensors"): {"original": ("ldm", ""), "diffusers": ("diffusers", "")},
}
_SCALABLE = ("F8_E4M3", "F8_E5M2")
_HOLDS = {".safetensors": {*DENSE, *_SCALABLE}, ".gguf": set(ggml.TYPES)}


@dataclass(frozen=True)
class Target:
    """What is asked for: a Form or None for the stored numbers as they are, and how the keys are to be named."""

    form: Form | None
    suffix: str
    layout: str
    prefix: str
    everything: bool


@dataclass(frozen=True)
class Step:
    """What becomes of one canonical tensor.

    group     what it is counted under
    keys      in the new file; several have its rows in equal shares
    format    in the new file, a name in quantized.FORMATS
    scaled    whether there are scales beside it
    copied    whether its stored numbers are kept, bit for bit
    """

    name: str
    group: str
    shape: tuple[int, ...]
    source: Source
    keys: tuple[str, ...]
    format: str
    scaled: bool
    copied: bool

    @property
    def title(self) -> str:
        return _title(self.format, self.scaled)

    @property
    def shares(self) -> list[tuple[str, int, int]]:
        """Each key, and its rows from and to."""
        rows = self.source.shape[0] // len(self.keys)
        return [(key, i * rows, (i + 1) * rows) for i, key in enumerate(self.keys)]


@dataclass(frozen=True)
class Plan:
    """A file to be written.

    title      of its number format
    entries    its tensors
    constants  those of them that are known already: marks, and scales that are kept
    notes      what its owner should know
    """

    info: CheckpointInfo
    target: Target
    title: str
    steps: tuple[Step, ...]
    entries: Mapping[str, Entry]
    constants: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        return sum(entry.size for entry in self.entries.values())


def plan(
    info: CheckpointInfo,
    suffix: str,
    to: str | None = None,
    layout: str | None = None,
    everything: bool = False,
    tokenizer: Any = None,
) -> Plan:
    """What a file with this suffix will hold, from headers and scales only.

    to           a name in FORMS; None keeps every tensor's stored numbers
    layout       "original" (the default) or "diffusers"
    everything   also quantise the matrices that would stay in 16 bits
    tokenizer    a `tokenizers.Tokenizer` for a text encoder's GGUF file

    Raises CheckpointError if the checkpoint cannot be loaded, ValueError for what cannot be made of it.
    """
    check(info, unused(info))
    target = _target(info, suffix, to, layout, everything)
    read = info.checkpoint.reader()
    steps, entries, constants = [], {}, {}
    for name, shape in expected_shapes(info.kind, info.config).items():
        if name in info.sources:
            step = _step(info, name, shape, target, read)
            steps.append(step)
            for key, entry, constant in _entries(step, target, read):
                entries[key] = entry
                if constant is not None:
                    constants[key] = constant
    title = target.form.title if target.form else info.quantization
    if suffix == ".gguf":
        metadata: dict[str, Any] = carried.gguf_metadata(info, _most(steps), tokenizer)
    else:
        metadata = dict(carried.safetensors_metadata(info))
    made = Plan(info, target, title, tuple(steps), entries, constants, metadata)
    return replace(made, notes=tuple(_notes(made)))


# What is asked for.


def _target(info: CheckpointInfo, suffix: str, to: str | None, layout: str | None, everything: bool) -> Target:
    form = FORMS[to] if to else None
    if form and suffix != form.suffix:
        raise ValueError(f"--to {to} makes a {form.suffix} file: give the new file that suffix")
    if suffix not in _HOLDS:
        raise ValueError("the new file's suffix is .safetensors or .gguf")
    if everything and (form is None or form.dense):
        raise ValueError("--all goes with --to fp8, fp8-scaled or q8_0: nothing else is quantised")
    known = LAYOUTS.get((info.kind, suffix))
    if known is None or (info.kind == "vae" and form and not form.dense):
        raise ValueError(f"{info.path.name} is {TITLES['vae']}, which has no quantised form: use --to bf16 or fp16")
    if layout and layout not in known:
        raise ValueError(f"a {suffix} file of {TITLES[info.kind]} has one layout only: leave out --layout {layout}")
    return Target(form, suffix, *known[layout or "original"], everything)


def _step(info: CheckpointInfo, name: str, shape: tuple[int, ...], target: Target, read: Reader) -> Step:
    source = info.sources[name]
    levels = len(info.config["block_out_channels"]) if info.kind == "vae" else 0
    keys = tuple(target.prefix + key for key in file_keys(name, info.kind, target.layout, levels))
    step = Step(name, group(info.kind, name), shape, source, keys, source.parts[0].format, _scaled(source), copied=True)
    if target.form is None:
        _require_held(step, target.suffix, info.path.name)
        return step
    wanted, scaled = _wanted(info.kind, name, shape, source, target)
    if _formats(source) == {(wanted, scaled)} and all(s.numel() == 1 for s in _scales(step, read).values()):
        return step
    return replace(step, format=wanted, scaled=scaled, copied=False)


def _wanted(kind: str, name: str, shape: tuple[int, ...], source: Source, target: Target) -> tuple[str, bool]:
    """The format that a tensor is to have, and whether with a scale."""
    form = target.form
    assert form is not None
    if form.dense:
        return form.matrices, False
    # What is quantised that way already gains nothing by more bits.
    already = _is_matrix(shape) and _formats(source) == {(form.matrices, form.scaled)}
    if (already or _chosen(kind, name, shape, target)) and _whole_blocks(form, shape):
        return form.matrices, form.scaled
    if target.suffix == ".gguf" and not _is_matrix(shape):
        return "F32", False
    return ("F16" if _formats(source) == {("F16", False)} else "BF16"), False


def _chosen(kind: str, name: str, shape: tuple[int, ...], target: Target) -> bool:
    return _is_matrix(shape) and (target.everything or kept(kind, name) is None)


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Pad tokens, which are single rows, are none."""
    return len(shape) == 2 and min(shape) > 1


def kept(kind: str, name: str) -> str | None:
    """The group in KEPT that a canonical tensor is in."""
    return next((title for title, pattern, _ in KEPT[kind] if re.fullmatch(pattern, name)), None)


def group(kind: str, name: str) -> str:
    """What a tensor is counted under: the matrices of one place in all layers are one group."""
    if kind == "vae":
        return name.partition(".")[0]
    other = next((title for title, pattern in _OTHERS if re.fullmatch(pattern, name)), None)
    return other or kept(kind, name) or ".".join(name.split(".")[-3:-1])


def _whole_blocks(form: Form, shape: tuple[int, ...]) -> bool:
    return form.matrices not in ggml.TYPES or shape[-1] % ggml.TYPES[form.matrices].weights == 0


def _title(name: str, scaled: bool) -> str:
    return FORMATS[name].title + ("_scaled" if scaled else "")


def _formats(source: Source) -> set[tuple[str, bool]]:
    return {(part.format, "scale" in part.keys) for part in source.parts}


def _scaled(source: Source) -> bool:
    return "scale" in source.parts[0].keys


def _require_held(step: Step, suffix: str, file: str) -> None:
    """Raise ValueError unless a file of this kind can hold the stored numbers as they are."""
    titles = " and ".join(sorted({part.title for part in step.source.parts}))
    if step.format not in _HOLDS[suffix] or (step.scaled and suffix == ".gguf"):
        other = next(other for other in _HOLDS if other != suffix)
        way = "--to q8_0" if suffix == ".gguf" else "--to bf16"
        raise ValueError(f"{file} holds {titles}, which a {suffix} file cannot: name a {other} file, or add {way}")
    if len(_formats(step.source)) > 1:
        raise ValueError(f"{file} holds the parts of {step.name} as {titles}, which cannot be one tensor: add --to")


# What the new file will hold.


def _entries(step: Step, target: Target, read: Reader) -> Iterator[tuple[str, Entry, Tensor | None]]:
    """The tensors that a step writes, and those of their values that are known."""
    first, *others = step.shape
    if target.layout == "ldm" and re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight$", step.keys[0]):
        others += [1, 1]  # in this layout the attention's matrices are 1 x 1 convolutions
    scales = _scales(step, read) if step.copied else {}
    for key in step.keys:
        yield key, Entry(step.format, (first // len(step.keys), *others)), None
        if step.scaled:
            scale = scales.get(key)
            yield beside(key, "weight_scale"), Entry("F32", () if scale is None else tuple(scale.shape)), scale
            mark = torch.tensor(list(_mark(step).encode()), dtype=torch.uint8)
            yield beside(key, "comfy_quant"), Entry("U8", tuple(mark.shape)), mark
            if (inputs := _input_scale(step, read)) is not None:
                yield beside(key, "input_scale"), Entry("F32", ()), inputs


def _mark(step: Step) -> str:
    """ComfyUI's word on how a layer is stored."""
    options = [part.options for part in step.source.parts] if step.copied else []
    full = any(option.get("full_precision_matrix_mult") for option in options)
    mark: dict[str, Any] = {"format": FORMATS[step.format].comfy}
    return json.dumps(mark | ({"full_precision_matrix_mult": True} if full else {}))


def _scales(step: Step, read: Reader) -> dict[str, Tensor]:
    """The stored scales by the new file's keys: [] if one serves all of a key's rows, else [rows, 1]."""
    if not _scaled(step.source):
        return {}
    stored = [(read(part.keys["scale"]).float().reshape(-1), part.shape[0]) for part in step.source.parts]
    rows = torch.cat([scale.expand(n) for scale, n in stored])
    shares = {key: rows[start:stop] for key, start, stop in step.shares}
    return {key: s[0].clone() if bool((s == s[0]).all()) else s.reshape(-1, 1) for key, s in shares.items()}


def _input_scale(step: Step, read: Reader) -> Tensor | None:
    """The stored scale of a layer's inputs, if its parts agree on one."""
    if not step.copied or not all("input_scale" in part.keys for part in step.source.parts):
        return None
    scales = [read(part.keys["input_scale"]).float().flatten() for part in step.source.parts]
    agreed = all(s.numel() == 1 and torch.equal(s, scales[0]) for s in scales)
    return scales[0].reshape(()) if agreed else None


def _most(steps: Iterable[Step]) -> str:
    """The format of the larger part of the numbers."""
    sizes: dict[str, int] = {}
    for step in steps:
        sizes[step.format] = sizes.get(step.format, 0) + math.prod(step.shape)
    return max(sizes, key=lambda name: sizes[name])


def _notes(plan: Plan) -> Iterator[str]:
    info, target = plan.info, plan.target
    by_rows = [key for key, tensor in plan.constants.items() if key.endswith(".weight_scale") and tensor.ndim]
    if by_rows:
        yield (
            f"{len(by_rows)} matrices get a scale for each row, because their parts have different ones: ComfyUI's own "
            f"loader does not read that, this engine and its nodes do (for one scale each, add --to fp8-scaled)"
        )
    if target.layout == "diffusers" and any(step.scaled for step in plan.steps):
        yield "ComfyUI's own loader loses the attention's scales in this layout: use --layout original for it"
    if target.form and not target.form.dense:
        form, chosen = target.form, [s for s in plan.steps if _chosen(info.kind, s.name, s.shape, target)]
        if short := [step for step in chosen if not _whole_blocks(form, step.shape)]:
            where, block = ", ".join(dict.fromkeys(step.group for step in short)), ggml.TYPES[form.matrices].weights
            yield f"{len(short)} matrices ({where}) stay in 16 bits: their rows are not whole blocks of {block} numbers"
    if lost := carried.lost(info, plan.metadata):
        place = next(iter(info.checkpoint.tensors.values())).file.with_name("config.json")
        yield f"the file itself cannot say {', '.join(lost)}: copy {place} beside it, alone in its folder"
    if target.suffix == ".gguf" and _lacks_tokenizer(plan):
        yield "no tokenizer lies beside the source, so none is in the file: llama.cpp needs one, image programs do not"
    if info.told and info.told.source in carried.GUESSED:
        yield f"{info.told.variant.title} is {info.told.detail}, and the file will not say it: --variant writes it down"
    if len(info.parts) > 1:
        others = ", ".join(part for part in info.parts if part != info.kind)
        yield f"only the {info.kind} was taken; the source also holds {others} (--kind)"


def _lacks_tokenizer(plan: Plan) -> bool:
    return plan.info.kind == "text_encoder" and "tokenizer.ggml.tokens" not in plan.metadata
