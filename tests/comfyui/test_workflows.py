"""Every example graph through a real server, its loaders pointed at the demo; and the server used as people use it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui.graphs import assert_red_circle, demo_prompt, succeed
from comfyui.server import HOST, ROOT, Result, Server
from comfyui.workflow import on_the_demo, to_prompt
from PIL import Image

GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
# Steps and the sizes of what is saved, where it is not 8 steps of Turbo and one square.
STEPS = {"zimage_base": 30, "zimage_explore_and_refine": 8 + 30}
SQUARE = (128, 128)
SIZES = {
    "zimage_poster": [(96, 160)],
    "zimage_prompt_batch": [SQUARE] * 4,
    "zimage_explore_and_refine": [SQUARE] * 2,
}


def pixels(server: Server, result: Result, node: str) -> list[np.ndarray[Any, Any]]:
    images = result.outputs[node]["images"]
    return [np.asarray(Image.open(server.image(result, node, i)).convert("RGB")) for i in range(len(images))]


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_it_runs_with_a_preview_at_each_step_and_draws_what_lies_beside_it(server: Server, path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    prompt = on_the_demo(to_prompt(graph, server.get("/object_info")))
    server.free()  # nothing of another test's is taken for this one's
    result = succeed(server.run(prompt, extra_pnginfo={"workflow": graph}))
    samplers = [name for name, node in prompt.items() if node["class_type"] == "ZImageSampler"]
    steps = [result.progress(name)[-1] for name in samplers]
    assert sum(last for last, _ in steps) == STEPS.get(path.stem, 8) == len(result.previews)
    assert all(last == of for last, of in steps)
    (saved,) = [name for name, node in prompt.items() if node["class_type"] == "SaveImage"]
    drawn = pixels(server, result, saved)
    assert [picture.shape[1::-1] for picture in drawn] == SIZES.get(path.stem, [SQUARE])
    assert json.loads(Image.open(server.image(result, saved)).text["workflow"]) == graph
    row = np.concatenate(drawn, axis=1)
    beside = np.asarray(Image.open(path.with_suffix(".png")).convert("RGB")).astype(float)
    assert np.abs(row - beside[-row.shape[0] :, : row.shape[1]]).mean() < 2


def test_the_list_of_templates_holds_graphs_alone(server: Server) -> None:
    assert sorted(server.get("/workflow_templates")[server.pack.name]) == [path.stem for path in GRAPHS]
    for path in GRAPHS:
        assert server.get(f"/api/workflow_templates/{server.pack.name}/{path.name}")["version"] == 0.4
        assert server.get_bytes(f"/api/workflow_templates/{server.pack.name}/{path.stem}.jpg")[:2] == b"\xff\xd8"


def test_the_node_library_has_the_blueprints(server: Server) -> None:
    found = {
        v["name"]: key
        for key, v in server.get("/global_subgraphs").items()
        if server.pack.name in v["info"]["node_pack"]
    }
    for path in (ROOT / "subgraphs").glob("*.json"):
        assert server.get(f"/global_subgraphs/{found[path.stem]}")["data"] == path.read_text(encoding="utf-8")
    assert len(found) == 2


def test_the_api_form_is_the_demo_graph(server: Server) -> None:
    graph = json.loads((ROOT / "workflows" / "zimage_demo.json").read_text(encoding="utf-8"))
    stored = json.loads((ROOT / "workflows" / "api" / "zimage_demo.json").read_text(encoding="utf-8"))
    bare = {name: {key: node[key] for key in ("class_type", "inputs")} for name, node in stored.items()}
    assert bare == to_prompt(graph, server.get("/object_info"))


def test_the_script_in_the_readme(server: Server, tmp_path: Path) -> None:
    (script,) = re.findall(r"```py\n(import json.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows")
    here = script.replace("127.0.0.1:8188", f"{HOST}:{server.port}")
    assert here != script
    done = subprocess.run([sys.executable, "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (picture,) = tmp_path.glob("*.png")
    assert_red_circle(picture)


def test_the_same_seed_after_free_gives_the_same_pixels(server: Server) -> None:
    prompt = demo_prompt(seed=41)
    first = succeed(server.run(prompt))
    server.free()
    again = succeed(server.run(prompt))
    assert {"model", "clip", "vae", "sampler"} <= set(again.executed)
    assert (pixels(server, first, "save")[0] == pixels(server, again, "save")[0]).all()


def test_two_prompts_at_once(server: Server) -> None:
    """Two people's, with different models: each gets its own pictures, previews and words."""
    prompts = [demo_prompt(seed=42), demo_prompt(variant="Base", negative=["empty", 0], seed=42, batch=2)]
    alone = [pixels(server, succeed(server.run(prompt)), "save") for prompt in prompts]
    server.free()
    with ThreadPoolExecutor(2) as pool:
        results = [succeed(result) for result in pool.map(server.run, prompts)]
    assert [len(result.previews) for result in results] == [8, 30]
    assert [result.texts["sampler"].split(" ")[0] for result in results] == ["Turbo", "Base"]
    for expected, result in zip(alone, results, strict=True):
        found = pixels(server, result, "save")
        assert len(found) == len(expected)
        assert all((a == b).all() for a, b in zip(expected, found, strict=True))


def test_drawn_again_after_an_interruption(server: Server) -> None:
    mode = {"mode": "Turbo", "mode.steps": 300, "mode.cfg": 1.0}
    assert server.run(demo_prompt(mode=mode, seed=43), interrupt_after=2).status == "interrupted"
    result = succeed(server.run(demo_prompt(seed=43)))
    assert result.progress("sampler")[-1] == (8, 8)


@pytest.mark.parametrize(
    "node, name, value",
    [
        ("sampler", "seed", -1),
        ("sampler", "strength", 1.5),
        ("sampler", "shift", -1.0),
        ("sampler", "solver", "eulerr"),
        ("size", "batch_size", 0),
        ("model", "variant", "turbine"),
        ("model", "file", "gone.safetensors"),
        ("clip", "file", "gone.safetensors"),
        ("vae", "file", "gone.safetensors"),
    ],
)
def test_out_of_range_is_refused_by_name(server: Server, node: str, name: str, value: Any) -> None:
    prompt = demo_prompt()
    prompt[node]["inputs"][name] = value
    result = server.run(prompt)
    assert result.status == "refused"
    (error,) = result.error["node_errors"][node]["errors"]
    assert name in error["details"] or f"'{value}'" in error["details"]


@pytest.mark.parametrize("steps, cfg, words", [(-1, 1.0, "steps"), (8, 0.5, "cfg is 0.5"), (5000, 1.0, "steps")])
def test_a_mode_out_of_range_is_told(server: Server, steps: int, cfg: float, words: str) -> None:
    result = server.run(demo_prompt(mode={"mode": "auto", "mode.steps": steps, "mode.cfg": cfg}))
    assert result.status in ("refused", "error")
    assert words in json.dumps(result.error)
