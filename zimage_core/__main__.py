"""`python -m zimage_core` is the command `zimage`, and so is `python path/to/zimage_core`."""

if __package__:
    from .cli import main

    raise SystemExit(main())

# Run by its path, as from ComfyUI/custom_nodes where nothing is installed: Python put this folder itself on the path.
import runpy
import sys
from pathlib import Path

_here = Path(__file__).absolute().parent
sys.path[:] = [str(_here.parent), *(entry for entry in sys.path if Path(entry).absolute() != _here)]
runpy.run_module(_here.name, run_name="__main__", alter_sys=True)
