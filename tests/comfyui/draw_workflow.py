"""Runs a saved graph in a real ComfyUI and writes its picture beside it, as the thumbnail that ComfyUI shows.

python tests/comfyui/draw_workflow.py workflows/zimage_demo.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from comfyui.server import Server, why_not
from comfyui.workflow import to_prompt
from PIL import Image


def draw(workflow: Path) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            server.wait()
            graph = json.loads(workflow.read_text(encoding="utf-8"))
            result = server.run(to_prompt(graph, server.get("/object_info")), timeout=600)
            if result.status != "success":
                raise SystemExit(f"{workflow.name}: {result.status}: {result.error}")
            node = next(name for name, output in result.outputs.items() if output.get("images"))
            target = workflow.with_suffix(".jpg")
            with Image.open(server.image(result, node)) as picture:
                picture.convert("RGB").save(target, quality=95)
        finally:
            server.stop()
    return target


if __name__ == "__main__":
    if reason := why_not():
        raise SystemExit(reason)
    for argument in sys.argv[1:]:
        print(f"{draw(Path(argument))}: drawn")
