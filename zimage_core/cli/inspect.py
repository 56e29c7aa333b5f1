"""`zimage inspect`: what a file is, from its header."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .common import input_errors

if TYPE_CHECKING:
    from ..checkpoint.detect import CheckpointInfo

EXAMPLE = """examples:
  zimage inspect z_image_turbo_bf16.safetensors
  zimage inspect Z-Image-Turbo --kind text_encoder --json
  zimage inspect z_image_turbo-Q4_K_M.gguf"""
SHOWN = 8


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="say what a checkpoint is",
        description="Say what a checkpoint is: its part, layout, number format, variant and geometry.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", help="a .safetensors or .gguf file, an index of shards, or a folder")
    parser.add_argument("--kind", choices=("transformer", "text_encoder", "vae"), help="one part of several")
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")


def run(args: argparse.Namespace) -> int:
    from ..checkpoint.detect import inspect_checkpoint

    with input_errors():
        facts = describe(inspect_checkpoint(args.file, args.kind))
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        for i, line in enumerate(_lines(name, value)):
            print(f"{name if i == 0 else '':<13} {line}")
    return 0


def describe(info: CheckpointInfo) -> dict[str, Any]:
    geometry = info.config if isinstance(info.config, dict) else asdict(info.config)
    facts: dict[str, Any] = {
        "path": str(info.path),
        "kind": info.kind,
        "layout": info.layout,
        "quantization": info.quantization,
        "stored as": {group: dict(formats) for group, formats in info.formats.items()},
        "tensors": info.n_tensors,
        "parameters": info.n_parameters,
        "bytes": info.n_bytes,
        "geometry": geometry,
    }
    if info.told:
        facts["variant"] = info.told.name
        facts["told by"] = info.told.detail
    if len(info.parts) > 1:
        facts["also holds"] = [part for part in info.parts if part != info.kind]
    for what in ("missing", "unexpected", "misshapen", "unreadable"):
        facts |= {what: list(names)} if (names := getattr(info, what)) else {}
    return facts


def _lines(name: str, value: Any) -> list[str]:
    """A fact as a person reads it."""
    if name == "stored as":
        alike: dict[str, list[str]] = {}
        for group, formats in value.items():
            alike.setdefault(_shares(formats), []).append(group)
        return [f"{shares}: {', '.join(groups)}" for shares, groups in alike.items()]
    if name == "geometry":
        return [", ".join(f"{key} {number}" for key, number in value.items())]
    if isinstance(value, list):
        return [", ".join(value[:SHOWN]) + (f" and {len(value) - SHOWN} more" if len(value) > SHOWN else "")]
    return [f"{value:,}" if isinstance(value, int) else str(value)]


def _shares(formats: dict[str, int]) -> str:
    total = sum(formats.values()) or 1
    return ", ".join(f"{name} {n / total:.1%}" if len(formats) > 1 else name for name, n in formats.items())
