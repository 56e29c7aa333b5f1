"""A real server: what the nodes look like to it, what runs, what arrives, what the pictures hold."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from comfyui.graphs import DEMO, assert_red_circle, demo_prompt, node, succeed
from comfyui.server import ROOT, Result, Server
from comfyui.workflow import to_prompt
from PIL import Image
from safetensors.torch import load_file, save_file

# Saved graphs hold widget values by position: these lists may only grow at their ends.
WIDGETS = {
    "ZImageTransformerLoader": ["file", "variant", "dtype", "joint_cfg"],
    "ZImageTextEncoderLoader": ["file"],
    "ZImageVAELoader": ["file"],
    "ZImageLatentSize": ["size", "batch_size", "swap"],
    "ZImageSampler": ["seed", "mode", "solver", "strength", "shift", "draft", "preview"],
    "ZImageTextEncode": ["positive", "negative"],
    "ZImagePromptBatch": ["prompts", "negative"],
    "ZImageGuider": ["cfg", "cfg_normalization", "cfg_truncation"],
    "ZImageSigmas": ["steps", "strength", "shift"],
    "ZImageModelSampling": ["preset"],
    "ZImagePickSeeds": ["seeds"],
    "ZImageCompare": ["seed"],
}
SLOTS = {
    "ZImageSampler": ["model", "positive", "latent", "negative"],
    "ZImageTextEncode": ["clip"],
    "ZImagePromptBatch": ["clip"],
    "ZImageGuider": ["model", "positive", "negative"],
    "ZImageSigmas": ["model"],
    "ZImageModelSampling": ["model"],
    "ZImagePickSeeds": ["latent", "images"],
    "ZImageCompare": ["model_a", "model_b", "positive", "latent", "vae", "negative"],
}
MODES = {
    "auto": {"steps": 0, "cfg": 0.0},
    "Turbo": {"steps": 8, "cfg": 1.0},
    "Base": {"steps": 30, "cfg": 5.0, "cfg_normalization": False, "cfg_truncation": 1.0},
}
TITLES = {
    "ZImageTransformerLoader": ("Load Z-Image Model", ["MODEL"]),
    "ZImageTextEncoderLoader": ("Load Z-Image Text Encoder", ["CLIP"]),
    "ZImageVAELoader": ("Load Z-Image VAE", ["VAE"]),
    "ZImageLatentSize": ("Z-Image Empty Latent", ["LATENT", "INT", "INT"]),
    "ZImageSampler": ("Z-Image Sampler", ["LATENT"]),
    "ZImageTextEncode": ("Z-Image Text Encode", ["CONDITIONING", "CONDITIONING"]),
    "ZImagePromptBatch": ("Z-Image Prompt Batch", ["CONDITIONING", "CONDITIONING", "INT"]),
    "ZImageGuider": ("Z-Image Guider", ["GUIDER"]),
    "ZImageSigmas": ("Z-Image Sigmas", ["SIGMAS"]),
    "ZImageModelSampling": ("Z-Image Model Sampling", ["MODEL"]),
    "ZImagePickSeeds": ("Z-Image Pick Seeds", ["LATENT", "IMAGE"]),
    "ZImageCompare": ("Z-Image Compare", ["IMAGE", "IMAGE", "IMAGE"]),
}


def widgets(info: dict[str, Any]) -> list[str]:
    return [name for part in info["input_order"].values() for name in part if name not in SLOTS.get(info["name"], [])]


def test_every_node_is_listed(server: Server) -> None:
    nodes = server.get("/object_info").items()
    assert {name for name, info in nodes if info["python_module"].endswith(server.pack.name)} == set(WIDGETS)


@pytest.mark.parametrize("node_id", WIDGETS)
def test_widgets_stay_where_they_are(server: Server, node_id: str) -> None:
    info = server.node(node_id)
    assert widgets(info)[: len(WIDGETS[node_id])] == WIDGETS[node_id]
    assert (info["display_name"], info["output"]) == TITLES[node_id]
    assert info["category"] == "Z-Image"
    documented = [*info["input"]["required"].values(), *info["input"].get("optional", {}).values()]
    assert all(len(entry) > 1 and entry[1].get("tooltip") for entry in documented)


def test_modes_stay_as_they_are(server: Server) -> None:
    options = server.node("ZImageSampler")["input"]["required"]["mode"][1]["options"]
    found = {o["key"]: {name: entry[1]["default"] for name, entry in o["inputs"]["required"].items()} for o in options}
    assert found == MODES
    assert list(found) == list(MODES)
    assert all(list(found[key]) == list(MODES[key]) for key in MODES)
    solvers = server.node("ZImageSampler")["input"]["required"]["solver"][1]["options"]
    assert solvers[0] == "euler"
    assert set(solvers) == set(server.node("KSampler")["input"]["required"]["sampler_name"][0])


def test_presets_stay_as_they_are(server: Server) -> None:
    options = server.node("ZImageModelSampling")["input"]["required"]["preset"][1]["options"]
    found = {o["key"]: list(o["inputs"].get("required", {})) for o in options}
    assert found == {"auto": [], "Turbo": [], "Base": [], "custom": ["shift"]}


def test_every_node_has_its_page(server: Server) -> None:
    for node_id in WIDGETS:
        page = server.get_bytes(f"/extensions/{server.pack.name}/docs/{node_id}.md").decode()
        assert len(page) > 200


def test_demo_is_the_default_without_files(server: Server) -> None:
    file = server.node("ZImageTransformerLoader")["input"]["required"]["file"]
    assert file[1]["options"] == [f"{DEMO} (Turbo)", f"{DEMO} (Base)"]
    assert file[1]["default"] == f"{DEMO} (Turbo)"
    sizes = server.node("ZImageLatentSize")["input"]["required"]["size"][1]["options"]
    assert [o["key"] for o in sizes] == ["demo", "1024 px", "1280 px", "1536 px", "720 px", "custom", "fit image"]


def test_recognised_files_come_first(server: Server) -> None:
    folder = server.base / "models" / "diffusion_models"
    weights = server.pack / "zimage_core" / "demo"
    try:
        (folder / "a_text.safetensors").write_text("not a model", encoding="utf-8")
        shutil.copy(weights / "demo_vae.safetensors", folder / "b_vae.safetensors")
        shutil.copy(weights / "demo_base.safetensors", folder / "z_image_mine.safetensors")
        file = server.node("ZImageTransformerLoader")["input"]["required"]["file"][1]
        size = server.node("ZImageLatentSize")["input"]["required"]["size"][1]["options"][0]["key"]
    finally:
        for path in folder.iterdir():
            path.unlink()
    names = ["z_image_mine.safetensors", "a_text.safetensors", "b_vae.safetensors"]
    assert file["options"] == [*names, f"{DEMO} (Turbo)", f"{DEMO} (Base)"]
    assert file["default"] == "z_image_mine.safetensors"
    assert size == "1024 px"


@pytest.fixture(scope="module")
def demo_run(server: Server) -> Result:
    """The shipped workflow, as it is."""
    graph = json.loads((ROOT / "workflows" / "zimage_demo.json").read_text(encoding="utf-8"))
    assert graph["version"] == 0.4
    ours = [n for n in graph["nodes"] if n["type"].startswith("ZImage")]
    assert {n["properties"]["cnr_id"] for n in ours} == {"zimage-nodes"}
    prompt = to_prompt(graph, server.get("/object_info"))
    server.free()
    return succeed(server.run(prompt))


def test_demo_workflow_runs_with_previews(demo_run: Result) -> None:
    (sampler,) = [name for name, text in demo_run.texts.items() if " steps" in text]
    assert demo_run.progress(sampler) == [(i, 8) for i in range(1, 9)]
    assert len(demo_run.previews) == 8
    assert all(b"\xff\xd8\xff" in preview for preview in demo_run.previews)  # JPEG
    assert demo_run.texts[sampler] == demo_run.outputs[sampler]["text"][0]
    assert "8 steps" in demo_run.texts[sampler]


def test_demo_workflow_draws_a_red_circle(server: Server, demo_run: Result) -> None:
    saved = next(name for name, output in demo_run.outputs.items() if "images" in output)
    assert_red_circle(server.image(demo_run, saved))


def test_png_holds_the_settings(server: Server) -> None:
    result = succeed(server.run(demo_prompt(negative=["empty", 0], seed=3)))
    settings = json.loads(Image.open(server.image(result, "save")).text["zimage"])
    expected = {
        "width": 128, "height": 128, "count": 1, "steps": 8, "cfg": 1.0, "guidance": 0.0, "shift": 3.0,
        "shift_source": "from the model", "seed": 3, "solver": "euler", "forwards": 8, "strength": 1.0,
        "variant": "turbo", "variant_source": "metadata", "mode": "auto", "draft": False,
    }  # fmt: skip
    assert expected.items() <= settings.items()
    assert settings["notes"] == ["the negative prompt has no effect at cfg 1 and is not evaluated"]
    assert "not evaluated" in result.texts["sampler"]
    assert "Z-Image Sampler: Turbo" in server.log_text()


def test_base_with_guidance(server: Server) -> None:
    mode = {
        "mode": "Base",
        "mode.steps": 4,
        "mode.cfg": 4.0,
        "mode.cfg_normalization": True,
        "mode.cfg_truncation": 0.9,
    }
    result = succeed(server.run(demo_prompt(variant="Base", negative=["empty", 0], mode=mode, batch=2)))
    assert "cfg 4 (guidance 3)" in result.texts["sampler"]
    assert len(result.outputs["save"]["images"]) == 2


def test_hosts_nodes_take_our_parts(server: Server) -> None:
    prompt = demo_prompt()
    prompt["sampler"] = node(
        "KSampler", model=["shifted", 0], positive=["text", 0], negative=["empty", 0], latent_image=["size", 0],
        seed=1, steps=4, cfg=1.0, sampler_name="res_multistep", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    prompt["shifted"] = node("ModelSamplingAuraFlow", model=["model", 0], shift=3.0)
    result = succeed(server.run(prompt))
    assert len(result.previews) == 4
    assert Image.open(server.image(result, "save")).size == (128, 128)


def test_shift_from_the_graph(server: Server) -> None:
    prompt = demo_prompt(model=["shifted", 0])
    prompt["shifted"] = node("ModelSamplingAuraFlow", model=["model", 0], shift=2.0)
    assert "shift 2 (from the graph)" in succeed(server.run(prompt)).texts["sampler"]


def test_interrupt(server: Server) -> None:
    mode = {"mode": "Turbo", "mode.steps": 500, "mode.cfg": 1.0}
    result = server.run(demo_prompt(mode=mode), interrupt_after=3)
    assert result.status == "interrupted"
    assert len(result.progress("sampler")) < 30


def test_bad_inputs_get_one_sentence(server: Server) -> None:
    no_negative = server.run(demo_prompt(variant="Base"))
    assert no_negative.status == "error"
    assert "connect a second CLIP Text Encode" in no_negative.error["exception_message"]
    sized = demo_prompt()
    sized["size"]["inputs"] = {"size": "custom", "size.width": ["far", 0], "size.height": 1024, "batch_size": 1}
    sized["far"] = node("PrimitiveInt", value=9000)
    result = server.run(sized)
    assert result.status == "error"
    assert (
        "9000x1024 cannot be drawn: both sides must be multiples of 16 from 16 to 8192"
        in result.error["exception_message"]
    )
    gone = demo_prompt()
    gone["model"]["inputs"]["file"] = "gone.safetensors"
    assert server.run(gone).status == "refused"


def test_unchanged_graph_is_not_drawn_again(server: Server) -> None:
    prompt = demo_prompt(seed=11)
    assert "sampler" in succeed(server.run(prompt)).executed
    again = succeed(server.run(prompt))
    assert "sampler" not in again.executed


def test_png_holds_the_settings_of_a_latent_that_was_kept(server: Server) -> None:
    mode = {"mode": "auto", "mode.steps": 0, "mode.cfg": 0}
    prompt = demo_prompt(seed=12, mode=mode, strength=1, shift=0)  # whole numbers, as a browser writes them
    succeed(server.run(prompt))
    prompt["save"]["inputs"]["filename_prefix"] = "again"
    result = succeed(server.run(prompt, extra_pnginfo={"workflow": {"nodes": []}}))
    assert "sampler" not in result.executed
    text = Image.open(server.image(result, "save")).text
    assert json.loads(text["zimage"])["seed"] == 12
    assert json.loads(text["workflow"]) == {"nodes": []}


def twice_as_wide(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A weight of a Qwen3 of hidden size 128, for one of 256."""
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return tensor
    axis = 0 if name.endswith(("o_proj.weight", "down_proj.weight")) else -1
    return torch.cat((tensor, tensor), dim=axis)


def test_parts_of_different_models_get_one_sentence(server: Server) -> None:
    """What a folder with a real model and no text encoder yet leads to, the other way round."""
    encoder = server.base / "models" / "text_encoders" / "wide.safetensors"
    tensors = load_file(str(ROOT / "zimage_core" / "demo" / "demo_text_encoder.safetensors"))
    tokenizer = encoder.parent / "tokenizer"
    try:
        save_file({k: twice_as_wide(k, t) for k, t in tensors.items()}, str(encoder))
        shutil.copytree(ROOT / "zimage_core" / "demo" / "tokenizer", tokenizer)
        prompt = demo_prompt()
        prompt["clip"]["inputs"]["file"] = encoder.name
        result = server.run(prompt)
    finally:
        encoder.unlink()
        shutil.rmtree(tokenizer, ignore_errors=True)
    assert result.status == "error"
    assert "features are 256 wide and this model takes 128" in result.error["exception_message"]


@pytest.mark.parametrize(
    "name, words", [("sampler", "mode must be one of auto, Turbo, Base"), ("size", "size must be one of")]
)
def test_an_unknown_mode_or_size_is_named(server: Server, name: str, words: str) -> None:
    prompt = demo_prompt()
    inputs = prompt[name]["inputs"]
    key = "mode" if name == "sampler" else "size"
    prompt[name]["inputs"] = {k: v for k, v in inputs.items() if not k.startswith(f"{key}.")} | {key: "1024"}
    result = server.run(prompt)
    assert result.status == "error" and words in result.error["exception_message"]
