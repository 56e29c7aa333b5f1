"""`zimage generate`: a prompt in, pictures out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output import check_target, numbered, save_png
from ..sampling import SOLVERS, Step
from ..sizes import NAMES, parse_size
from .common import InputError, Progress, input_errors

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipeline import ZImagePipeline

DEMOS = {"demo-turbo": "turbo", "demo-base": "base"}
EXAMPLE = """examples:
  zimage generate "a red circle on a white background" -o out.png
  zimage generate "a lighthouse at dusk" --model Z-Image-Turbo --size landscape_16_9 --count 4 -o dusk.png
  zimage generate "a lighthouse at dusk" --transformer z_image_bf16.safetensors \\
      --text-encoder qwen_3_4b.safetensors --vae ae.safetensors --negative "people" --guidance 4"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "generate",
        help="draw pictures from a prompt",
        description="Draw pictures from a prompt. Without a model, the embedded demo draws simple shapes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("prompt", help="what to draw, in English or Chinese")
    parser.add_argument("-o", "--output", default="zimage.png", help="a .png file; several are numbered (zimage.png)")
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="demo-turbo (the default), demo-base, a diffusers folder, or an all-in-one file")
    model.add_argument("--transformer", help="a Z-Image transformer: a file, an index, or a folder")
    model.add_argument("--text-encoder", help="a Qwen3-4B text encoder: a file, an index, or a folder")
    model.add_argument("--vae", help="the Flux VAE: a file or a folder")
    model.add_argument("--tokenizer", help="a folder with the Qwen tokenizer, where none is found by itself")
    model.add_argument("--variant", default="auto", choices=("auto", "turbo", "base"), help="what the file is")
    model.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float16", "float32"))
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    picture = parser.add_argument_group("picture")
    picture.add_argument("--negative", default="", metavar="PROMPT", help="what to keep away from (needs cfg above 1)")
    picture.add_argument("--size", metavar="SIZE", help=f'WIDTHxHEIGHT, "1280 16:9", {", ".join(NAMES)}')
    picture.add_argument("--seed", type=int, help="of the first picture; the next ones count up (random)")
    picture.add_argument("--count", type=int, default=1, help="how many pictures (1)")
    sampling = parser.add_argument_group("sampling", "Without these, the model's own settings are used.")
    sampling.add_argument("--steps", type=int, help="Turbo 8, Base 28 to 50")
    scale = sampling.add_mutually_exclusive_group()
    scale.add_argument("--cfg", type=float, help="ComfyUI's scale: Turbo 1, Base 4 to 6")
    scale.add_argument("--guidance", type=float, help="the official scale, cfg - 1: Turbo 0, Base 3 to 5")
    sampling.add_argument("--cfg-normalization", type=float, default=0.0, metavar="LIMIT", help="0 is off, 1 is usual")
    sampling.add_argument(
        "--cfg-truncation", type=float, default=1.0, metavar="T", help="cfg stops after 1 - sigma = T"
    )
    sampling.add_argument("--shift", type=float, help="Turbo 3, Base 6")
    sampling.add_argument("--solver", default="euler", choices=list(SOLVERS))
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is loaded")


def run(args: argparse.Namespace) -> int:
    with input_errors():
        prompts = [_text(args.prompt), _text(args.negative)]
        targets = [check_target(path) for path in numbered(Path(args.output), max(1, args.count))]
        size = parse_size(args.size) if args.size else None
        pipeline = open_pipeline(args)
        options = _options(args) | ({"width": size.width, "height": size.height} if size else {})
        settings = pipeline.resolve(**options)
    progress = Progress(args.count, settings.forwards)

    def report(picture: int, step: Step) -> None:
        progress.update(picture, step.index)

    def save(picture: int, image: Image) -> None:
        progress.clear()
        save_png(image, targets[picture], image.info["zimage"])
        print(f"{targets[picture]}  seed {image.info['zimage']['seed']}", flush=True)

    try:
        pipeline.generate(*prompts, **(options | {"seed": settings.seed}), callback=report, on_picture=save)
    finally:
        progress.clear()
    return 0


def _text(text: str) -> str:
    """A shell may pass bytes that are no text, which Python keeps as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the prompt holds bytes that are not UTF-8 text") from None
    return text


def _options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "cfg", "guidance", "shift", "seed", "count", "solver", "cfg_normalization", "cfg_truncation")
    return {name: getattr(args, name) for name in names}


def open_pipeline(args: argparse.Namespace) -> ZImagePipeline:
    """The pipeline that the model options name: the demo, a folder, three files, or a folder with other parts."""
    from ..pipeline import ZImagePipeline, demo_pipeline

    options = {
        "variant": args.variant,
        "dtype": args.dtype,
        "device": pick_device(args.device),
        "tokenizer": args.tokenizer,
    }
    files = {"transformer": args.transformer, "text_encoder": args.text_encoder, "vae": args.vae}
    given = [name for name, path in files.items() if path]
    if not given and (args.model is None or args.model in DEMOS):
        return demo_pipeline(DEMOS[args.model or "demo-turbo"], **options)
    if args.model in DEMOS:
        raise InputError(f"--model {args.model} is a whole model: leave it out to use --{given[0].replace('_', '-')}")
    missing = ["--" + name.replace("_", "-") for name in files if name not in given]
    if args.model is None and missing:
        raise InputError(f"a model needs all three parts: give {' and '.join(missing)} too, or a folder with --model")
    if not given:
        if not Path(args.model).expanduser().exists():
            raise InputError(f"there is no model {args.model}: give {', '.join(DEMOS)} or a diffusers folder")
        return ZImagePipeline.from_folder(args.model, **options)
    parts = {name: path or args.model for name, path in files.items()}
    return ZImagePipeline.from_files(**parts, **options)


def pick_device(name: str) -> str:
    """ "auto" is the GPU where there is one. Raises InputError for a device that is not here."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if torch.empty(0, device=name).is_meta:
            raise RuntimeError
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} is not here: use auto or cpu") from error
    return name
