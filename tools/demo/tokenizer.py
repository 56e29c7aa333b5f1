"""The demo's tokenizer: byte-level BPE in Qwen2's file form, with just the merges its captions need."""

from __future__ import annotations

import json
from pathlib import Path

import captions

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def train_merges() -> tuple[dict[str, int], list[str]]:
    """Each word alone, so that no merge crosses a word: Chinese has no spaces to keep words apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(([word] for word in captions.words()), trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return dict(sorted(model["vocab"].items(), key=lambda item: item[1])), merges


def write(folder: Path) -> int:
    """Writes vocab.json, merges.txt and tokenizer_config.json; returns the number of ids, special ones included."""
    vocab, merges = train_merges()
    folder.mkdir(parents=True, exist_ok=True)
    added = {
        str(len(vocab) + i): {
            "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True,
        }
        for i, token in enumerate(SPECIAL)
    }  # fmt: skip
    config = {
        "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 4096, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    texts = {
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return len(vocab) + len(SPECIAL)


def load(folder: Path):
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)


def encode(tokenizer, prompt: str) -> list[int]:
    return tokenizer(TEMPLATE.format(prompt=prompt))["input_ids"]
