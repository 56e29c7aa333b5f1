"""Two runs of a command must not write into the same file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(path: Path, busy: Exception) -> Iterator[None]:
    """Holds a lock beside `path`, which ends with its process, however that ends; raises `busy` if another has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    except NotImplementedError:  # some network drives have no locks
        log.warning("this drive has no locks: let only one run write %s at a time", path.name)
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
