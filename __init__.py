"""ComfyUI's entry point; everything is in `nodes` and `zimage_core`."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
