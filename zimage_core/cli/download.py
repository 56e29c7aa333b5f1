"""`zimage download`: the real models, into ComfyUI's folders."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import downloads
from ..downloads import DownloadError, File, HubFile, Item, UnreachableError
from .common import InputError, input_errors

EXAMPLE = """examples:
  zimage download turbo
  zimage download base --to ~/ComfyUI/models
  zimage download turbo --text-encoder-form fp8-mixed --yes
  zimage download turbo --links

Nothing is fetched before you have seen how much it is and said yes. Run the same command again to go on after an
interruption. HF_ENDPOINT and HF_TOKEN are honoured."""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "download",
        help="fetch a real model from the Hugging Face hub",
        description="Fetch the three files of a real model from the Hugging Face hub into ComfyUI's model folders.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", choices=list(downloads.TRANSFORMERS), help="which one (they share two of the files)")
    forms = list(dict.fromkeys(form for model in downloads.TRANSFORMERS.values() for form in model))
    parser.add_argument(
        "--form", type=_form, default="bf16", choices=forms, help="the transformer's number format (bf16)"
    )
    encoders = list(downloads.TEXT_ENCODERS)
    parser.add_argument(
        "--text-encoder-form", type=_form, default="bf16", choices=encoders, help="the text encoder's (bf16)"
    )
    parser.add_argument("--to", metavar="DIR", help="a models folder (that of the ComfyUI this is run from)")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--links", action="store_true", help="only print the links, without asking the hub")


def _form(text: str) -> str:
    """As the files spell it, too: fp8_mixed."""
    return text.lower().replace("_", "-")


def run(args: argparse.Namespace) -> int:
    logging.getLogger(downloads.__name__).setLevel(logging.INFO)
    with input_errors():
        files = downloads.files(args.model, args.form, args.text_encoder_form)
    if args.links:
        _print_links(files, "the models folder of ComfyUI")
        return 0
    models = _models_folder(args.to)
    try:
        return _download(files, models, args.yes)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "huggingface_hub":
            raise
        reason = f'huggingface_hub is missing or too old: {sys.executable} -m pip install "huggingface_hub>=0.26"'
    except UnreachableError as error:
        reason = str(error)
    except DownloadError as error:
        return _fail(str(error))
    _fail(reason)
    _print_links(files, str(models))
    return 1


def _fail(reason: str) -> int:
    print(f"zimage download: {reason}", file=sys.stderr, flush=True)
    return 1


def _print_links(files: Sequence[File], models: str) -> None:
    print(f"To fetch by hand, each into its folder of {models}:")
    for file in files:
        print(f"  {file.folder:<16}  {file.link}")


def _models_folder(given: str | None) -> Path:
    """Raises InputError where there is none, or it cannot be written."""
    if given:
        folder = Path(given).expanduser()
        models = folder / "models" if downloads.is_comfyui(folder) else folder
    else:
        comfyui = downloads.find_comfyui()
        if comfyui is None:
            raise InputError("no ComfyUI was found here: name its models folder, as in --to ~/ComfyUI/models")
        models = comfyui / "models"
    place = downloads.nearest(models)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{place} is no folder that can be written: name another with --to")
    return models.absolute()


def _download(files: Sequence[File], models: Path, yes: bool) -> int:
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # it reports each dropped line at length, and takes it up again by itself
    wanted = downloads.ask_hub(files)
    items = [_look(each, models) for each in wanted]
    _print_plan(items, models)
    kept = [item for item in items if item.trouble]
    absent = [item for item in items if not item.there]
    if absent:
        short = sum(item.missing for item in absent) - downloads.free_bytes(models)
        if short > 0:
            return _fail(f"{size_text(short)} more are needed on this disk: make room, or name another with --to")
        if not yes and not _agreed():
            print("Nothing was downloaded.")
            return 1
    failed = [item for item in absent if not _fetch(item)]
    for item in kept:
        _fail(f"{item.target} is another file and was left alone: move or rename it, and run the same command again")
    if failed or kept:
        return 1
    print("All files are here. In ComfyUI press R, or restart it, and the Z-Image loaders offer them.")
    return 0


def _look(wanted: HubFile, models: Path) -> Item:
    with input_errors():
        return downloads.compare(wanted, downloads.place(wanted.file, models))


def _print_plan(items: Sequence[Item], models: Path) -> None:
    for repo, licence in {item.wanted.file.repo: item.wanted.licence for item in items}.items():
        said = f"{licence}, says" if licence else f"{downloads.LICENCES[repo]} when this was written; unnamed now by"
        print(f"licence  {said} {downloads.endpoint()}/{repo}")
    print(f"into     {models}{'' if models.exists() else ' (a new folder)'}")
    if (models.parent / "extra_model_paths.yaml").exists():
        print("         extra_model_paths.yaml is not read: what lies in its folders is not seen, use --to for them")
    for item in items:
        print(f"  {size_text(item.wanted.size):>9}  {_place(item)}{_state(item)}")
    total = sum(item.missing for item in items)
    if total or not all(item.there for item in items):
        print(f"  {size_text(total):>9}  to download; {size_text(downloads.free_bytes(models))} are free", flush=True)


def _place(item: Item) -> str:
    return f"{item.target.parent.name}/{item.target.name}"


def _state(item: Item) -> str:
    if item.trouble:
        return f": another file has this name, {item.trouble}"
    if item.there:
        return ": there already, size" + (" and checksum are right" if item.wanted.sha256 else " is right")
    return f": goes on after {size_text(item.received)}" if item.received else ""


def _agreed() -> bool:
    """Raises InputError where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise InputError("nothing was downloaded: without a terminal you cannot be asked, add --yes to agree")
    try:
        return input("Download now? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _fetch(item: Item) -> bool:
    """Whether it came. A file that does not come is no reason to leave the next one."""
    try:
        downloads.fetch(item)
    except UnreachableError as error:
        _fail(f"{error}; run the same command again to go on")
    except DownloadError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{item.target} cannot be written: {error.strerror or error}")
    except KeyboardInterrupt:
        place = f"{size_text(item.received)} of {_place(item)}"
        raise SystemExit(_fail(f"stopped after {place}; run the same command again to go on")) from None
    else:
        how = "size and sha256" if item.wanted.sha256 else "size (the hub gives no checksum)"
        print(f"done     {_place(item)}: {size_text(item.wanted.size)}, {how} as the hub says", flush=True)
        return True
    return False


def size_text(count: int) -> str:
    """As the hub and shops count: 1 GB is 1e9 bytes."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"
