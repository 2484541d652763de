"""Scaling: wall time for 1, 8, 64 and 256 images at a fixed budget an image; memory against image size.

    python -m benchmarks.scaling [--budget 300]

Time is shown over the bare model's time for as many rows at the largest batch. Memory is the peak resident size of a
process of its own that attacks 16 images with a linear classifier, less that of one that only builds it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch
from torch import nn

from bbox.zoo.digits import load_digits_data, load_digits_model
from benchmarks.results_file import write
from benchmarks.timing import TimedTarget, attack, bare_seconds

SIZES = (28, 64, 112, 224)


def memory(size: int, *, attacked: bool) -> float:
    """Peak MiB of a process of its own."""
    words = [sys.executable, "-m", "benchmarks.scaling", "--child", str(size), *(["--attacked"] if attacked else [])]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def child(size: int, attacked: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(16, 3, size, size)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 10))
    target = TimedTarget(model, torch.device("cpu"))
    labels = model(images).argmax(1)
    if attacked:
        attack(target, images, labels, budget=300, max_batch=128)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--attacked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.attacked)
        return
    torch.set_num_threads(1)
    data = load_digits_data()
    target = TimedTarget(load_digits_model(), torch.device("cpu"))
    rows = []
    for count in (1, 8, 64, 256):
        part = data.select(limit=count)
        run = attack(target, part.inputs, part.labels, budget=options.budget, max_batch=options.max_batch)
        pure = bare_seconds(target, data.inputs, rows=max(run.rows, 2000), batch=options.max_batch)
        pure *= run.rows / max(run.rows, 2000)
        rows.append(
            {
                "images": count,
                "wall s": run.wall,
                "calls": run.calls,
                "rows a call": run.rows / run.calls,
                "wall / pure model": run.wall / pure,
                "ms an image": 1000 * run.wall / count,
            }
        )
    for size in SIZES:
        extra = memory(size, attacked=True) - memory(size, attacked=False)
        inputs = 16 * 3 * size * size * 4 / 2**20
        rows.append({"image side": size, "inputs MiB": inputs, "attack MiB": extra, "attack / inputs": extra / inputs})
    write("scaling", {"budget": options.budget, "max_batch": options.max_batch}, rows)


if __name__ == "__main__":
    main()
