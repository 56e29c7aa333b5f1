"""The Chinese words: whole, in a form that ComfyUI's page can read, and the same on labels and help pages.

That they fit the nodes is told by the nodes themselves, in `tests/comfyui/test_server_locales.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from oracles import ROOT

LOCALE, DOCS, JS = ROOT / "locales" / "zh", ROOT / "js" / "docs", ROOT / "js"
# What Chinese users call by these names too.
SAME = {"cfg", "clip", "Latent", "VAE", "Z-Image"}
GUIDES = {"ZImageAdvice", "ZImageLive"}  # pages of no node
PAGES = sorted(path.stem for path in DOCS.glob("ZImage*.md"))


def read(name: str) -> dict[str, Any]:
    return json.loads((LOCALE / f"{name}.json").read_text(encoding="utf-8"))


def strings(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(tree, str):
        yield path, tree
        return
    for key, value in tree.items():
        yield from strings(value, (*path, key))


EVERY = [(path, text) for name in ("main", "nodeDefs", "commands", "settings") for path, text in strings(read(name))]


def test_every_word_is_chinese() -> None:
    assert [text for _, text in EVERY if text not in SAME and not re.search("[一-鿿]", text)] == []


def test_the_page_can_read_every_word() -> None:
    """It takes some signs for the syntax of its messages, tooltips apart, and a dot in a key for a step down."""
    compiled = [text for path, text in EVERY if path[-1] not in ("tooltip", "placeholder")]
    assert [text for text in compiled if re.search(r"[@{}|]", text)] == []
    assert [path for path, _ in EVERY if "." in "".join(path)] == []


def ids_in_scripts() -> set[str]:
    """`ZImage.Live.Keep` and the like: commands, settings, and the extensions' own names."""
    texts = [path.read_text(encoding="utf-8") for path in JS.glob("*.js")]
    found = {name for text in texts for name in re.findall(r'"(ZImage\.[\w.]+)"', text)}
    return found - {name for text in texts for name in re.findall(r'\n  name: "(ZImage\.[\w.]+)"', text)}


def test_every_command_and_setting_is_there_and_no_other() -> None:
    translated = set(read("commands")) | set(read("settings"))
    assert translated == {name.replace(".", "_") for name in ids_in_scripts()}


def test_every_command_has_its_words_in_the_menu() -> None:
    labels = {
        label
        for path in JS.glob("*.js")
        for label in re.findall(r'label: "(Z-Image: [^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert labels and labels == {key for key in read("main")["menuLabels"] if ":" in key}


def pages(language: str) -> dict[str, str]:
    paths = DOCS.glob("ZImage*.md") if language == "en" else DOCS.glob("ZImage*/zh.md")
    name = (lambda path: path.stem) if language == "en" else (lambda path: path.parent.name)
    return {name(path): path.read_text(encoding="utf-8") for path in paths}


def test_every_page_is_there_in_both_languages() -> None:
    assert set(pages("en")) == set(pages("zh")) == set(read("nodeDefs")) | GUIDES


@pytest.mark.parametrize("node", sorted(set(PAGES) - GUIDES))
def test_the_pages_name_what_the_node_shows(node: str) -> None:
    words, english, chinese = read("nodeDefs")[node], pages("en")[node], pages("zh")[node]
    assert chinese.startswith(f"# {words['display_name']}\n")
    for key, entry in words["inputs"].items():
        assert re.search(rf"\b{key.split('_', 1)[-1]}\b|\b{key}\b", english), key
        assert entry["name"] in chinese, key
    for entry in words.get("outputs", {}).values():
        assert entry["name"] in chinese


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_have_the_same_parts(page: str) -> None:
    """A row, a heading or a paragraph that was added to one of the two is missed in the other."""

    def parts(text: str) -> dict[str, int]:
        lines = text.splitlines()
        return {
            "rows": sum(line.startswith("|") for line in lines),
            "headings": sum(line.startswith("#") for line in lines),
            "paragraphs": sum(bool(line) and line[0] not in "|#" for line in lines),
            "links": len(re.findall(r"\]\(", text)),
        }

    assert parts(pages("zh")[page]) == parts(pages("en")[page])


LINK = r"\]\(((?!https?:)[^)#]+)(#[^)]*)?\)"


def test_every_link_and_picture_of_a_page_is_there() -> None:
    for path in DOCS.rglob("*.md"):
        for target, anchor in re.findall(LINK, path.read_text(encoding="utf-8")):
            found = path.parent / target
            assert found.is_file(), f"{path.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.M)
                assert anchor[1:] in {anchor_of(heading) for heading in headings}, f"{path.name}: {anchor}"


def anchor_of(heading: str) -> str:
    """GitHub's, and that of `js/lib/pages.mjs`."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower()))
