"""A real ComfyUI with this pack in it, and a small client: HTTP and websocket with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACK = "zimage-nodes"
# What a user's folder of this pack holds, as far as ComfyUI reads it.
SHIPPED = ("__init__.py", "nodes", "js", "locales", "workflows", "subgraphs", "zimage_core")
HOST = "127.0.0.1"


def comfyui_dir() -> Path:
    return Path(os.environ.get("COMFYUI_DIR", Path.home() / "comfy" / "ComfyUI"))


def comfyui_python() -> Path:
    if given := os.environ.get("COMFYUI_PY"):
        return Path(given)
    places = [comfyui_dir() / ".venv" / part for part in ("bin/python", "Scripts/python.exe")]
    return next((place for place in places if place.is_file()), places[0])


def why_not() -> str | None:
    """Why there is no ComfyUI to test with, or None."""
    if not (comfyui_dir() / "main.py").is_file():
        return f"no ComfyUI at {comfyui_dir()}: set COMFYUI_DIR"
    if not comfyui_python().is_file():
        return f"no Python for ComfyUI at {comfyui_python()}: set COMFYUI_PY"
    return None


def environment() -> dict[str, str]:
    """One thread each: the models are tiny, and two processes with a thread for each core wait for one another."""
    return {**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}


def install(base: Path) -> Path:
    """A base directory for ComfyUI that has this pack, as a copy: links need rights on Windows."""
    pack = base / "custom_nodes" / PACK
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            pack.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, pack / name)
    for folder in ("models/diffusion_models", "models/text_encoders", "models/vae", "input", "output", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    return pack


@dataclass
class Result:
    """What came of one prompt."""

    status: str
    error: dict[str, Any]
    outputs: dict[str, dict[str, Any]]
    events: list[dict[str, Any]] = field(repr=False)
    previews: list[bytes] = field(repr=False)
    texts: dict[str, str]
    seconds: float

    @property
    def executed(self) -> list[str]:
        """The nodes that ran, not those whose results were kept from before."""
        return [e["data"]["node"] for e in self.events if e["type"] == "executing" and e["data"].get("node")]

    def progress(self, node: str) -> list[tuple[int, int]]:
        data = [e["data"] for e in self.events if e["type"] == "progress"]
        return [(d["value"], d["max"]) for d in data if d["node"] == node]


class Server:
    def __init__(self, base: Path, flags: Sequence[str] = ("--cpu",)) -> None:
        self.base = base
        self.pack = install(base)
        self.port = _free_port()
        self.log = base / "log.txt"
        command = [
            str(comfyui_python()), "main.py", "--base-directory", str(base), *flags, "--port", str(self.port),
            "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK, "--preview-method", "latent2rgb",
            "--database-url", "sqlite:///:memory:", "--disable-api-nodes",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=comfyui_dir(), stdout=log, stderr=subprocess.STDOUT, env=environment()
            )

    def wait(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"ComfyUI did not start:\n{self.log_text()[-4000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str, **query: str) -> Any:
        data = self.get_bytes(path, **query)
        return json.loads(data)

    def get_bytes(self, path: str, **query: str) -> bytes:
        url = f"http://{HOST}:{self.port}{path}" + ("?" + urllib.parse.urlencode(query) if query else "")
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.read()

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else {}

    def free(self) -> None:
        """Lets go of all models and results. Only asked for by /free: it is done once another prompt has run."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        image = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
        preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        self.run({"1": image, "2": preview})

    def node(self, node_id: str) -> dict[str, Any]:
        return self.get(f"/object_info/{node_id}")[node_id]

    def run(self, prompt: dict[str, Any], timeout: float = 120, interrupt_after: int = 0, **extra: Any) -> Result:
        """Queue a prompt in API form and wait for its end. `interrupt_after` interrupts it at that many steps."""
        client = uuid.uuid4().hex
        stream = WebSocket(self.port, f"/ws?clientId={client}")
        stream.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        start = time.monotonic()
        # As a script does, with no `extra_data` unless a test has some.
        request = {"prompt": prompt, "client_id": client} | ({"extra_data": extra} if extra else {})
        answer = self.post("/prompt", request)
        if "prompt_id" not in answer:
            stream.close()
            return Result("refused", answer, {}, [], [], {}, 0.0)
        result = Result("running", {}, {}, [], [], {}, 0.0)
        try:
            while result.status == "running":
                message = stream.receive(max(0.1, start + timeout - time.monotonic()))
                self._take(message, result, answer["prompt_id"], interrupt_after)
        finally:
            stream.close()
        result.seconds = time.monotonic() - start
        return result

    def _take(self, message: bytes | str, result: Result, prompt_id: str, interrupt_after: int) -> None:
        if isinstance(message, bytes):
            _take_binary(message, result)
            return
        event = json.loads(message)
        data = event.get("data", {})
        if data.get("prompt_id", prompt_id) != prompt_id:
            return
        result.events.append(event)
        kind = event["type"]
        if kind == "executed" and data.get("output"):
            result.outputs[data["node"]] = data["output"]
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            result.status, result.error = kind.removeprefix("execution_"), data
        elif kind == "progress" and interrupt_after and data["value"] >= interrupt_after:
            self.post("/interrupt", {})

    def image(self, result: Result, node: str, index: int = 0) -> Path:
        entry = result.outputs[node]["images"][index]
        return self.base / entry["type"] / entry["subfolder"] / entry["filename"]


def _take_binary(message: bytes, result: Result) -> None:
    """Binary messages begin with their kind: 1 and 4 are previews, 3 is a text for a node."""
    kind = struct.unpack(">I", message[:4])[0]
    if kind in (1, 4):
        result.previews.append(message)
    elif kind == 3:
        length = struct.unpack(">I", message[4:8])[0]
        result.texts[message[8 : 8 + length].decode()] = message[8 + length :].decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class WebSocket:
    """As much of RFC 6455 as a test client needs."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.decode(errors="replace"))

    def send(self, text: str, opcode: int = 1) -> None:
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def receive(self, timeout: float) -> bytes | str:
        """The next text or binary message."""
        self.socket.settimeout(timeout)
        message, kind = b"", 0
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
            data, opcode = self._take(size), first & 0x0F
            if opcode == 8:
                raise ConnectionError("the server closed the websocket")
            if opcode > 8:
                continue
            message, kind = message + data, opcode or kind
            if first & 0x80:
                return message.decode() if kind == 1 else message

    def close(self) -> None:
        self.socket.close()

    def _take(self, n: int) -> bytes:
        while len(self.buffer) < n:
            self._more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data
