"""The command `zimage`. Exit codes: 0 done, 2 the user's input is wrong, 1 anything else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from .. import __version__
from . import convert, download, generate, inspect, sizes
from .common import InputError, OneLineParser, use_utf8


def main(argv: Sequence[str] | None = None) -> int:
    """Run `zimage` with these arguments (default: the process's own); returns the exit code."""
    use_utf8()
    parser = OneLineParser(prog="zimage", description="Draw pictures with the Z-Image models.")
    parser.add_argument("--version", action="version", version=f"zimage {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (generate, sizes, inspect, convert, download):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    level = logging.INFO if getattr(args, "verbose", False) else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="zimage: %(message)s", stream=sys.stderr)
    logging.getLogger(__package__.partition(".")[0]).setLevel(level)
    try:
        return args.run(args)
    except InputError as error:
        print(f"zimage {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe had enough, as `zimage sizes | head` does
        sys.stdout = None  # type: ignore[assignment]
        return 1
    except KeyboardInterrupt:
        print("zimage: stopped", file=sys.stderr)
        return 1
