"""CLIP: the host's own Qwen3, filled by our reader; sizes other than 4B go through the host's own options."""

from __future__ import annotations

import logging
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.llama
import comfy.text_encoders.z_image
import folder_paths
from comfy.patcher_extension import CallbacksMP

from ...zimage_core.checkpoint.detect import CheckpointInfo, inspect_checkpoint
from ...zimage_core.errors import CheckpointError
from ...zimage_core.text_encoder import find_tokenizer
from .weights import is_quantised, packing, read_weights

log = logging.getLogger(__name__)

REAL_ENCODER = {"hidden_size": 2560, "num_hidden_layers": 36}
# What the host's Qwen3 can be told of another size; its head_dim is fixed.
_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
)  # fmt: skip
_HEAD_DIM = 128


def load_text_encoder(path: str, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """A CLIP from a file. Raises CheckpointError with what the file is if it is no Qwen3 text encoder."""
    info = inspect_checkpoint(path, kind="text_encoder")
    weights = {f"model.{name}": tensor for name, tensor in read_weights(info).items()}
    quantised = is_quantised(weights)
    # The host's rule: a quantised encoder's other weights are of the type of its norms.
    dtype = weights["model.norm.weight" if quantised else "model.embed_tokens.weight"].dtype
    target = comfy.supported_models_base.ClipTarget(
        comfy.text_encoders.z_image.ZImageTokenizer, comfy.text_encoders.z_image.te(dtype_llama=dtype)
    )
    model_options, tokenizer_data = ({}, {}) if _is_real(info) else _other_size(info)
    if quantised:
        packed = packing(info)
        mixed = packed.mixed_precision_ops({"mixed_ops": True}, dtype, full_precision_mm=True)
        model_options = model_options | {"custom_operations": packed.operations(mixed)}
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=tokenizer_data,
        parameters=info.n_parameters,
        state_dict=[weights],
        model_options=model_options,
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (load_text_encoder_patcher, (path,))
    if quantised:
        clip.patcher.add_callback(CallbacksMP.ON_LOAD, packing(info).patch_at_use)
    layers, width = info.config["num_hidden_layers"], info.config["hidden_size"]
    log.info("loaded %s: Qwen3 of %d layers, width %d, %s", info.path.name, layers, width, info.quantization)
    return clip


def load_text_encoder_patcher(path: str, disable_dynamic: bool = False) -> Any:
    """The factory by which the host loads a CLIP's weights again."""
    return load_text_encoder(path, disable_dynamic).patcher


def _is_real(info: CheckpointInfo) -> bool:
    return all(info.config[key] == value for key, value in REAL_ENCODER.items())


def _other_size(info: CheckpointInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    """The host's model options and tokenizer data for an encoder that is not Qwen3-4B."""
    config = info.config
    if config["head_dim"] != _HEAD_DIM:
        raise CheckpointError(
            f"{info.path.name} has attention heads of {config['head_dim']} channels: "
            f"ComfyUI's Qwen3 takes heads of {_HEAD_DIM} only"
        )
    folder = find_tokenizer(info.path)

    class Tokenizer(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None) -> None:
            super().__init__(
                str(folder),
                embedding_directory=embedding_directory,
                embedding_size=config["hidden_size"],
                embedding_key="qwen3_4b",
                tokenizer_class=comfy.text_encoders.z_image.Qwen2Tokenizer,
                pad_with_end=False,
                has_start_token=False,
                has_end_token=False,
                pad_to_max_length=False,
                max_length=99999999,
                min_length=1,
                tokenizer_data=tokenizer_data or {},
            )
            self.pad_token = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    pad = Tokenizer().pad_token
    if pad >= config["vocab_size"]:
        raise CheckpointError(
            f"{folder} is not the tokenizer of {info.path.name}, which knows {config['vocab_size']} tokens: "
            f"put its own vocab.json, merges.txt and tokenizer_config.json beside it, in a folder named tokenizer"
        )

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                layer="hidden",
                layer_idx=-2,
                layer_norm_hidden_state=False,
                textmodel_json_config={},
                special_tokens={"pad": pad},
                model_class=comfy.text_encoders.llama.Qwen3_4B,
                enable_attention_masks=True,
                return_attention_masks=True,
                model_options=model_options or {},
            )

    sizes = {key: config[key] for key in _SIZES}
    return {"qwen3_4b_class": Encoder, "qwen3_4b_model_config": sizes}, {"qwen3_4b_tokenizer_class": Tokenizer}
