"""`zimage download` against a hub of our own that drops connections and serves wrong bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from oracles import ROOT

from zimage_core import downloads
from zimage_core.cli import main

TRANSFORMER, TEXT_ENCODER, VAE = downloads.files("turbo")
PLACES = {file: f"{file.folder}/{file.name}" for file in (TRANSFORMER, TEXT_ENCODER, VAE)}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Answers as the hub does: a repository's JSON, and files by a redirect to another address.

    `served` are the bytes sent instead of the right ones, `drops` how many bytes of the next answers are sent before
    the line is cut, `status` what a path answers instead, `asked` the path and Range of each request for bytes.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        every = [*downloads.TEXT_ENCODERS.values(), VAE]
        every += [file for forms in downloads.TRANSFORMERS.values() for file in forms.values()]
        self.right = {(f.repo, f.path): random.Random(f.path).randbytes(200_000 + 50_000 * (f is VAE)) for f in every}
        self.served, self.drops, self.status, self.asked, self.tokens = {}, {}, {}, [], []
        self.renamed, self.licence = {}, "apache-2.0"

    def describe(self, repo):
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": "0" * 40}
            | {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
            for (owner, path), data in self.right.items()
            if owner == repo
        ]
        card = {"cardData": {"license": self.licence}} if self.licence else {}
        return {"id": self.renamed.get(repo, repo), "sha": COMMIT, "siblings": siblings} | card

    def handle_error(self, request, client_address):
        """A line cut on purpose is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        hub, path = self.server, self.path.partition("?")[0]
        hub.tokens.append(self.headers["Authorization"])
        for part, status in hub.status.items():
            if part in path:
                return self.answer(b"no", status)
        if path.startswith("/api/models/"):
            return self.answer(json.dumps(hub.describe(path.removeprefix("/api/models/"))).encode())
        if "/resolve/" in path:
            repo, _, rest = path[1:].partition("/resolve/")
            return self.answer(b"", 302, Location=f"{hub.url}/cdn/{repo}/{rest.partition('/')[2]}")
        repo, _, file = path.removeprefix("/cdn/").partition("/split_files/")
        return self.send_file(repo, f"split_files/{file}")

    def send_file(self, repo, path):
        hub = self.server
        data = hub.served.get(path, hub.right[repo, path])
        hub.asked.append((path.rpartition("/")[2], self.headers["Range"]))
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(data):
            return self.answer(b"", 416)
        body, cut = data[start:], hub.drops.get(path) or []
        extra = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.answer(body, 206 if start else 200, until=cut.pop(0) if cut else None, **extra)

    def answer(self, body, status=200, until=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:until])
        if until is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No hub, token, proxy or ComfyUI of the machine that tests; blocks that are small beside the files."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name in ("COMFYUI_DIR", "COMFYUI_PATH", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{_closed_port()}")
    monkeypatch.chdir(tmp_path)


def _closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "models"


def run(models: Path | None, *arguments: str, model: str = "turbo") -> int:
    place = [] if models is None else ["--to", str(models)]
    try:
        return main(["download", model, *place, *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def listed(models: Path) -> set[str]:
    return {path.relative_to(models).as_posix() for path in models.rglob("*") if path.is_file()}


def right(hub: Hub, file: downloads.File) -> bytes:
    return hub.right[file.repo, file.path]


def test_three_files_into_three_folders(hub, models, capsys):
    assert run(models, "--yes") == 0
    assert listed(models) == set(PLACES.values())  # no part, no lock, no cache beside them
    assert all((models / place).read_bytes() == right(hub, file) for file, place in PLACES.items())
    out, err = capsys.readouterr()
    plan, done = out.split("to download;")
    assert f"licence  apache-2.0, says {hub.url}/{TRANSFORMER.repo}\n" in plan and f"into     {models}" in plan
    assert all(place in plan and f"done     {place}" in done for place in PLACES.values())
    assert "650.00 KB" in plan and "All files are here" in done and err == ""


def test_base_takes_its_transformer_from_its_own_repository(hub, models):
    options = ("--yes", "--form", "bf16", "--text-encoder-form", "fp8_mixed")
    assert run(models, *options, model="base") == 0
    expected = {"diffusion_models/z_image_bf16", "text_encoders/qwen_3_4b_fp8_mixed", "vae/ae"}
    assert listed(models) == {f"{name}.safetensors" for name in expected}


def test_what_is_there_and_right_is_not_fetched_again(hub, models, capsys):
    for file, place in {VAE: PLACES[VAE], TRANSFORMER: f"unet/{TRANSFORMER.name}"}.items():  # an older folder's name
        (models / place).parent.mkdir(parents=True)
        (models / place).write_bytes(right(hub, file))
    assert run(models, "--yes") == 0
    assert [name for name, _ in hub.asked] == [TEXT_ENCODER.name]
    assert f"unet/{TRANSFORMER.name}: there already, size and checksum are right" in capsys.readouterr().out
    assert run(models) == 0  # there is nothing to agree to
    assert len(hub.asked) == 1


@pytest.mark.parametrize("other", [b"my own VAE", bytes(250_000)], ids=["of another size", "of the same size"])
def test_another_file_of_that_name_is_left_alone(other, hub, models, capsys):
    target = models / PLACES[VAE]
    target.parent.mkdir(parents=True)
    target.write_bytes(other)
    assert run(models, "--yes") == 1
    assert target.read_bytes() == other
    assert (models / PLACES[TRANSFORMER]).exists()  # the rest comes all the same
    out, err = capsys.readouterr()
    assert "another file has this name" in out and f"{target} is another file" in err and "move or rename" in err


def test_a_dropped_line_goes_on_where_it_broke(hub, models):
    hub.drops[TRANSFORMER.path] = [95_000, 45_000, 0]
    assert run(models, "--yes") == 0
    assert (models / PLACES[TRANSFORMER]).read_bytes() == right(hub, TRANSFORMER)
    ranges = [asked for name, asked in hub.asked if name == TRANSFORMER.name]
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges[1:]]
    assert ranges[0] is None and starts == sorted(starts) and 80_000 <= starts[0] <= 95_000 < starts[-1]


def test_a_run_that_was_stopped_goes_on_in_the_next(hub, models, capsys, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    hub.drops[TRANSFORMER.path] = [120_000]
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", stop)  # Ctrl+C while it waits to try again
        assert run(models, "--yes") == 1
    assert "run the same command again" in capsys.readouterr().err
    (part,) = listed(models) - {f"{name}.lock" for name in listed(models)}
    have = (models / part).stat().st_size
    assert part.startswith(PLACES[TRANSFORMER]) and part.endswith(".part") and 100_000 <= have <= 120_000
    assert run(models, "--yes") == 0
    assert (TRANSFORMER.name, f"bytes={have}-") in hub.asked
    assert f"goes on after {have / 1000:.2f} KB" in capsys.readouterr().out
    assert listed(models) == set(PLACES.values())


def test_a_line_that_stays_dead_says_how_to_go_on(hub, models, capsys):
    hub.drops[VAE.path] = [50_000] + [0] * 99
    assert run(models, "--yes") == 1
    err = capsys.readouterr().err
    assert "ae.safetensors stopped at 50,000 of 250,000 bytes" in err and "run the same command again" in err
    assert listed(models) >= {PLACES[TRANSFORMER], PLACES[TEXT_ENCODER]} and PLACES[VAE] not in listed(models)


def test_a_server_without_ranges(hub, models, monkeypatch):
    """It answers a request for the rest with the whole."""
    hub.drops[VAE.path] = [50_000]
    send = _Handler.send_file

    def whole(self, repo, path):
        if not hub.drops[VAE.path]:
            del self.headers["Range"]
        send(self, repo, path)

    monkeypatch.setattr(_Handler, "send_file", whole)
    assert run(models, "--yes") == 0
    assert (models / PLACES[VAE]).read_bytes() == right(hub, VAE)


WRONG = {
    "of the right size": (bytes(250_000), "sha256"),
    "too few": (bytes(90_000), "90,000 bytes, the hub says 250,000"),
    "too many": (bytes(260_000), "260,000 bytes, the hub says 250,000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_bytes_are_named_and_deleted(case, hub, models, capsys):
    hub.served[VAE.path], words = WRONG[case]
    assert run(models, "--yes") == 1
    assert listed(models) == {PLACES[TRANSFORMER], PLACES[TEXT_ENCODER]}
    assert sum(name == VAE.name and asked is None for name, asked in hub.asked) == 2  # from its start, twice
    err = capsys.readouterr().err
    assert "ae.safetensors arrived wrong twice" in err and words in err and f"{hub.url}/{VAE.repo}/tree/main" in err


def test_bytes_that_are_wrong_once(hub, models, caplog, monkeypatch):
    hub.served[VAE.path] = bytes(250_000)
    send = _Handler.send_file

    def mend(self, repo, path):
        send(self, repo, path)
        hub.served.clear()

    monkeypatch.setattr(_Handler, "send_file", mend)
    (wanted,) = downloads.ask_hub([VAE])
    downloads.fetch(downloads.compare(wanted, models / PLACES[VAE]))
    assert (models / PLACES[VAE]).read_bytes() == right(hub, VAE)
    assert "ae.safetensors arrived wrong: its sha256" in caplog.text


def test_two_runs_do_not_write_one_part(hub, models):
    filelock = pytest.importorskip("filelock")
    (wanted,) = downloads.ask_hub([VAE])
    item = downloads.compare(wanted, models / PLACES[VAE])
    item.target.parent.mkdir(parents=True)
    with filelock.FileLock(f"{item.part}.lock"), pytest.raises(downloads.DownloadError, match="another run"):
        downloads.fetch(item)


def refused(status: int, part: str):
    return pytest.param(status, part, id=f"{status} for {part}")


@pytest.mark.parametrize(
    "status, part", [refused(404, "/api/"), refused(401, "/api/"), refused(403, "ae."), refused(404, "ae.")]
)
def test_what_the_hub_refuses(status, part, hub, models, capsys):
    hub.status[part] = status
    assert run(models, "--yes") == 1
    err = capsys.readouterr().err
    assert f"({status})" in err and f"{hub.url}/{VAE.repo}/tree/main" in err
    assert err.count("\n") == 1, err
    assert status == 404 or "HF_TOKEN" in err
    assert PLACES[VAE] not in (listed(models) if models.exists() else ())


def test_a_file_that_the_repository_has_no_more(hub, models, capsys):
    del hub.right[VAE.repo, VAE.path]
    assert run(models, "--yes") == 1
    err = capsys.readouterr().err
    assert "has no split_files/vae/ae.safetensors any more" in err and f"{hub.url}/{VAE.repo}/tree/main" in err
    assert not models.exists()


def test_a_hub_in_trouble_and_a_repository_of_another_name(hub, models, capsys, caplog):
    hub.status["/api/"] = 503
    assert run(models, "--yes") == 1
    out, err = capsys.readouterr()
    assert "503" in err and VAE.link in out
    hub.status.clear()
    hub.renamed[VAE.repo], hub.licence = "Comfy-Org/Z-Image", None
    assert run(models, "--yes") == 0
    assert "is now called Comfy-Org/Z-Image" in caplog.text
    assert f"Apache-2.0 when this was written; unnamed now by {hub.url}" in capsys.readouterr().out


def test_without_a_network_the_links(models, capsys):
    assert run(models, "--yes") == 1
    out, err = capsys.readouterr()
    assert "cannot be reached" in err and err.count("\n") == 1
    assert f"its folder of {models}:" in out and not models.exists()
    for file in PLACES:
        link = f"{os.environ['HF_ENDPOINT']}/{file.repo}/resolve/main/{file.path}"
        assert any(line.split() == [file.folder, link] for line in out.splitlines())


def test_without_the_library_the_links(hub, models, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run(models) == 1
    out, err = capsys.readouterr()
    assert f"{sys.executable} -m pip install" in err and VAE.link in out


def test_links_ask_nobody(monkeypatch, capsys):
    monkeypatch.delenv("HF_ENDPOINT")
    assert run(None, "--links", model="base") == 0
    link = "https://huggingface.co/Comfy-Org/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors"
    assert link in capsys.readouterr().out


def test_the_token_is_sent_to_the_hub(hub, models, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(models, "--yes") == 0
    assert hub.tokens[0] == "Bearer hf_secret"


def test_nothing_is_fetched_without_a_yes(hub, models, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert run(models) == 2
    out, err = capsys.readouterr()
    assert "650.00 KB  to download" in out and "--yes" in err and err.count("\n") == 1
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    assert run(models) == 1
    assert not models.exists() and not hub.asked
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    assert run(models) == 0


def test_a_disk_that_is_too_small(hub, models, capsys, monkeypatch):
    monkeypatch.setattr(downloads, "free_bytes", lambda folder: 400_000)
    assert run(models, "--yes") == 1
    assert "250.00 KB more are needed" in capsys.readouterr().err and not hub.asked


def test_a_disk_that_fills_up(hub, models, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert run(models, "--yes") == 1
    assert f"{PLACES[VAE]} cannot be written: No space left" in capsys.readouterr().err


def test_bad_input(hub, models, capsys, monkeypatch, tmp_path):
    assert run(models, "--form", "q9", model="base") == 2
    assert "invalid choice: 'q9'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "models") == 2
    assert "no folder that can be written" in capsys.readouterr().err
    monkeypatch.setattr(downloads, "is_comfyui", lambda folder: False)
    assert run(None) == 2
    assert "--to ~/ComfyUI/models" in capsys.readouterr().err
    assert not hub.asked


def test_help_shows_an_example(capsys):
    assert run(None, "--help") == 0
    assert "  zimage download turbo\n" in capsys.readouterr().out


@pytest.fixture
def comfyui(tmp_path) -> Path:
    """A ComfyUI with a checkout of this pack, which is not installed."""
    root = tmp_path / "ComfyUI"
    (root / "models").mkdir(parents=True)
    (root / "main.py").touch()
    leave = shutil.ignore_patterns("*.safetensors", "__pycache__", "tokenizer")
    shutil.copytree(ROOT / "zimage_core", root / "custom_nodes" / "zimage-nodes" / "zimage_core", ignore=leave)
    return root


def test_finding_comfyui(comfyui, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "__file__", str(comfyui / "custom_nodes/zimage-nodes/zimage_core/downloads.py"))
    assert downloads.find_comfyui() == comfyui
    elsewhere = tmp_path / "site-packages" / "zimage_core"
    monkeypatch.setattr(downloads, "__file__", str(elsewhere / "downloads.py"))
    assert downloads.find_comfyui() is None or not downloads.find_comfyui().is_relative_to(tmp_path)
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    assert downloads.find_comfyui() == comfyui
    monkeypatch.delenv("COMFYUI_PATH")
    monkeypatch.chdir(comfyui / "models")
    assert downloads.find_comfyui() == comfyui


def test_a_comfyui_is_taken_for_its_models_folder(hub, comfyui, capsys):
    (comfyui / "extra_model_paths.yaml").touch()
    assert run(comfyui, "--yes") == 0
    assert listed(comfyui / "models") == set(PLACES.values())
    assert "extra_model_paths.yaml is not read" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["as a module", "by its path"])
def test_from_a_checkout_in_custom_nodes(way, hub, comfyui, tmp_path):
    pack = comfyui / "custom_nodes" / "zimage-nodes"
    command, folder = (["-m", "zimage_core"], pack) if way == "as a module" else ([str(pack / "zimage_core")], tmp_path)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    for name in ("PYTHONPATH", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *command, "download", "turbo", "--yes"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("zimage: checking the sha256 of ") for line in done.stderr.splitlines()), done.stderr
    assert f"into     {comfyui / 'models'}\n" in done.stdout
    assert listed(comfyui / "models") == set(PLACES.values())
