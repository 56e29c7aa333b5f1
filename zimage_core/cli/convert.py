"""`zimage convert`: a checkpoint in another number format or another key layout, as one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import InputError, Progress, input_errors
from .download import size_text

if TYPE_CHECKING:
    from ..checkpoint.convert import Result
    from ..checkpoint.detect import CheckpointInfo
    from ..checkpoint.plan import Plan

EXAMPLE = """examples:
  zimage convert z_image_turbo_bf16.safetensors z_image_turbo_fp8.safetensors --to fp8-scaled
  zimage convert z_image_turbo_bf16.safetensors z_image_turbo_q8_0.gguf --to q8_0
  zimage convert Z-Image-Turbo z_image_turbo_bf16.safetensors --to bf16
  zimage convert Z-Image-Turbo qwen_3_4b.safetensors --kind text_encoder --layout original
  zimage convert z_image_turbo.safetensors for_diffusers.safetensors --layout diffusers

The source is never changed. Embedders, modulation, final layer, norms and the text encoder's token table stay in 16
bits unless --all is given. An error is the length of the difference, as a share of the tensor's own length."""
# As in checkpoint.plan.FORMS, which would cost the start of every command a second.
FORMS = ("bf16", "fp16", "fp8", "fp8-scaled", "q8_0")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint in another number format or layout",
        description="Write a checkpoint as one file in another number format or another key layout.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("source", help="a .safetensors or .gguf file, an index of shards, or a folder")
    parser.add_argument("target", help="the new file: .safetensors, or .gguf for q8_0")
    parser.add_argument("--to", choices=FORMS, help="the number format (without it, every number stays as stored)")
    parser.add_argument(
        "--layout", choices=("original", "diffusers"), help="the keys: original is ComfyUI's (the default with --to)"
    )
    parser.add_argument("--kind", choices=("transformer", "text_encoder", "vae"), help="one part of several")
    parser.add_argument("--all", action="store_true", help="quantise every matrix, for the smallest file")
    parser.add_argument("--variant", choices=("turbo", "base"), help="what a transformer is, where it does not say so")
    parser.add_argument("-f", "--force", action="store_true", help="replace the new file if it exists")
    parser.add_argument("-v", "--verbose", action="store_true", help="every tensor's error")


def run(args: argparse.Namespace) -> int:
    from ..checkpoint.convert import check_place, write
    from ..errors import CheckpointError

    target = Path(args.target).expanduser()
    with input_errors():
        made = _plan(args, target.suffix.lower())
        check_place(made, target, args.force)
    _print_plan(made)
    progress = Progress(1, len(made.steps))
    try:
        results = write(made, target, lambda done: progress.update(0, done - 1))
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        named = str(error.filename or target)
        what = f"{target} cannot be written" if named.startswith(str(target)) else named
        return _fail(f"{what}: {error.strerror or error}")
    except ImportError as error:
        return _fail(str(error))
    finally:
        progress.clear()
    _print_results(results, args.verbose)
    before, after = made.info.n_bytes, made.n_bytes
    print(f"{size_text(before)} became {size_text(after)} ({after / before:.0%}), written to {target}")
    return 0


def _fail(reason: str) -> int:
    print(f"zimage convert: {reason}", file=sys.stderr, flush=True)
    return 1


def _plan(args: argparse.Namespace, suffix: str) -> Plan:
    from ..checkpoint.detect import TITLES, inspect_checkpoint
    from ..checkpoint.load import with_variant
    from ..checkpoint.plan import plan

    if not args.to and not args.layout:
        raise InputError("there is nothing to convert: give --to, --layout or both")
    info = inspect_checkpoint(args.source, args.kind)
    if args.variant:
        if info.kind != "transformer":
            raise InputError(f"{info.path.name} is {TITLES[info.kind]}, which has no --variant")
        info = with_variant(info, args.variant)
    return plan(info, suffix, args.to, args.layout, args.all, _tokenizer(info) if suffix == ".gguf" else None)


def _tokenizer(info: CheckpointInfo) -> Any:
    """The tokenizer beside a text encoder, or in the diffusers folder around it."""
    from ..errors import TokenizerError
    from ..text_encoder import find_tokenizer, load_tokenizer

    if info.kind != "text_encoder":
        return None
    folder = next(iter(info.checkpoint.tensors.values())).file.absolute().parent
    for place in (folder, folder.parent):
        try:
            found = find_tokenizer(info.path, place)
        except TokenizerError:
            continue
        return load_tokenizer(found)
    return None


def _print_plan(made: Plan) -> None:
    from ..checkpoint.detect import TITLES

    info = made.info
    variant = f", {info.told}" if info.told else ""
    print(f"from  {TITLES[info.kind]}{variant}: {info.layout} layout, {info.quantization}, {size_text(info.n_bytes)}")
    print(f"to    {made.target.layout} layout, {made.title}, {size_text(made.n_bytes)}")
    for note in made.notes:
        print(f"note  {note}")
    sys.stdout.flush()


def _print_results(results: list[Result], verbose: bool) -> None:
    """A line for each place in the layers that changed, then one for each format of what did not."""
    changed: dict[tuple[str, str], list[Result]] = {}
    exact: dict[str, list[Result]] = {}
    for result in results:
        if result.error:
            changed.setdefault((result.step.group, result.step.title), []).append(result)
        else:
            exact.setdefault(result.step.title, []).append(result)
    width = max((len(title) for _, title in changed), default=0)
    for (group, title), members in changed.items():
        print(f"  {group:<20} {len(members):>3}  {title:<{width}}  {_errors(members)}")
        for result in members if verbose else ():
            print(f"    {result.step.name:<50} {_percent(result.error)}")
    for title, members in exact.items():
        groups = ", ".join(dict.fromkeys(result.step.group for result in members))
        print(f"  exact: {len(members)} tensors as {title} ({groups})")


def _errors(results: list[Result]) -> str:
    worst = max(results, key=lambda result: result.error or 0.0)
    mean = sum(result.error or 0.0 for result in results) / len(results)
    if len(results) == 1:
        return f"error {_percent(mean)}"
    return f"error {_percent(mean)}, at most {_percent(worst.error)} in {worst.step.name.removesuffix('.weight')}"


def _percent(error: float | None) -> str:
    return "under 0.001 %" if not error or error < 1e-5 else f"{100 * error:.2g} %"
