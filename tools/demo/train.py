"""Trains the demo model.

`python tools/demo/train.py vae|dit|turbo|polish|export|all [--minutes M | --steps N] [--work DIR]`

Every stage resumes from its checkpoint in the work folder; `export` writes what is there, finished or not.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

MINUTES = {"vae": 30.0, "dit": 55.0, "turbo": 20.0, "polish": 10.0}  # unless --minutes or --steps says otherwise
DEMO = Path(__file__).resolve().parents[2] / "zimage_core" / "demo"


def run(stage: str, args: argparse.Namespace) -> None:
    if stage == "export":
        import export

        export.export(args.work, args.out)
        return
    import dit
    import turbo
    import vae

    train = {"vae": vae.train, "dit": dit.train, "turbo": turbo.train, "polish": vae.polish}[stage]
    minutes = args.minutes or (None if args.steps else MINUTES[stage])
    train(args.work, args.steps, minutes, seed=args.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*MINUTES, "export", "all"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--out", type=Path, default=DEMO, help="where export writes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    stages = (*MINUTES, "export") if args.stage == "all" else (args.stage,)
    for stage in stages:
        run(stage, args)


if __name__ == "__main__":
    main()
