"""What the commands share: errors that are the user's, and a progress bar."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn


class InputError(Exception):
    """The user's input is wrong: one sentence to print, exit code 2."""


class OneLineParser(argparse.ArgumentParser):
    """argparse prints its whole usage before what is wrong; one sentence is what a person reads."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help explains)\n")


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """While settings are checked and files opened, what goes wrong is about the user's input."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or 'a file'}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(" ".join(str(error).split())) from error


def use_utf8() -> None:
    """Windows consoles and pipes may be in another encoding, which must not stop a Chinese prompt."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


class Progress:
    """A bar on a terminal's stderr, nothing in a pipe. Counts forwards of the model over all pictures."""

    WIDTH = 24

    def __init__(self, pictures: int, forwards: int) -> None:
        self.total = max(1, pictures * forwards)
        self.forwards = forwards
        self.shown = sys.stderr.isatty()

    def update(self, picture: int, forward: int) -> None:
        if not self.shown:
            return
        done = min(self.total, picture * self.forwards + forward + 1)
        filled = self.WIDTH * done // self.total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        print(f"\r{bar} {done}/{self.total}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r" + " " * (self.WIDTH + 20) + "\r", end="", file=sys.stderr, flush=True)
