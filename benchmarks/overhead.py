"""Overhead: wall time over pure model time, for 64 images x 1000 queries on the embedded digits model.

    python -m benchmarks.overhead [--images 64] [--budget 1000] [--threads 1] [--repeats 2]

Pure model time is that of the bare model on as many rows at bbox's batch size, measured before and after in the same
run; the ratio is to the mean of the two. foolbox's HopSkipJump runs on the same images as one batch, as foolbox is
used; its budget is in steps, so its rows are counted, and its ratio is to the time inside its own model calls.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn

from bbox.zoo.digits import load_digits_data, load_digits_model
from benchmarks.results_file import write
from benchmarks.timing import TimedTarget, attack, bare_seconds


class _Timed(nn.Module):
    """The model as foolbox calls it, with the time inside."""

    def __init__(self, target: TimedTarget) -> None:
        super().__init__()
        self.target = target

    def forward(self, rows: Tensor) -> Tensor:
        return self.target(rows)


def foolbox_row(images: Tensor, labels: Tensor, steps: int) -> dict[str, Any]:
    import foolbox

    target = TimedTarget(load_digits_model(), torch.device("cpu"))
    model = foolbox.PyTorchModel(_Timed(target).eval(), bounds=(0, 1), device="cpu")
    torch.manual_seed(0)
    # Its own start search fails on some digits, and then gives up on all: start from images of other classes.
    starts = torch.stack([images[(labels != label).nonzero()[0, 0]] for label in labels])
    began = time.perf_counter()
    jump = foolbox.attacks.HopSkipJumpAttack(steps=steps)
    jump(model, images, labels, epsilons=None, starting_points=starts)
    wall = time.perf_counter() - began
    return {
        "attack": f"foolbox HSJ, {steps} steps",
        "rows per image": target.rows / len(images),
        "calls": target.calls,
        "wall s": wall,
        "wall / inside model": wall / target.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-batch", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_digits_data().select(limit=options.images)
    target = TimedTarget(load_digits_model(), torch.device("cpu"))
    total = options.images * options.budget
    rows = []
    for batch in options.max_batch * options.repeats:
        before = bare_seconds(target, data.inputs, rows=total, batch=batch)
        run = attack(target, data.inputs, data.labels, budget=options.budget, max_batch=batch)
        after = bare_seconds(target, data.inputs, rows=total, batch=batch)
        pure = (before + after) / 2
        rows.append(
            {
                "attack": "bbox cgba",
                "max batch": batch,
                "rows per image": run.rows / options.images,
                "calls": run.calls,
                "wall s": run.wall,
                "pure model s": pure,
                "wall / pure model": run.wall / pure,
                "wall / inside model": run.wall / run.inside,
                "median l2": run.median,
            }
        )
    rows.append(foolbox_row(data.inputs, data.labels, steps=5))
    write("overhead", vars(options), rows)


if __name__ == "__main__":
    main()
