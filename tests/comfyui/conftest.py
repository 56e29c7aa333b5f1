"""One real ComfyUI and one real Chromium for the whole session; what they cannot test is skipped, and counted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfyui.browser import browser, why_no_browser
from comfyui.forms import write_all
from comfyui.server import Server, comfyui_dir, comfyui_python, environment, install, why_not

HERE = Path(__file__).parent


SKIPPED = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    pages = [item for item in mine if "chromium" in getattr(item, "fixturenames", ())]
    lacks = {"ComfyUI": (mine, why_not()), "pages in a browser": (pages, why_no_browser())}
    config.stash[SKIPPED] = []
    for name, (skipped, reason) in lacks.items():
        if reason and skipped:
            config.stash[SKIPPED].append(f"{name}: {len(skipped)} tests skipped, {reason}")
            for item in skipped:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(SKIPPED, []):
        terminalreporter.write_sep("=", line, yellow=True)


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The demo in every form, as files."""
    return write_all(tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="session")
def checks(
    tmp_path_factory: pytest.TempPathFactory, forms: dict[str, dict[str, str]]
) -> Iterator[subprocess.Popen[bytes]]:
    """The process that runs `inside.py`, started early so that it works while the server's tests run."""
    base = tmp_path_factory.mktemp("inside")
    output, table = base / "results.json", base / "forms.json"
    table.write_text(json.dumps(forms), encoding="utf-8")
    arguments = [comfyui_dir(), install(base), output, table]
    command = [str(comfyui_python()), str(HERE / "inside.py"), *map(str, arguments)]
    with (base / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=base, stdout=log, stderr=subprocess.STDOUT, env=environment())
    process.output, process.log = output, base / "log.txt"  # type: ignore[attr-defined]
    yield process
    process.kill()


@pytest.fixture(scope="session")
def inside(checks: Any) -> dict[str, Any]:
    """What `inside.py` found."""
    checks.wait(600)
    if not checks.output.is_file():
        pytest.fail(checks.log.read_text(encoding="utf-8", errors="replace")[-4000:])
    return json.loads(checks.output.read_text(encoding="utf-8"))


@pytest.fixture
def found(inside: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """What the check of a test's own name returned; its failure is the test's."""
    result = inside[request.node.name.replace("test_", "check_")]
    if isinstance(result, dict) and "traceback" in result:
        pytest.fail(result["traceback"])
    return result


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, checks: Any) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("comfyui"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A started browser, for `comfyui.browser.Page`; tests that ask for it are skipped where there is none."""
    with browser() as started:
        yield started
