"""How long the demo model takes for a picture: `python benchmarks/demo_speed.py`.

Prints the median of several runs, loading apart, on as many threads as PyTorch takes by itself.
"""

from __future__ import annotations

import statistics
import time

import torch

from zimage_core import ZImagePipeline, demo_pipeline

RUNS = 9
PROMPT = "a red circle on a white background"


def seconds(pipeline: ZImagePipeline) -> float:
    start = time.perf_counter()
    pipeline.generate(PROMPT, seed=1)
    return time.perf_counter() - start


def main() -> None:
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}\n")
    print("| model | type | forwards | seconds a picture |\n|---|---|---|---|")
    for name in ("turbo", "base"):
        for dtype in ("auto", "float32"):
            pipeline = demo_pipeline(name, dtype=dtype)
            settings = pipeline.resolve()
            forwards = settings.forwards * (2 if settings.cfg != 1 else 1)
            seconds(pipeline)  # the first picture warms up
            median = statistics.median(seconds(pipeline) for _ in range(RUNS))
            print(f"| {name} | {dtype} ({pipeline.transformer.dtype}) | {forwards} | {median:.2f} |")


if __name__ == "__main__":
    main()
