"""What a file may be instead of what was asked for, and the way out: tables of marks, asked from headers only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .files import Checkpoint
from .geometry import VAE_SCALE

ENCODER_HINT = "Z-Image needs the plain Qwen3-4B (qwen_3_4b.safetensors, or a GGUF of it)"
VAE_HINT = "Z-Image needs the 16-channel Flux VAE (ae.safetensors)"
MODEL_HINT = "Z-Image needs z_image_turbo or z_image"
_FORMS = "use the same model as bf16, FP8 (plain or scaled) or GGUF"

# Numbers in a form that nobody but their own library unpacks: a mark among the keys, and what it is.
_FORMATS = [
    (r"\.(qzeros|g_idx)$", "a GPTQ or AWQ file"),
    (r"\.weight_scale_inv$", "a file of FP8 blocks, as Qwen publishes them"),
    (r"\.weight_packed$", "a compressed-tensors file"),
    (r"\.W_q$", "an HQQ file"),
    (r"\.(qweight|wscales|wtscale|smooth_factor|proj_down)$", "a nunchaku SVDQuant file"),
    (r"\.quant_state\.bitsandbytes__|\.weight\.(absmax|quant_map|nested_absmax)$|\.SCB$", "a bitsandbytes file"),
    (r"\.weight\._(data|scale|shift)$", "a quanto file"),
    (r"\.weight[._:](tensor_impl|layout_tensor|int_data|_type)|:qdata$|weight_qdata$", "a torchao file"),
    (r"\.weight\.(svd_up|svd_down|zero_point)$|\.(svd_up|svd_down|zero_point)$", "an SDNQ file"),
]  # fmt: skip
_METHODS = {
    "nunchaku": "a nunchaku SVDQuant file", "nunchaku_lite": "a nunchaku file", "svdquant": "a nunchaku SVDQuant file",
    "bitsandbytes": "a bitsandbytes file", "bitsandbytes_4bit": "a bitsandbytes file",
    "bitsandbytes_8bit": "a bitsandbytes file", "quanto": "a quanto file", "torchao": "a torchao file",
    "sdnq": "an SDNQ file", "sdnq_training": "an SDNQ file", "modelopt": "a ModelOpt file", "bfl": "a ModelOpt file",
    "auto-round": "an AutoRound file", "gptq": "a GPTQ file", "awq": "an AWQ file", "hqq": "an HQQ file",
    "fp8": "a file of FP8 blocks, as Qwen publishes them", "compressed-tensors": "a compressed-tensors file",
}  # fmt: skip

# Parts of the Z-Image family and of its relatives that carry a Z-Image component's own keys.
_RELATIVES: dict[str, list[tuple[str, str]]] = {
    "transformer": [
        (r"dec_net\.", "a pixel-space Z-Image, which has no VAE and is not supported"),
        (r"siglip_(embedder|refiner|pad_token)", "a Z-Image Omni model, which is not supported yet"),
        (r"clip_text_pooled_proj\.", "a NewBie model"),
        (r"control_(all_x_embedder|layers|noise_refiner)", "a Z-Image ControlNet, which goes beside a model"),
    ],
    "text_encoder": [
        (r"(^|\.)visual\.|(^|\.)vision_|(^|\.)language_model\.|mm\.\d+\.|v\.blk\.",
         f"a vision-language model; {ENCODER_HINT}"),
        (r"(pre|post)_feedforward_layernorm|post_attention_norm\.weight|post_ffw_norm", f"a Gemma; {ENCODER_HINT}"),
        (r"mlp\.experts\.|ffn_gate_exps", f"a mixture of experts; {ENCODER_HINT}"),
        (r"linear_attn\.|ssm_", f"a Qwen of a later generation; {ENCODER_HINT}"),
    ],
    "vae": [
        (r"(^|\.)bn\.running_mean", f"a Flux.2 VAE; {VAE_HINT}"),
        (r"(^|\.)(post_)?quant_conv\.", f"a VAE of the Stable Diffusion family or of Flux.2; {VAE_HINT}"),
    ],
}  # fmt: skip

# Everything else people have, by a key that only such files have.
_OTHERS = [
    (r"lora_(A|B|up|down|unet|a|b)\b|lora_(A|B|up|down)\.|^lora_|lokr_w|hada_w|\.dora_scale|\.lora\.|oft_|lora_mag|\.diff(_b)?$",
     "a LoRA, which changes a model and cannot be loaded as one"),
    (r"control_all_x_embedder|control_layers\.", "a Z-Image ControlNet, which goes beside a model"),
    (r"controlnet_|zero_convs\.", "a ControlNet, which goes beside a model"),
    (r"context_refiner\.\d+\.attn\.|caption_embedder\.", f"a Lumina 2 model; {MODEL_HINT}"),
    (r"double_stream_modulation_img", f"a Flux.2 model; {MODEL_HINT}"),
    (r"double_blocks\.\d+\.img_attn|single_transformer_blocks\.\d+\.", f"a Flux model; {MODEL_HINT}"),
    (r"joint_blocks\.\d+", f"a Stable Diffusion 3 model; {MODEL_HINT}"),
    (r"caption_projection|adaln_single|transformer_blocks\.\d+\.(attn|img_mod|txt_mod)",
     f"a transformer of another family; {MODEL_HINT}"),
    (r"(input_blocks|middle_block|output_blocks)\.\d+|(down|up)_blocks\.\d+\.attentions",
     f"a Stable Diffusion UNet; {MODEL_HINT}"),
    (r"visual\.|language_model\.|vision_model\.|v\.blk\.", f"a vision-language model; {ENCODER_HINT}"),
    (r"encoder\.block\.\d+\.layer|^enc\.blk\.", f"a T5 text encoder; {ENCODER_HINT}"),
    (r"text_model\.encoder\.layers|transformer\.resblocks", f"a CLIP model; {ENCODER_HINT}"),
    (r"layers\.\d+\.self_attn|^blk\.\d+\.attn_", f"a language model other than Qwen3; {ENCODER_HINT}"),
    (r"patch_embedding|blocks\.\d+\.(self|cross)_attn\.", f"a video model; {MODEL_HINT}"),
    (r"(encoder|decoder)\.(layers\.)?\d+\.(weight|conv)|^(taesd_)?(encoder|decoder)?\.?\d+\.(weight|conv)",
     f"a tiny autoencoder for previews; {VAE_HINT}"),
    (r"(en|de)coder\..*(residual|upsamples|downsamples|time_conv)|decoder\.middle\.", f"a video VAE; {VAE_HINT}"),
]  # fmt: skip

# What GGUF files of Qwen3-4B say that they are; the image programs' own converters write words of theirs, or none.
_ARCHITECTURES = ("qwen3", "lumina2", "pig", "cow", "")
_PAD_TOKENS = ("x_pad_token", "cap_pad_token")
# Width, layers and vocabulary (0: any) of models with Qwen3-4B's very keys.
_OTHER_QWEN3 = {
    (1024, 28, 0): "Qwen3-0.6B", (2048, 28, 0): "Qwen3-1.7B", (4096, 36, 0): "Qwen3-8B", (5120, 40, 0): "Qwen3-14B",
    (5120, 64, 0): "Qwen3-32B", (2560, 36, 151665): "Qwen3-Embedding-4B", (2560, 36, 151669): "Qwen3-Reranker-4B",
    (2560, 35, 0): "Qwen3-4B without its last layer, by which the features are counted",
}  # fmt: skip


def _own_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return checkpoint.config if checkpoint.config_is_own else {}


def foreign_format(checkpoint: Checkpoint) -> str | None:
    """What a checkpoint is if its numbers are in another library's own form, with what to use instead."""
    config = _own_config(checkpoint).get("quantization_config")
    method = str(config.get("quant_method", "")) if isinstance(config, Mapping) else ""
    title = _METHODS.get(method.lower())
    if title is None and "quantization_config" in checkpoint.metadata:
        title = _METHODS["nunchaku"] if _first(_FORMATS, checkpoint.tensors) else None
    title = title or _first(_FORMATS, checkpoint.tensors)
    return f"{title}, which only its own library unpacks: {_FORMS}" if title else None


def relative(checkpoint: Checkpoint, kind: str, prefix: str) -> str | None:
    """What a checkpoint is if it has a component's keys and more that the component has not."""
    architecture = str(checkpoint.metadata.get("general.architecture", ""))
    if kind == "text_encoder" and architecture not in _ARCHITECTURES:
        return f"a {architecture} model; {ENCODER_HINT}"
    model = str(_own_config(checkpoint).get("model_type", ""))
    if kind == "text_encoder" and model.startswith("qwen") and model != "qwen3":
        return f"a {model} model; {ENCODER_HINT}"
    scale = _own_config(checkpoint).get("scaling_factor")
    if kind == "vae" and isinstance(scale, float) and abs(scale - VAE_SCALE) > 1e-3:
        return f"a VAE of another family (its scale is {scale:g}); {VAE_HINT}"
    if kind == "transformer" and not any(prefix + token in checkpoint.tensors for token in _PAD_TOKENS):
        # Every published Z-Image has both; a relative without them would be drawn wrong, not refused, by its shapes.
        return _first(_RELATIVES[kind], checkpoint.tensors) or f"a Lumina 2 model (it has no pad tokens); {MODEL_HINT}"
    alone = prefix in ("", "model.")
    return _first(_RELATIVES[kind], [key for key in checkpoint.tensors if alone or key.startswith(prefix)])


def published(kind: str, config: Any) -> str | None:
    """What a component is if its sizes are those of a published model that Z-Image does not use."""
    if kind == "text_encoder":
        sizes = config["hidden_size"], config["num_hidden_layers"]
        name = _OTHER_QWEN3.get((*sizes, config["vocab_size"])) or _OTHER_QWEN3.get((*sizes, 0))
        return f"{name}; {ENCODER_HINT}" if name else None
    if kind == "vae" and config["latent_channels"] != 16:
        return f"a VAE with {config['latent_channels']} latent channels of another family; {VAE_HINT}"
    return None


def other(keys: Mapping[str, Any]) -> str | None:
    """What a file is that holds no component of Z-Image at all."""
    return _first(_OTHERS, keys)


def _first(table: list[tuple[str, str]], keys: Any) -> str | None:
    keys = list(keys)
    for pattern, title in table:
        search = re.compile(pattern).search
        if any(search(key) for key in keys):
            return title
    return None
