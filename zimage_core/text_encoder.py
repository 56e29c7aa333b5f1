"""Prompt -> caption features: Qwen3 through transformers, a template by hand, no padding."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint.detect import CheckpointInfo, inspect_checkpoint
from .checkpoint.files import read_json
from .checkpoint.gguf_file import tokenizer_parts
from .checkpoint.load import arithmetic_dtype, as_dtype, check, load_module, unused
from .errors import TokenizerError

log = logging.getLogger(__name__)

# Built by hand: some tokenizers' own chat templates add a system turn or a thinking block.
TEMPLATE = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
MAX_TOKENS = 512
# How Qwen2's tokenizer cuts text into words before byte-pair encoding.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_ADDED_TOKENS = (3, 4)  # GGUF's numbers for control tokens and for those that a user added


class TextEncoder:
    """Qwen3 without its last layer, and its tokenizer. `width` is the number of channels of the features."""

    def __init__(self, model: Any, tokenizer: Any, info: CheckpointInfo, dtype: torch.dtype) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.info = info
        self.dtype = dtype
        self.width: int = info.config["hidden_size"]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], max_tokens: int = MAX_TOKENS) -> list[Tensor]:
        """Caption features `[L_i, width]` of each prompt: the hidden state before the last layer.

        Each prompt runs alone and unpadded, so that its features never depend on the others. A prompt of more than
        `max_tokens` tokens with its template is cut within the user's text (the official pipeline's limit is 512).
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a list of prompts, not a string: write encode([prompt])")
        return [self._features(self.token_ids(prompt, max_tokens)) for prompt in prompts]

    def _features(self, ids: list[int]) -> Tensor:
        embedded = self.model.embed_tokens(torch.tensor([ids], device=self.device)).to(self.dtype)
        return self.model(inputs_embeds=embedded, use_cache=False)[0][0]

    def token_ids(self, prompt: str, max_tokens: int = MAX_TOKENS) -> list[int]:
        """The tokens of a prompt within the template; a long prompt loses its own end, never the template's."""
        ids: list[int] = self._ids(TEMPLATE[0] + prompt + TEMPLATE[1])
        surplus = len(ids) - max_tokens
        if surplus <= 0:
            return ids
        head, tail = (len(self._ids(part)) for part in TEMPLATE)
        if max_tokens < head + tail:
            raise ValueError(f"max_tokens is {max_tokens}: the template alone takes {head + tail}")
        log.warning("the prompt is %d tokens longer than the limit of %d: its end is cut off", surplus, max_tokens)
        return ids[: max_tokens - tail] + ids[-tail:]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def load_text_encoder(
    path: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    tokenizer: str | Path | None = None,
) -> TextEncoder:
    """Load a Qwen3 text encoder from a file, shards or a diffusers folder, without its last layer and norm.

    `tokenizer` is a folder or a tokenizer.json; without it, the usual places are searched (`find_tokenizer`), and a
    GGUF file's own tokenizer serves where none lies beside it.
    Raises CheckpointError if the file is something else, TokenizerError if no tokenizer is found.
    """
    info = inspect_checkpoint(path, kind="text_encoder")
    used = info.config["num_hidden_layers"] - 1
    spare = unused(info)
    check(info, spare)  # before a tokenizer is looked for: what is wrong with the file matters more
    found = _tokenizer_of(info, tokenizer)
    device = torch.device(device)
    # float16 overflows in Qwen3's massive activations, so without bfloat16 it is float32.
    compute = arithmetic_dtype(device) if dtype == "auto" else as_dtype(dtype)
    model = load_module(lambda: _qwen3(info.config, used), info, device, compute, dtype == "auto", spare)
    _materialise_rope(model, device)
    log.info("loaded %s: %d layers, %s on %s", info.path.name, used, compute, device)
    return TextEncoder(model, found, info, compute)


def _qwen3(config: dict[str, Any], n_layers: int) -> nn.Module:
    from transformers.models.qwen3 import Qwen3Config, Qwen3Model

    model: Any = Qwen3Model(Qwen3Config(**(config | {"num_hidden_layers": n_layers})))
    model.norm = nn.Identity()  # the features are taken before the final norm
    return model


def _materialise_rope(model: Any, device: torch.device) -> None:
    """The one thing in the model that no file holds: it was computed on the meta device, and is made again here."""
    model.rotary_emb = type(model.rotary_emb)(config=model.config).to(device)


def _tokenizer_of(info: CheckpointInfo, given: str | Path | None) -> Any:
    """The given one, or the GGUF file's own, or the nearest; checked, since another model's would only draw badly."""
    inside = tokenizer_parts(dict(info.checkpoint.metadata)) if given is None else None
    if inside is None or info.checkpoint.metadata.get("tokenizer.ggml.model") != "gpt2":
        place = find_tokenizer(info.path, given)
        found = load_tokenizer(place)
        _check_tokenizer(found, place, info)
        return found
    tokens, merges, types = inside
    special = {token: i for i, (token, kind) in enumerate(zip(tokens, types)) if kind in _ADDED_TOKENS}
    vocab = {token: i for i, token in enumerate(tokens) if token not in special}
    return byte_level_bpe(vocab, [tuple(merge.split(" ")) for merge in merges], special)


def _check_tokenizer(tokenizer: Any, place: Path, info: CheckpointInfo) -> None:
    """The template's own words must be single tokens that the encoder has."""
    for word in ("<|im_start|>", "<|im_end|>"):
        ids = tokenizer.encode(word, add_special_tokens=False).ids
        if ids != [tokenizer.token_to_id(word)] or ids[0] >= info.config["vocab_size"]:
            raise TokenizerError(
                f"{place} is not the tokenizer of {info.path.name}: {word} is no token that the encoder has; put its "
                f"own tokenizer.json, or vocab.json and merges.txt, beside it in a folder named tokenizer"
            )


def find_tokenizer(encoder: Path, given: str | Path | None = None) -> Path:
    """The tokenizer's folder: the given one, beside the encoder, in its diffusers folder, or in a ComfyUI.

    Raises TokenizerError with every place that was searched.
    """
    if given is not None:
        path = Path(given).expanduser()
        for place in (path, path / "tokenizer"):
            if _is_tokenizer(place):
                return place
        raise TokenizerError(
            f"there is no tokenizer at {path}: it must hold tokenizer.json, or vocab.json and merges.txt"
        )
    places = list(dict.fromkeys(_places(encoder)))
    for place in places:
        if _is_tokenizer(place):
            return place
    raise TokenizerError(
        "no Qwen tokenizer was found: it is tokenizer.json, or vocab.json and merges.txt, and it was looked for in "
        + ", ".join(str(p) for p in places)
        + "; give its folder as the tokenizer"
    )


def _near(encoder: Path) -> list[Path]:
    folder = encoder.absolute() if encoder.is_dir() else encoder.absolute().parent
    return [folder, folder / "tokenizer", folder.parent / "tokenizer"]


def _places(encoder: Path) -> list[Path]:
    encoder = encoder.absolute()
    # A file in ComfyUI/models/text_encoders, this pack in ComfyUI/custom_nodes, or a ComfyUI where people keep one.
    around = [*encoder.parents, *Path(__file__).absolute().parents[2:5]]
    usual = [Path(value) for name in ("COMFYUI_DIR", "COMFYUI_PATH") if (value := os.environ.get(name))]
    usual += [Path.cwd(), Path.cwd() / "ComfyUI", Path.home() / "ComfyUI", Path.home() / "comfy" / "ComfyUI"]
    inside = Path("comfy", "text_encoders", "qwen25_tokenizer")
    # Most folders around are no ComfyUI, and would only lengthen the list of what was searched.
    return _near(encoder) + [r / inside for r in around if (r / inside).is_dir()] + [r / inside for r in usual]


def _is_tokenizer(path: Path) -> bool:
    if path.is_file():
        return path.name == "tokenizer.json"
    return (path / "tokenizer.json").is_file() or ((path / "vocab.json").is_file() and (path / "merges.txt").is_file())


def load_tokenizer(path: Path) -> Any:
    """A `tokenizers.Tokenizer` from tokenizer.json, or from vocab.json, merges.txt and tokenizer_config.json."""
    from tokenizers import Tokenizer

    file = path if path.is_file() else path / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more specific
            raise TokenizerError(f"{file} is not a tokenizer that can be read: {error}") from error
    vocab = read_json(path / "vocab.json")
    lines = (path / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    added = read_json(path / "tokenizer_config.json").get("added_tokens_decoder", {})
    special = {entry["content"]: int(index) for index, entry in added.items()}
    return byte_level_bpe(vocab, merges, special)


def byte_level_bpe(vocab: dict[str, int], merges: list[Any], special: dict[str, int]) -> Any:
    """Qwen2's tokenizer from its parts. `special` maps added tokens to the ids that they must get."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    special = special or {token: len(vocab) + i for i, token in enumerate(_SPECIAL)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab | special, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer
