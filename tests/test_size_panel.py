"""The numbers of the panel in the browser, which computes them by itself, against the engine's."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from oracles import ROOT

from zimage_core.sizes import SIZES, Size, memory, round_size

SCRIPT = """
const { inOfficialRange, megapixels, memory, snap, tokens } = await import(process.argv[1]);
const numbers = ([width, height, batch]) => {
  const { drawing, decoding } = memory(width, height, batch);
  return [tokens(width, height), megapixels(width, height), drawing, decoding, inOfficialRange(width, height),
    snap(width - 9), snap(height + 8)];
};
console.log(JSON.stringify(JSON.parse(process.argv[2]).map(numbers)));
"""


def numbers(size: Size, batch: int) -> list[object]:
    need, snapped = memory(size.width, size.height, batch), round_size(size.width - 9, size.height + 8)
    megapixels = int(size.width * size.height / 1e4 + 0.5) / 100
    official = size.in_official_range
    return [size.tokens, megapixels, need.drawing, need.decoding, official, snapped.width, snapped.height]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the browser's script")
def test_the_panel_has_the_engines_numbers() -> None:
    sizes = [*SIZES, Size(16, 16), Size(8192, 8192), Size(512, 496), Size(512, 512), Size(4096, 1024), Size(2064, 2048)]
    asked = [(size.width, size.height, batch) for size in sizes for batch in (1, 3)]
    command = ["node", "--input-type=module", "-e", SCRIPT, (ROOT / "js/lib/sizes.mjs").as_uri(), json.dumps(asked)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == [numbers(Size(width, height), batch) for width, height, batch in asked]
