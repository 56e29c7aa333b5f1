"""The shape of the house: which way imports point, how short `execute` is, what is shipped."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from oracles import ROOT

ENGINE, NODES = ROOT / "zimage_core", ROOT / "nodes"
# These import nothing of ours but what is listed.
LEAVES = {
    "schedule.py": set(),
    "guidance.py": set(),
    "sizes.py": set(),
    "preview.py": set(),
    "errors.py": set(),
    "attention.py": set(),
    "variants.py": set(),
    "model.py": {".attention"},
    "checkpoint/ggml.py": set(),
    "checkpoint/quantized.py": {"."},
    "checkpoint/layouts.py": set(),
    "sampling.py": {".guidance"},
}
# Heavy or fragile packages that may only be imported inside the functions that use them.
LAZY = {"transformers", "diffusers", "gguf", "PIL", "tokenizers", "huggingface_hub", "filelock"}
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes", "latent_preview"}


def imports(path: Path, top_level: bool = False):
    """The modules that a file imports, relative ones with their dots."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def python_files(folder: Path):
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", python_files(ENGINE), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_engine_knows_no_host_and_no_nodes(path):
    roots = {name.split(".")[0] for name in imports(path) if not name.startswith(".")}
    assert not roots & (HOST | {"zimage_core"})
    depth = len(path.relative_to(ENGINE).parts)
    assert all(len(name) - len(name.lstrip(".")) <= depth for name in imports(path)), "an import leaves the engine"


@pytest.mark.parametrize("path", python_files(ENGINE), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert not {name.split(".")[0] for name in imports(path, top_level=True)} & LAZY


@pytest.mark.parametrize("name", LEAVES)
def test_the_leaves_import_nothing_else_of_ours(name):
    assert {module for module in imports(ENGINE / name) if module.startswith(".")} == LEAVES[name]


@pytest.mark.parametrize("path", python_files(NODES), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_only_the_host_seam_touches_the_host(path):
    roots = {name.split(".")[0] for name in imports(path) if not name.startswith(".")}
    if "host" in path.relative_to(NODES).parts or path.name == "host.py":
        return
    assert not roots & (HOST - {"comfy_api"}), "only nodes/host may import ComfyUI's modules"
    assert "zimage_core" not in roots, "the pack imports the engine relatively"


def executes():
    for path in python_files(NODES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "execute":
                yield pytest.param(node, id=f"{path.stem}:{node.lineno}")


@pytest.mark.parametrize("function", list(executes()))
def test_execute_is_at_most_ten_lines(function):
    assert function.end_lineno - function.body[0].lineno + 1 <= 10


def test_the_root_module_is_an_entry_point_and_nothing_else():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert "NODE_CLASS_MAPPINGS" not in ast.dump(tree)


def test_importing_the_engine_imports_nothing_heavy():
    code = "import sys, zimage_core; print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_requirements_move_nobodys_torch():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert {re.split(r"[<>=]", line)[0] for line in lines if line} <= {"gguf"}


def test_dependencies_have_lower_bounds_only():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"\ndependencies = \[(.*?)\]", text, re.S)[1]
    assert re.findall(r'"[\w-]+>=[\d.]+"', listed) and not re.search(r"==|<|~=", listed)


def test_the_demo_fits_into_16_megabytes_and_is_shipped():
    files = [p for p in (ENGINE / "demo").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) <= 16_000_000
    suffixes = {p.suffix for p in files if p.parent.name == "demo"} - {".py"}
    patterns = re.search(r'"zimage_core\.demo" = \[(.*?)\]', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert all(f"*{suffix}" in patterns for suffix in suffixes)


def test_no_symlinks_and_utf8_everywhere():
    for path in python_files(ENGINE) + python_files(NODES) + python_files(ROOT / "tests"):
        assert not path.is_symlink()
        assert re.search(r"\.(read|write)_text\((?!.*encoding)", path.read_text(encoding="utf-8")) is None, path
