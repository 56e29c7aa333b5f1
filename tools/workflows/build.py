"""Makes the example graphs: built and saved by ComfyUI's own page, and drawn by the demo model in a real ComfyUI.

PYTHONPATH=tests python tools/workflows/build.py [zimage_turbo ...]

Each gives `workflows/NAME.json`, a NAME.jpg of its pictures (the thumbnail that ComfyUI shows), and a NAME.png of them
with the graph in it; the demo graph is stored as a prompt for the API too. Without names, `subgraphs` is made as well:
graphs as one node, for ComfyUI's node library. Needs a ComfyUI and a browser, as the tests in `tests/comfyui` do.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import notes
from comfyui.browser import Page, browser, why_no_browser
from comfyui.server import PACK, ROOT, Result, Server, why_not
from comfyui.workflow import on_the_demo, to_prompt
from graphs import BLUEPRINTS, GRAPHS, Blueprint, Box, Graph
from PIL import Image, PngImagePlugin

from zimage_core import __version__, downloads

FOLDER = ROOT / "workflows"
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IN_API_FORM = "zimage_demo"


def links() -> dict[str, tuple[str, str]]:
    """File name -> address and folder, of what the page can fetch."""
    tables = [*downloads.TRANSFORMERS.values(), downloads.TEXT_ENCODERS, {"": downloads.VAE}]
    files = [file for table in tables for file in table.values()]
    return {file.name: (file.link, file.folder) for file in files} | notes.OTHERS


def properties(box: Box) -> dict[str, Any]:
    if box.type == "MarkdownNote":
        return {}
    ours = {"cnr_id": PACK, "ver": __version__} if box.type.startswith("ZImage") else {"cnr_id": "comfy-core"}
    name = box.values.get("file")
    if name in links():
        url, folder = links()[name]
        ours["models"] = [{"name": name, "url": url, "directory": folder}]
    return ours


def script(name: str) -> str:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return text[text.index("async (") :]


def lay(page: Page, name: str, graph: Graph) -> None:
    columns = [[asdict(box) | {"properties": properties(box)} for box in column] for column in graph.columns]
    page.do(script("page.js"), {"id": steady(name), "columns": columns, "links": graph.links()})


def saved(page: Page) -> dict[str, Any]:
    """The graph as the page saves it, but for where the user looks: without that it opens as a whole."""
    graph = page.graph()
    graph["extra"].pop("ds", None)
    return graph


def save(page: Page, name: str, graph: Graph) -> dict[str, Any]:
    lay(page, name, graph)
    write(FOLDER / f"{name}.json", made := saved(page))
    if name == IN_API_FORM:
        (FOLDER / "api").mkdir(exist_ok=True)
        write(FOLDER / "api" / f"{name}.json", page.do("async () => (await app.graphToPrompt()).output"))
    return made


def save_blueprint(page: Page, name: str, blueprint: Blueprint) -> None:
    lay(page, name, blueprint.graph)
    page.do(script("blueprint.js"), {"title": name, "width": 400, "promoted": blueprint.promoted})
    made = saved(page)
    (inner,) = made["definitions"]["subgraphs"]
    inner |= {"category": "Z-Image", "description": blueprint.description}
    made["extra"] = {"BlueprintDescription": blueprint.description, "BlueprintSearchAliases": blueprint.aliases}
    text = json.dumps(made)
    for i, given in enumerate(dict.fromkeys(UUID.findall(text))):
        text = text.replace(given, steady(f"{name} {i}"))
    (ROOT / "subgraphs").mkdir(exist_ok=True)
    write(ROOT / "subgraphs" / f"{name}.json", json.loads(text))


def steady(name: str) -> str:
    """An id that stays the same each time that the graph is made."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(server: Server, name: str, graph: dict[str, Any]) -> None:
    prompt = on_the_demo(to_prompt(graph, server.get("/object_info")))
    result = server.run(prompt, timeout=600, extra_pnginfo={"workflow": graph})
    if result.status != "success":
        raise SystemExit(f"{name}: {result.status}: {result.error}")
    rows = pictures(server, result)
    sheet = below([beside([Image.open(file).convert("RGB") for file in row]) for row in rows])
    sheet.save(FOLDER / f"{name}.jpg", quality=95)
    chunks = PngImagePlugin.PngInfo()
    for key, text in Image.open(rows[-1][0]).text.items():
        chunks.add_text(key, text)
    sheet.save(FOLDER / f"{name}.png", pnginfo=chunks, optimize=True)


def pictures(server: Server, result: Result) -> list[list[Path]]:
    """What was shown and saved, a row for each node, what was saved last."""
    shown = {node: output["images"] for node, output in result.outputs.items() if output.get("images")}
    order = sorted(shown, key=lambda node: shown[node][0]["type"] == "output")
    return [[server.image(result, node, i) for i in range(len(shown[node]))] for node in order]


def beside(images: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (sum(other.width for other in images[:i]), 0))
    return sheet


def below(images: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (0, sum(other.height for other in images[:i])))
    return sheet


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            server.wait()
            with browser() as started:
                page = Page(started, server)
                graphs = {name: save(page, name, GRAPHS[name]) for name in names or GRAPHS}
                for name, blueprint in ({} if names else BLUEPRINTS).items():
                    save_blueprint(page, name, blueprint)
            for name, graph in graphs.items():
                draw(server, name, graph)
                print(f"{name}: saved and drawn")
        finally:
            server.stop()


if __name__ == "__main__":
    if reason := why_not() or why_no_browser():
        raise SystemExit(reason)
    main(sys.argv[1:])
