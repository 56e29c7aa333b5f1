"""Which files the real models are, where ComfyUI wants them, and how they get there: whole and checked, or not at all.

Nothing here runs by itself. `huggingface_hub` asks and receives; its `hf_hub_download` throws away what an interrupted
process had received, so the part file, its place and its checksum are ours.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lock import alone

log = logging.getLogger(__name__)

# ComfyUI's folder of each part, and the older name that it still reads.
FOLDERS = {
    "transformer": ("diffusion_models", "unet"),
    "text_encoder": ("text_encoders", "clip"),
    "vae": ("vae",),
}


@dataclass(frozen=True)
class File:
    """A file in a repository of the hub, and which part of the model it is (a key of FOLDERS)."""

    repo: str
    path: str
    kind: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return FOLDERS[self.kind][0]

    @property
    def link(self) -> str:
        return f"{endpoint()}/{self.repo}/resolve/main/{self.path}"


# The repositories and files, in this one place. NOT VERIFIED against the hub: written without a network on 2026-11-20,
# from public listings and workflows that name them. The hub itself is asked before anything is fetched.
_TURBO, _BASE = "Comfy-Org/z_image_turbo", "Comfy-Org/z_image"
LICENCES = {_TURBO: "Apache-2.0", _BASE: "Apache-2.0"}
# The repositories hold few-bit forms too, which are left out until this version loads them.
TRANSFORMERS = {
    "turbo": {
        "bf16": File(_TURBO, "split_files/diffusion_models/z_image_turbo_bf16.safetensors", "transformer"),
    },
    "base": {
        "bf16": File(_BASE, "split_files/diffusion_models/z_image_bf16.safetensors", "transformer"),
    },
}
# Turbo and Base share these two.
TEXT_ENCODERS = {
    "bf16": File(_TURBO, "split_files/text_encoders/qwen_3_4b.safetensors", "text_encoder"),
    "fp8-mixed": File(_TURBO, "split_files/text_encoders/qwen_3_4b_fp8_mixed.safetensors", "text_encoder"),
}
VAE = File(_TURBO, "split_files/vae/ae.safetensors", "vae")

TIMEOUT = 20.0  # seconds for the hub's answer to a question
PATIENCE = 3  # attempts in a row that bring no byte; the library makes several in each


class DownloadError(Exception):
    """A file cannot be had: says which, why, and where to look."""


class UnreachableError(DownloadError):
    """The hub does not answer; the links may be of use elsewhere."""


def files(model: str, form: str = "bf16", text_encoder_form: str = "bf16") -> tuple[File, ...]:
    """The three files of "turbo" or "base". Raises ValueError for a form that there is not."""
    forms = TRANSFORMERS[model]
    if form not in forms:
        raise ValueError(f"there is no {form} of {model}: its forms are {', '.join(forms)}")
    return forms[form], TEXT_ENCODERS[text_encoder_form], VAE


def endpoint() -> str:
    """The hub's address, as huggingface_hub finds it; known without the library too, for the links."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_comfyui(folder: Path) -> bool:
    """ComfyUI's folder, or the base folder of its desktop application, which holds no code."""
    marks = ("main.py", "comfy", "user")
    return all((folder / name).is_dir() for name in ("custom_nodes", "models")) and any(
        (folder / mark).exists() for mark in marks
    )


def find_comfyui() -> Path | None:
    """The ComfyUI around this package, around the current folder, or named by COMFYUI_DIR or COMFYUI_PATH."""
    here = Path(__file__)
    # Not resolved comes first: a checkout may be linked into custom_nodes.
    folders = [folder for start in (here.absolute(), here.resolve(), Path.cwd() / "x") for folder in start.parents]
    named = (os.environ.get(name) for name in ("COMFYUI_DIR", "COMFYUI_PATH"))
    return next(filter(is_comfyui, [*folders, *(Path(name).expanduser() for name in named if name)]), None)


@dataclass(frozen=True)
class HubFile:
    """What the hub says about a file. `sha256` is None where it gives none (files not stored with LFS)."""

    file: File
    size: int
    sha256: str | None
    revision: str
    licence: str | None


def ask_hub(wanted: Sequence[File]) -> list[HubFile]:
    """Size and checksum of each file. Raises UnreachableError, or DownloadError where a repository or file is gone."""
    repos = {repo: _repository(repo) for repo in dict.fromkeys(file.repo for file in wanted)}
    return [_describe(file, repos[file.repo]) for file in wanted]


def _repository(repo: str) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi(endpoint=endpoint()).model_info(repo, files_metadata=True, timeout=TIMEOUT)
    except HfHubHTTPError as error:
        raise _refusal(error, repo, repo) from error
    except _network_errors() as error:
        raise UnreachableError(f"{endpoint()} cannot be reached: {_reason(error)}") from error
    except (ValueError, KeyError, TypeError) as error:  # a page of a hotel's network, say
        raise UnreachableError(f"what answers at {endpoint()} is no hub: {_reason(error)}") from error
    if info.id != repo:
        log.warning("%s is now called %s on the hub", repo, info.id)
    return info


def _describe(file: File, info: Any) -> HubFile:
    found = next((sibling for sibling in info.siblings or () if sibling.rfilename == file.path), None)
    if found is None:
        raise DownloadError(f"{file.repo} has no {file.path} any more: see {_page(file.repo)}")
    if found.size is None:
        raise DownloadError(f"the hub does not say how large {file.path} is: see {_page(file.repo)}")
    card = getattr(info, "card_data", None)
    licence = card.get("license") if card else None
    return HubFile(file, found.size, found.lfs.sha256 if found.lfs else None, info.sha or "main", licence)


def _page(repo: str) -> str:
    return f"{endpoint()}/{repo}/tree/main"


def _refusal(error: Any, repo: str, what: str) -> DownloadError:
    status = getattr(error.response, "status_code", None)
    if status == 404:
        return DownloadError(f"{what} is not on the hub (404), it may have been renamed: see {_page(repo)}")
    if status in (401, 403):
        return DownloadError(
            f"the hub does not give {what} ({status}): its terms may have to be accepted, or it is gone. "
            f"See {_page(repo)}; where a login is needed, set HF_TOKEN"
        )
    return UnreachableError(f"{endpoint()} answers {status} for {what}: try again later")


def _network_errors() -> tuple[type[Exception], ...]:
    """Those of requests are OSErrors, those of httpx, which newer versions of the library use, are not."""
    from huggingface_hub import errors

    return (OSError, errors.HTTPError)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Item:
    """One file on its way to `target`. `trouble` says why the file that has this name there is not the wanted one."""

    wanted: HubFile
    target: Path
    there: bool = False
    trouble: str = ""

    @property
    def part(self) -> Path:
        """What has been received. Named by its content: a newer version of a file never goes on from an older one."""
        tag = self.wanted.sha256 or self.wanted.revision
        return self.target.with_name(f"{self.target.name}.{tag[:8]}.part")

    @property
    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    @property
    def missing(self) -> int:
        return 0 if self.there else max(0, self.wanted.size - self.received)


def place(file: File, models: Path) -> Path:
    """Where a file is in any of the folders that ComfyUI reads for it, or where it goes."""
    places = [models / folder / file.name for folder in FOLDERS[file.kind]]
    return next((place for place in places if place.exists()), places[0])


def compare(wanted: HubFile, target: Path) -> Item:
    """Whether the file is there already, and is the one. Reads the whole of a file of the right size."""
    if not target.exists():
        return Item(wanted, target)
    return Item(wanted, target, there=True, trouble=difference(target, wanted))


def difference(path: Path, wanted: HubFile) -> str:
    """How a file differs from the hub's, in a few words; empty where it does not."""
    if not path.is_file():
        return "it is a folder"
    size = path.stat().st_size
    if size != wanted.size:
        return f"it has {size:,} bytes, the hub says {wanted.size:,}"
    if wanted.sha256 is None:
        return ""
    log.info("checking the sha256 of %s", wanted.file.name)  # which takes minutes, where the disk is slow
    found = _sha256(path)
    return "" if found == wanted.sha256 else f"its sha256 is {found[:12]}…, the hub says {wanted.sha256[:12]}…"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def nearest(folder: Path) -> Path:
    """The folder itself, or where there is none yet, the nearest one above it."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(nearest(folder)).free


def fetch(item: Item) -> None:
    """Bring a file here: goes on where an earlier run stopped, is checked, and only then gets its name.

    Raises DownloadError, and OSError where the disk is full or closed to us.
    """
    item.target.parent.mkdir(parents=True, exist_ok=True)
    with alone(item.part, DownloadError(f"another run is fetching {item.target.name}: wait for it")):
        if item.target.exists():
            raise DownloadError(f"{item.target} has appeared meanwhile: run the same command again to have it checked")
        _receive(item)
        if wrong := _checked(item):
            log.warning("%s arrived wrong: %s; deleted, and fetched once more", item.target.name, wrong)
            _receive(item)
            wrong = _checked(item)
        if wrong:
            page = _page(item.wanted.file.repo)
            raise DownloadError(f"{item.target.name} arrived wrong twice: {wrong}; deleted. Its page: {page}")
        item.part.replace(item.target)


def _checked(item: Item) -> str:
    wrong = difference(item.part, item.wanted)
    if wrong:
        item.part.unlink()
    return wrong


def _receive(item: Item) -> None:
    """Until the part is as long as the hub says, or the server has no more."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    wanted, file = item.wanted, item.wanted.file
    url = hf_hub_url(file.repo, file.path, revision=wanted.revision, endpoint=endpoint())
    idle = 0
    while (received := item.received) < wanted.size:
        # A server that packs would count other bytes than ours.
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        try:
            with item.part.open("ab") as stream:
                http_get(
                    url,
                    stream,
                    resume_size=received,
                    headers=headers,
                    expected_size=wanted.size,
                    displayed_filename=file.name,
                )
        except _network_errors() as error:
            status = getattr(getattr(error, "response", None), "status_code", None) or 0
            if status == 416:  # asked beyond the end: the check says by how much
                return
            if isinstance(error, HfHubHTTPError) and status < 500:
                raise _refusal(error, file.repo, file.path) from error
            if _is_of_the_disk(error):
                raise
            idle = 0 if item.received > received else idle + 1
            if idle == PATIENCE:
                raise UnreachableError(
                    f"{file.name} stopped at {item.received:,} of {wanted.size:,} bytes: {_reason(error)}"
                ) from error
            time.sleep(1)


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and bool(error.errno) and not isinstance(error, ConnectionError | TimeoutError)
