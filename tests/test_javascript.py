"""The browser's pure functions, by their own tests: `node --test`."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from oracles import ROOT

TESTS = sorted((ROOT / "tests" / "js").glob("*.test.mjs"))


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js: install it to test what runs in the browser")
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_what_runs_in_the_browser(path):
    done = subprocess.run(["node", "--test", str(path)], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "# pass 0" not in done.stdout
