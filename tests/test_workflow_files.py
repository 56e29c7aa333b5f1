"""The example graphs as files: what they say about models, how they lie on the canvas, the pictures beside them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from oracles import ROOT
from PIL import Image

from zimage_core import __version__, downloads

FOLDER = ROOT / "workflows"
GRAPHS = sorted(FOLDER.glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
LOADERS = {
    "ZImageTransformerLoader": "diffusion_models",
    "ZImageTextEncoderLoader": "text_encoders",
    "ZImageVAELoader": "vae",
}
LINK = r"https://huggingface\.co/([\w-]+/[\w.-]+)/resolve/main/([\w./-]+)"
TITLE = 30  # a node's title stands above its position
every_graph = pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)


def graph_of(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def loaders(graph: dict) -> list[dict]:
    return [node for node in graph["nodes"] if node["type"] in LOADERS]


def note(graph: dict) -> str:
    (text,) = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    return text


def test_what_is_shipped():
    """ComfyUI lists each .json of the folder as a template, so what is none lies deeper."""
    names = [path.stem for path in GRAPHS]
    asked = ["demo", "turbo", "base", "turbo_gguf_6gb", "turbo_fp8_8gb", "poster", "prompt_batch", "explore_and_refine"]
    assert {f"zimage_{name}" for name in asked} <= set(names)
    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert files == {f"{name}.{suffix}" for name in names for suffix in ("json", "jpg", "png")}
    assert [path.name for path in (FOLDER / "api").iterdir()] == ["zimage_demo.json"]


@every_graph
def test_the_graph_is_a_saved_one_and_says_whose_nodes_it_has(path):
    graph = graph_of(path)
    assert graph["version"] == 0.4
    assert len({node["id"] for node in graph["nodes"]}) == len(graph["nodes"])
    for node in graph["nodes"]:
        pack = {"cnr_id": "zimage-nodes", "ver": __version__} if node["type"].startswith("ZImage") else {}
        assert pack.items() <= node["properties"].items(), node["type"]


@every_graph
def test_links_fit_the_widgets(path):
    """The page offers a file for download if a link's name is the widget's value; a GGUF it never does."""
    graph = graph_of(path)
    known = {file.name: file for table in downloads.TRANSFORMERS.values() for file in table.values()}
    known |= {file.name: file for file in [*downloads.TEXT_ENCODERS.values(), downloads.VAE]}
    for node in loaders(graph):
        file = node["widgets_values"][0]
        links = node["properties"].get("models", [])
        if file.startswith("demo:") or file.endswith(".gguf"):
            assert not links
            continue
        (link,) = links
        assert link["name"] == file == re.fullmatch(LINK, link["url"])[2].rpartition("/")[2]
        assert link["directory"] == LOADERS[node["type"]]
        assert file not in known or (known[file].link, known[file].folder) == (link["url"], link["directory"])


@every_graph
def test_the_note_names_each_file_its_folder_and_who_drew_the_picture(path):
    graph = graph_of(path)
    text = note(graph)
    for node in loaders(graph):
        file, folder = node["widgets_values"][0], LOADERS[node["type"]]
        if not file.startswith("demo:"):
            assert re.search(rf"\[{re.escape(file)}\]\({LINK}\)(?: \([^)]+\))? in models/{folder}", text), file
            assert "drawn by the built-in demo model" in text
    assert f"models/{folder}" in text


@every_graph
def test_nodes_stand_apart(path):
    """With a third of a title to spare, since the newer renderer's nodes are taller."""
    boxes = [(*node["pos"], *node["size"], node["type"]) for node in graph_of(path)["nodes"]]
    for one, other in combinations(boxes, 2):
        apart = one[0] + one[2] <= other[0] or other[0] + other[2] <= one[0]
        above = one[1] + one[3] + TITLE + 30 <= other[1] or other[1] + other[3] + TITLE + 30 <= one[1]
        assert apart or above, (one, other)


@every_graph
def test_pictures_are_small_and_the_png_holds_the_graph(path):
    picture, drawn = path.with_suffix(".jpg"), path.with_suffix(".png")
    assert picture.stat().st_size < 60_000 and drawn.stat().st_size < 150_000
    png = Image.open(drawn)
    assert json.loads(png.text["workflow"]) == graph_of(path)
    assert json.loads(png.text["zimage"])["width"] <= 160  # the record says it was the demo
    assert png.size == Image.open(picture).size


def test_no_two_graphs_have_one_id():
    ids = [graph_of(path)["id"] for path in GRAPHS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_node_of_our_nodes_and_links_its_files(path):
    graph = graph_of(path)
    (node,), (inner,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == inner["id"] and [output["type"] for output in node["outputs"]] == ["IMAGE"]
    assert node["title"] == inner["name"] == path.stem  # the node library shows the name of the file
    assert inner["description"] and inner["category"] == "Z-Image"
    shown = {entry["name"]: entry["linkIds"] for entry in inner["inputs"]}
    asked = {"prompt", "width", "height", "batch_size", "seed", "model", "text_encoder", "vae"}
    assert asked <= set(shown) and all(len(links) == 1 for links in shown.values())
    for loader in loaders(inner):
        (link,) = loader["properties"]["models"]
        assert link["name"] == loader["widgets_values"][0] and re.fullmatch(LINK, link["url"])
        assert link["name"] in node["widgets_values"]


def test_a_blueprint_for_each_variant_under_a_name_of_its_own():
    """ComfyUI keeps blueprints by name, and ships some for Z-Image itself."""
    names = [path.stem for path in BLUEPRINTS]
    assert names == ["Z-Image Base - Text to Image", "Z-Image Turbo - Text to Image"]
