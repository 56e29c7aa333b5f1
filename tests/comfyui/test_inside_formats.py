"""Every form of file in ComfyUI's own modules, and what the host does with packed weights.

`inside_formats.py` has the code of each check. Together they are the contract with the host's insides that
nodes/host/packed.py and weights.py lean on: should ComfyUI change one of them, it is named here.
"""

from __future__ import annotations

from typing import Any

TOLERANCE = 1e-3  # relative L2, float32
OURS = "ZImagePackedLayout"
FP8 = {"F8_E4M3": "TensorCoreFP8E4M3Layout", "F8_E5M2": "TensorCoreFP8E5M2Layout"}
PACKED = ("gguf Q8_0", "fp8 rows", "three types in one")
# How the host holds the first block's qkv in each form.
HELD = {
    "fp8 cast": FP8["F8_E4M3"],
    "fp8 e5m2 cast, all of it": FP8["F8_E5M2"],
    "fp8 legacy": FP8["F8_E4M3"],
    "fp8 comfy_quant": FP8["F8_E4M3"],
    "fp8 e5m2 comfy_quant": FP8["F8_E5M2"],
    "fp8 metadata": FP8["F8_E4M3"],
    "diffusers, fp8 cast": FP8["F8_E4M3"],
    "all in one": FP8["F8_E4M3"],
    "fp8 rows": OURS,
    "gguf Q8_0": OURS,
    "gguf Q4_0": OURS,
    "gguf Q5_1": OURS,
    "diffusers, fp8 of three scales": OURS,
    "sd.cpp gguf": OURS,
    "three types in one": OURS,
    "fp8 each second layer": "torch.float32",
    "gguf Q4_K": "torch.float32",  # only two matrices are wide enough for its blocks
    "gguf F16": "torch.float32",
    "gguf BF16": "torch.float32",
    "shards": "torch.float32",
    "diffusers folder": "torch.float32",
}


def test_transformers(found: dict[str, Any]) -> None:
    assert {name: form["held"] for name, form in found.items()} == HELD
    for name, form in found.items():
        assert form["ours"] < TOLERANCE, name
        assert form["KSampler"] < TOLERANCE, name
        assert form["pad token"] == [1, 128], name


def test_transformers_stay_small(inside: dict[str, Any]) -> None:
    """What the host counts, and plans its memory by, are the packed bytes."""
    sizes = {name: form["bytes"] for name, form in inside["check_transformers"].items()}
    dense = sizes["shards"]  # float32 on a CPU
    assert sizes["fp8 cast"] < 0.26 * dense
    assert sizes["fp8 rows"] < 0.27 * dense
    # Matrices of 341 columns are float16 in these, and float32 in memory.
    assert sizes["gguf Q4_0"] < sizes["gguf Q5_1"] < sizes["gguf Q8_0"] < 0.38 * dense


def test_text_encoders(found: dict[str, Any]) -> None:
    for name, form in found.items():
        assert form["features"] < TOLERANCE, name
        assert form["table"] == form["matrix"], name  # the table of tokens stays packed, too
        assert form["full precision"] in (True, None), name
    assert {found[name]["table"] for name in ("fp8 cast", "fp8 comfy_quant", "all in one")} == {FP8["F8_E4M3"]}
    assert {found[name]["table"] for name in ("fp8 rows", "gguf Q8_0", "gguf Q4_0", "gguf Q5_1")} == {OURS}
    assert found["gguf Q4_0"]["bytes"] < 0.3 * found["gguf F16"]["bytes"]


def test_vaes(found: dict[str, float]) -> None:
    assert set(found) == {"float32", "float16", "fp8", "all in one"}
    assert max(found.values()) < TOLERANCE


def test_dense_files(found: dict[str, Any]) -> None:
    assert found["classes"] == ["comfy.ops.disable_weight_init.Linear", "comfy.ops.manual_cast.Linear"]
    assert found["operations"] is None
    assert found["callbacks"] == [0, 0]
    assert found["mixed"] == sorted([FP8["F8_E4M3"], "torch.float32"])  # as dense files are on this CPU


def test_mapped(found: dict[str, Any]) -> None:
    assert found["mapped"] and found["bytes"]
    assert found["formats"] == ["F8_E4M3", "F8_E5M2", "BF16"]
    assert found["aligned"] and found["hashable"]


def test_packed_lora(found: dict[str, Any]) -> None:
    """ModelPatcher.load, patch_weight_to_device, unpatch_model; comfy.lora.calculate_weight."""
    for name, form in found.items():
        assert form["effect"] > 0.1, name
        assert form["undone"] and form["again"] == 0 and form["functions"] == 0, name
        assert form["bytes"][0] == form["bytes"][1], name
        # The host rounds a patched FP8 weight of its own to FP8 again.
        assert form["patched"] < (0.1 if name == "fp8 cast" else 1e-6), name


def test_partial_loading(found: dict[str, Any]) -> None:
    """ModelPatcher.load with little memory, LowVramPatch, partially_unload."""
    for name, form in found.items():
        assert max(form["patched"]) < 1e-6, name
        assert form["undone"], name


def test_clones(found: dict[str, Any]) -> None:
    assert found["shared"] and found["effect"] > 0.1
    assert found["sampled"][0] > 0.1 and found["sampled"][1] == 0
    assert found["anew"] == [False, 0.0]
    assert found["moved"] < 1e-6


def test_saving(found: dict[str, Any]) -> None:
    """model_state_dict_for_saving, LazyCastingParamPiece, LazyCastingQuantizedParam; safetensors' writer."""
    assert len(found) == 24
    for name, form in found.items():
        assert form["ours"] < 1e-6, name
        own = name.startswith("fp8 cast")
        assert form["types"] == ["torch.float8_e4m3fn" if own else "torch.float32"], name
        assert form["keys"] == (219 if own else 115), name


def test_saved_text_encoder(found: dict[str, float]) -> None:
    assert max(found.values()) < TOLERANCE


def test_extracted_lora(found: dict[str, float]) -> None:
    """get_key_patches with `convert_weight`, patch_weight_to_device(return_weight=True), a state dict's entry."""
    assert found["difference"] < 1e-3  # it is written in float16
    assert found["entry"] == 0 and found["bytes"] == 1


def test_streamed(found: dict[str, Any]) -> None:
    """vram_aligned_size, interpret_gathered_like, cast_to_gathered, resolve_cast_module_with_vbar."""
    assert found["size"][0] == found["size"][1]
    assert found["round trip"] and found["in the buffer"]
    assert found["uses"] == [[0.0, True]] * 3  # patched when it has just been streamed, and when it was there already
    assert found["bfloat16"] < 0.01
    assert found["for the host"] == [True, 1]
    assert found["without"] == 0 and found["unchanged"]
    assert found["a layer of the host's"] == "a patch"


def test_dynamic_loading(found: dict[str, Any]) -> None:
    """load_state_dict(assign=True); patch_weight_to_device(force_cast=True), as ModelPatcherDynamic.load calls it."""
    assert max(found[name] for name in (*PACKED, "fp8 cast", "forced")) < 1e-6
    assert found["held"] == OURS and found["left"] == 0 and found["unchanged"]


def test_hooks(found: dict[str, str]) -> None:
    assert all("need weights that are not quantised: use a bf16 file" in words for words in found.values())


def test_text_encoder_patches(found: dict[str, Any]) -> None:
    for name, form in found.items():
        assert form["patched"] < TOLERANCE < form["effect"], name
        assert form["after"] == 0 and form["generated"] == 2, name


def test_compile(found: dict[str, Any]) -> None:
    difference, graphs = found["gguf Q8_0"]
    assert difference < 1e-6
    assert graphs == found["shards"][1]  # as many as of a dense model
    assert "backend" in found["node"]


def test_compiled_formats(found: dict[str, bool]) -> None:
    assert len(found) > 20
    assert [name for name, equal in found.items() if not equal] == []


def test_training(found: dict[str, Any]) -> None:
    """Each adapter of the main blocks has learned something."""
    for way in ("bypass False", "bypass True"):
        adapters, changed = found[way]
        assert adapters == changed > 0, way
    assert found["gradient"] < 1e-6


def test_old_hosts(found: dict[str, Any]) -> None:
    assert found["without fp8"] == [OURS, 0.0]
    assert "too old: update both" in found["without kitchen"]
    assert found["dense"] == "no error"


def test_wanted_types(found: dict[str, Any]) -> None:
    """On a CPU all arithmetic is in float32."""
    assert found == {name: ["torch.float32", "torch.float32", OURS] for name in ("float32", "bfloat16", "float16")}


def test_fp8_marks(found: dict[str, Any]) -> None:
    """Whether weights only are in FP8 (True), and the scale of the activations."""
    assert found == {
        "cast": [True, None],
        "scale without a mark": [True, None],
        "marked": [False, None],
        "marked as full": [True, None],
        "legacy": [False, None],
        "legacy, full": [True, None],
        "calibrated": [False, 0.25],
        "calibrated alike": [False, 0.25],
        "calibrated apart": [True, None],
        "calibrated in part": [True, None],
    }


def test_long_list(found: dict[str, Any]) -> None:
    """300 checkpoints of other models, with headers of 2000 tensors."""
    assert found["listed"] == []
    assert found["first"] < 3
    assert found["again"] < 0.3


def test_folders(found: dict[str, Any]) -> None:
    demo = ["demo: simple shapes (Turbo)", "demo: simple shapes (Base)"]
    assert found["empty"] == [demo, demo[0]]
    assert found["cut off"] == [["a.gguf", *demo], demo[0]]  # the default is something that loads
    assert found["whole"] == [["a.gguf", *demo], "a.gguf"]
    assert found["both"] == ["a.gguf", "b.gguf", "b.gguf [unet_gguf]"]  # the shared folder's files are there once
    assert found["theirs"] and found["changed"]
    assert not found["keys"]  # no key of another pack's is registered by us


def test_names(found: dict[str, Any]) -> None:
    assert found == {
        "sub\\a.safetensors": ["sub/a.safetensors"],
        "a.safetensors": ["sub/a.safetensors"],
        "elsewhere/a.safetensors": ["sub/a.safetensors"],
        "z/b.gguf": ["other/b.gguf"],  # one loads, the other does not
        "big-00002-of-00003.safetensors": ["big.safetensors.index.json"],
        "model.safetensors": [],  # says nothing of what is in it
        "X\\Model.safetensors": ["x/model.safetensors"],
        "all.safetensors": ["all.safetensors [checkpoints]"],
        "all.safetensors [unet_gguf]": ["all.safetensors [checkpoints]"],
        "Pipe": ["Pipe [diffusers]"],
        "none.gguf": [],
    }
