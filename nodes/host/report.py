"""Where a run's resolved settings go: on the node, into the log, into the PNG."""

from __future__ import annotations

import logging
from typing import Any

from server import PromptServer

log = logging.getLogger(__name__)


def report(lines: list[str], record: dict[str, Any], hidden: Any) -> None:
    """`hidden` is the node's: it knows which node this is, and what SaveImage will write.

    The PNG gets the settings of the sampler that ran last.
    """
    log.info("Z-Image Sampler: %s", " ".join(lines))
    if hidden.unique_id and PromptServer.instance is not None:
        PromptServer.instance.send_progress_text("\n".join(lines), hidden.unique_id)
    if isinstance(hidden.extra_pnginfo, dict):
        hidden.extra_pnginfo["zimage"] = record
