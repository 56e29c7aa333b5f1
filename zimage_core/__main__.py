"""`python -m zimage_core` is the command `zimage`."""

from .cli import main

raise SystemExit(main())
