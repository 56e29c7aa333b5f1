"""What the notes on the example graphs say, in plain words: what it does, which files, which knobs.

Names of files are links: what the page cannot fetch by itself is a click away. No code marks, since ComfyUI's newer
renderer shows those blue on blue.
"""

from __future__ import annotations

from zimage_core import downloads

TURBO_FILE = downloads.TRANSFORMERS["turbo"]["bf16"]
BASE_FILE = downloads.TRANSFORMERS["base"]["bf16"]
FP8_ENCODER = downloads.TEXT_ENCODERS["fp8-mixed"]
# Not of Comfy-Org, which has neither FP8 nor GGUF of it: name -> (address, folder).
FP8_FILE = "z-image-turbo-fp8-e4m3fn.safetensors"
OTHERS = {
    FP8_FILE: (f"https://huggingface.co/T5B/Z-Image-Turbo-FP8/resolve/main/{FP8_FILE}", "diffusion_models"),
}


def _linked(file: downloads.File) -> str:
    return f"[{file.name}]({file.link}) in models/{file.folder}"


# No real weights could be had where these pictures were drawn, and each graph says so.
_DRAWN = (
    "*The picture that comes with this graph was drawn by the built-in demo model, which knows simple shapes. To draw "
    "it yourself, choose* demo *in every loader and as the size.*"
)
_PARTS = f"{_linked(downloads.TEXT_ENCODERS['bf16'])} (8 GB) and {_linked(downloads.VAE)} (0.3 GB)"
_OFFERED = "ComfyUI offers what is missing for download when this graph opens."
_GGUF = "https://huggingface.co/jayn7/Z-Image-Turbo-GGUF/resolve/main/z_image_turbo-Q4_K_M.gguf"
_QWEN_GGUF = "https://huggingface.co/Qwen/Qwen3-4B-GGUF/resolve/main/Qwen3-4B-Q4_K_M.gguf"

DEMO = """
**Press Run.** The built-in demo model draws one simple shape on a plain background, with no download. Try *a blue \
square on a yellow background*.

**For real pictures** put Z-Image files into ComfyUI's folders models/diffusion_models, models/text_encoders and \
models/vae, press R, choose them in the three loaders, and choose the size *1024 px*.
""".strip()

TURBO = f"""
**A picture in 8 steps.** Steps, cfg and shift come from the model: leave them at 0. Turbo runs without guidance, so \
a negative prompt does nothing.

**Files:** {_linked(TURBO_FILE)} (12 GB), {_PARTS}. {_OFFERED}

**Try** another seed, the size *1280 px*, or: *a lighthouse on a cliff at dusk, warm light in its windows, waves \
below, film photograph*.

{_DRAWN}
""".strip()

BASE = f"""
**More variety, and it heeds what to avoid.** 30 steps at cfg 5, so slower than Turbo.

**Files:** {_linked(BASE_FILE)} (12 GB), {_PARTS}. {_OFFERED}

**Try** mode *Base* to set steps (28 to 50) and cfg (4 to 6) yourself, with cfg_normalization for realistic pictures. \
Or: *a watercolour of a market street in the rain, people under umbrellas*.

{_DRAWN}
""".strip()

GGUF = f"""
**Turbo in few bits, for cards of 6 GB.** GGUF weights stay packed in memory.

**Files** that ComfyUI cannot fetch for you: [z_image_turbo-Q4_K_M.gguf]({_GGUF}) (5 GB) in models/diffusion_models \
and [Qwen3-4B-Q4_K_M.gguf]({_QWEN_GGUF}) (2.5 GB) in models/text_encoders. It does offer {_linked(downloads.VAE)}. \
Then press R. Other GGUF files of the two work too: fewer bits are smaller and coarser.

**Try** the size *720 px* where memory is short, or: *a snail on a mossy stone, macro photograph*.

{_DRAWN}
""".strip()

FP8 = f"""
**Turbo in 8 bits, for cards of 8 to 12 GB.**

**Files:** [{FP8_FILE}]({OTHERS[FP8_FILE][0]}) (6 GB, made by T5B of the official file) in models/diffusion_models, \
{_linked(FP8_ENCODER)} (5.6 GB) and {_linked(downloads.VAE)}. {_OFFERED}

**Better:** the command *zimage convert* makes a scaled FP8 file of the 16-bit one, which is closer to it.

**Try:** *a bowl of ramen on a wooden counter, steam, morning light*.

{_DRAWN}
""".strip()

POSTER = f"""
**Words in the picture, in English and Chinese.** Put what is to be written in quotation marks, each text in its own \
language, and say where it stands and how it looks.

**Files:** {_linked(TURBO_FILE)}, {_PARTS}. {_OFFERED}

**Try:** *a poster for a film festival. At the top the title "SUNRISE" in tall white letters, below it "日出" in brush \
calligraphy. A mountain lake at dawn, flat colours, paper grain.*

*The picture that comes with this graph was drawn by the built-in demo model, which knows simple shapes and cannot \
write. To draw it yourself, choose* demo *in every loader and as the size.*
""".strip()

BATCH = f"""
**A list of prompts, drawn together.** One prompt on each line; picture i has prompt i and the seed + i. The count \
goes to the batch size by itself. One by one they would give the same pictures.

**Files:** {_linked(TURBO_FILE)}, {_PARTS}. {_OFFERED}

**Try** lines of your own: one motif at four times of day, a word in four languages. Where memory is short, use fewer \
lines or the size *720 px*.

{_DRAWN}
""".strip()

EXPLORE = f"""
**Many drafts, then the best ones well.** Turbo draws four pictures; picture i has the seed + i, and Pick Seeds \
shows which is which. Write the seeds you like, such as *2, 4*, and run again: Base goes on with those alone, and \
Turbo's are not drawn again.

**Files:** {_linked(TURBO_FILE)} and {_linked(BASE_FILE)} (12 GB each), {_PARTS}. {_OFFERED}

**Try** the second sampler's strength: 0.3 keeps the picture, 0.7 draws much of it anew. More pictures at once: \
batch_size. Another four: a seed 4 higher.

{_DRAWN}
""".strip()
