"""Which ComfyUI this is: what we are tested with, said once where it is older."""

from __future__ import annotations

import logging
import re

log = logging.getLogger(__name__)

OLDEST = (0, 24, 0)


def warn_if_old() -> None:
    """One line in the log of a ComfyUI older than the oldest that we are tested with."""
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        version = "one that does not say its version"
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        log.warning("Z-Image nodes need ComfyUI %s or later, and this is %s: update ComfyUI", oldest, version)
