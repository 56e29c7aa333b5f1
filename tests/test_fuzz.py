"""Ten thousand damaged files: each is read, or refused in one sentence that names it; nothing else happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oracles import ROOT

HERE = Path(__file__).parent


@pytest.mark.slow
def test_no_damage_does_more_than_be_refused(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(HERE)])
    command = [sys.executable, str(HERE / "fuzz.py"), "20261120", "10000", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads(done.stdout)
    assert summary["strange"] == []
    assert summary["refused"] > 5000 and summary["read"] > 500  # both happen, or nothing was tried
    assert summary["slowest"] < 5
