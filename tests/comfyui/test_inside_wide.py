"""A file of one layer at the published width, by the host's loader and by ours; `inside_wide.py` has the code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comfyui.server import comfyui_dir, comfyui_python, environment, install

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
# Two threads, which must not spin for one another where something else has the cores.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}


def test_full_width(tmp_path: Path) -> None:
    """Euler, simple, cfg 3, batch 2; and a Fun ControlNet on prompts of 20 and 100 tokens."""
    output = tmp_path / "results.json"
    command = [comfyui_python(), HERE / "inside_wide.py", comfyui_dir(), install(tmp_path), output, "-"]
    process = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment() | WAITING, capture_output=True, text=True, timeout=600
    )
    (tmp_path / "wide.safetensors").unlink(missing_ok=True)
    assert output.is_file(), process.stderr[-4000:]
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["facts"] == [["torch.float32", 3.0]] * 2
    assert found["parity"] < 1e-3
    assert found["control"] < 1e-3
    assert found["effect"] > 0.1
