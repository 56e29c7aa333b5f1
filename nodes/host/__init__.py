"""Everything that touches ComfyUI's insides: the only place that imports comfy.*, folder_paths or server."""
