"""The command `zimage`, as a script sees it: exit codes, files, one sentence for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from oracles import ROOT
from PIL import Image

from zimage_core.cli import main

DEMO = ROOT / "zimage_core" / "demo"
PROMPT = "a red circle on a white background"
PARTS = [
    "--transformer", str(DEMO / "demo_base.safetensors"),
    "--text-encoder", str(DEMO / "demo_text_encoder.safetensors"),
    "--vae", str(DEMO / "demo_vae.safetensors"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as stop:  # argparse's own way out
        return int(stop.code or 0)


def test_the_demo_draws_at_once(tmp_path, capsys):
    assert run("generate", PROMPT, "-o", "out.png", "--seed", "5") == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (128, 128)
        settings = json.loads(image.text["zimage"])
        assert settings["prompt"] == PROMPT and settings["seed"] == 5
        assert (settings["cfg"], settings["guidance"], settings["steps"]) == (1, 0, 8)
        assert image.text["parameters"].startswith(PROMPT + "\nSteps: 8, Sampler: euler, CFG scale: 1, Seed: 5")
    out, err = capsys.readouterr()
    assert out == "out.png  seed 5\n" and err == ""  # no progress bar in a pipe


def test_several_pictures_are_numbered(tmp_path):
    assert run("generate", PROMPT, "-o", "a.png", "--count", "3", "--steps", "1", "--seed", "8") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-1.png", "a-2.png", "a-3.png"]
    with Image.open(tmp_path / "a-3.png") as image:
        assert json.loads(image.text["zimage"])["seed"] == 10


def test_single_files_and_every_option(tmp_path):
    options = "--steps 2 --guidance 3 --shift 4 --solver heun --dtype float32 --device cpu --size 160x96"
    assert run("generate", PROMPT, *PARTS, "--negative", "blue", *options.split(), "--variant", "base") == 0
    with Image.open(tmp_path / "zimage.png") as image:
        settings = json.loads(image.text["zimage"])
        assert image.size == (160, 96)
    expected = {"cfg": 4, "guidance": 3, "shift": 4, "solver": "heun", "forwards": 3, "negative": "blue"}
    assert {k: settings[k] for k in expected} == expected


def test_a_chinese_prompt_is_kept_whole(tmp_path):
    assert run("generate", "白色背景上的红色圆形", "--steps", "1") == 0
    with Image.open(tmp_path / "zimage.png") as image:
        assert json.loads(image.text["zimage"])["prompt"] == "白色背景上的红色圆形"


WRONG = {
    "a size": (["--size", "100x100"], ["100x100", "96x96"]),
    "a size's name": (["--size", "enormous"], ["enormous", "square_hd"]),
    "no steps": (["--steps", "0"], ["steps is 0"]),
    "cfg": (["--cfg", "0"], ["cfg is 0"]),
    "count": (["--count", "0"], ["count is 0"]),
    "no such file": (["--transformer", "nothing.safetensors", *PARTS[2:]], ["nothing.safetensors"]),
    "a file that is something else": (["--transformer", PARTS[5], *PARTS[2:]], ["demo_vae.safetensors", "VAE"]),
    "no such model": (["--model", "nowhere"], ["nowhere", "demo-turbo"]),
    "a model that is a file": (["--model", PARTS[1]], ["demo_base.safetensors", "transformer"]),
    "no such tokenizer": (["--tokenizer", "nowhere"], ["nowhere", "tokenizer.json"]),
    "a number that is none": (["--cfg", "nan"], ["cfg is nan"]),
    "an endless shift": (["--shift", "inf"], ["shift is inf"]),
    "a word for a number": (["--steps", "many"], ["--steps", "many"]),
    "both scales": (["--cfg", "3", "--guidance", "2"], ["--guidance", "--cfg"]),
    "no such solver": (["--solver", "magic"], ["magic", "euler"]),
    "parts missing": (PARTS[:2], ["--text-encoder", "--vae"]),
    "a folder that is not there": (["-o", "no/such/folder/x.png"], ["folder"]),
    "a target that is a folder": (["-o", "folder.png"], ["folder.png"]),
    "a target of another type": (["-o", "x.jpg"], ["x.jpg", "PNG"]),
    "a device that is not here": (["--device", "quantum"], ["quantum"]),
    "a device that holds nothing": (["--device", "meta"], ["meta"]),
    "a demo with another part": (["--model", "demo-turbo", *PARTS[4:]], ["demo-turbo", "--vae"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_sentence_and_exit_code_2(case, tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    arguments, words = WRONG[case]
    assert run("generate", PROMPT, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_an_unwritable_target(tmp_path, capsys, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    assert run("generate", PROMPT) == 2
    assert "zimage.png cannot be written: Permission denied" in capsys.readouterr().err


def test_a_picture_that_cannot_be_finished_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "zimage.png").write_bytes(b"an older picture")

    def fail(self, file, **options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        run("generate", PROMPT, "--steps", "1")
    assert [p.name for p in tmp_path.iterdir()] == ["zimage.png"]
    assert (tmp_path / "zimage.png").read_bytes() == b"an older picture"


def test_sizes(capsys, tmp_path):
    assert run("sizes") == 0
    listed = capsys.readouterr().out
    assert all(text in listed for text in ("1472x1104", "16:9", "square_hd", "demo:"))
    Image.new("RGB", (3000, 2000)).save(tmp_path / "holiday.jpg")
    assert run("sizes", "--fit", "holiday.jpg", "--class", "1536") == 0
    assert "fits 1872x1248 (1536, 3:2)" in capsys.readouterr().out
    assert run("sizes", "--fit", "nothing.jpg") == 2


def test_inspect(capsys):
    assert run("inspect", PARTS[1], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["layout"], facts["variant"]) == ("transformer", "original", "base")
    assert facts["geometry"]["dim"] == 128
    assert run("inspect", PARTS[3]) == 0
    assert "num_hidden_layers 3" in capsys.readouterr().out
    assert run("inspect", str(ROOT / "LICENSE")) == 2


@pytest.mark.parametrize("command", [[], ["generate"], ["sizes"], ["inspect"]])
def test_help_shows_an_example(command, capsys):
    assert run(*command, "--help") == 0
    text = capsys.readouterr().out
    assert "usage: zimage" in text and (not command or f"  zimage {command[0]} " in text)


def test_bytes_that_are_no_text(capsys):
    assert run("generate", "caf\udce9") == 2
    assert "UTF-8" in capsys.readouterr().err


def test_what_is_drawn_before_a_stop_is_kept(tmp_path, monkeypatch):
    import zimage_core.cli.generate as command

    def stop_at_the_second(image, target, settings):
        if target.name == "a-2.png":
            raise KeyboardInterrupt
        save_png(image, target, settings)

    save_png = command.save_png
    monkeypatch.setattr(command, "save_png", stop_at_the_second)
    assert run("generate", PROMPT, "-o", "a.png", "--count", "3", "--steps", "1") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a-1.png"]


def test_a_reader_who_leaves_early_is_no_error():
    command = [sys.executable, "-m", "zimage_core", "sizes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_as_a_process():
    command = [sys.executable, "-m", "zimage_core", "sizes"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 and done.stderr == ""
    wrong = subprocess.run([*command, "--class", "9"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert wrong.returncode == 2
