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
  zimage inspect Z-Image-Turbo --kind text_encoder --json"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="say what a checkpoint is",
        description="Say what a checkpoint is: its part, layout, number format, variant and geometry.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", help="a .safetensors file, an index of shards, or a folder")
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
        if name == "geometry":
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        print(f"{name:<13} {value}")
    return 0


def describe(info: CheckpointInfo) -> dict[str, Any]:
    geometry = info.config if isinstance(info.config, dict) else asdict(info.config)
    facts: dict[str, Any] = {
        "path": str(info.path),
        "kind": info.kind,
        "layout": info.layout,
        "quantization": info.quantization,
        "tensors": info.n_tensors,
        "parameters": info.n_parameters,
        "bytes": info.n_bytes,
        "geometry": geometry,
    }
    if info.told:
        facts["variant"] = info.told.name
        facts["told by"] = info.told.detail
    if len(info.parts) > 1:
        facts["also holds"] = ", ".join(part for part in info.parts if part != info.kind)
    return facts
