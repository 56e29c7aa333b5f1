"""zimage_core: an engine for the Z-Image models. It needs no host and queries no hub.

```python
from zimage_core import demo_pipeline

demo_pipeline("turbo").generate("a red circle on a white background", seed=1)[0].save("circle.png")
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> module. Resolved on first use, so that importing the package costs nothing (ComfyUI does so at start-up).
_HOMES = {
    "CheckpointInfo": "checkpoint.detect",
    "inspect_checkpoint": "checkpoint.detect",
    "load_transformer": "checkpoint.load",
    "load_text_encoder": "text_encoder",
    "load_vae": "vae",
    "sigmas": "schedule",
    "sample": "sampling",
    "Step": "sampling",
    "S3DiT": "model",
    "S3DiTConfig": "model",
    "ZImagePipeline": "pipeline",
    "demo_pipeline": "pipeline",
    "CheckpointError": "errors",
    "TokenizerError": "errors",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from .checkpoint.detect import CheckpointInfo as CheckpointInfo
    from .checkpoint.detect import inspect_checkpoint as inspect_checkpoint
    from .checkpoint.load import load_transformer as load_transformer
    from .errors import CheckpointError as CheckpointError
    from .errors import TokenizerError as TokenizerError
    from .model import S3DiT as S3DiT
    from .model import S3DiTConfig as S3DiTConfig
    from .pipeline import ZImagePipeline as ZImagePipeline
    from .pipeline import demo_pipeline as demo_pipeline
    from .sampling import Step as Step
    from .sampling import sample as sample
    from .schedule import sigmas as sigmas
    from .text_encoder import load_text_encoder as load_text_encoder
    from .vae import load_vae as load_vae


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
