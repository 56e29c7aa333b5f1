"""Previews of a run: the host's own previewers and progress bar, by the widget's choice or the host's setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import folder_paths
import latent_preview
from comfy.cli_args import LatentPreviewMethod, args

AUTO = "auto"
# What the widget offers besides: the host's word for each. TAEF1 is the TAESD of Flux latents.
METHODS = {"latent2rgb": "latent2rgb", "taef1": "taesd", "none": "none"}


def make_previews(model: Any, steps: int, choice: str) -> tuple[Callable[..., None], list[str]]:
    """The callback that reports each of a run's steps with a preview, and what a user should know of the previews.

    `auto` leaves the choice to the host: the prompt's own setting, or else the command line's.
    """
    with _method(choice):
        wanted, name = args.preview_method, model.model.latent_format.taesd_decoder_name
        callback = latent_preview.prepare_callback(model, steps)
    if wanted != LatentPreviewMethod.TAESD or _installed(name):
        return callback, []
    return callback, [f"there is no {name} in models/vae_approx: the previews are latent2rgb's, which need no file"]


@contextmanager
def _method(choice: str) -> Iterator[None]:
    """The host reads its setting, which it sets for each prompt, when the previewer is made and not again."""
    before = args.preview_method
    if choice != AUTO:
        latent_preview.set_preview_method(METHODS[choice])
    try:
        yield
    finally:
        args.preview_method = before


def _installed(name: str | None) -> bool:
    """As the host looks for it: any file whose name begins so."""
    return bool(name) and any(file.startswith(name) for file in folder_paths.get_filename_list("vae_approx"))
