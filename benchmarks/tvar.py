"""Time-varying autoregression of motion at NTU size: all series at once, and one least squares at a time.

    python -m benchmarks.tvar [--clips 64] [--frames 300] [--joints 25] [--bodies 2]

The loop is numpy's ``lstsq`` for each frame of each coordinate: timed on ``--sample`` coordinates and extrapolated to
all. Both solve the same problem and the largest difference is stated. Motions are random walks of 1 cm a frame.
Seconds are CPU time of the one thread, which is wall time on a machine that does nothing else; the least of three runs
(leave-one-out: one run).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bbox.motion.dynamics import fit_dynamics
from benchmarks.results_file import write

BANDWIDTH = 0.2


def one_by_one(series: np.ndarray, order: int) -> np.ndarray:
    """Coefficients (frames, order) of one coordinate."""
    rows = np.arange(order, len(series))
    lags = np.stack([series[rows - lag] for lag in range(1, order + 1)], 1)
    found = np.zeros((len(series), order))
    for frame in rows:
        away = (rows - frame) / (BANDWIDTH * len(rows))
        near = np.abs(away) < 1
        root = (1 - away[near] ** 2) ** 1.5
        design = np.concatenate([lags[near], lags[near] * away[near, None]], 1)
        found[frame] = np.linalg.lstsq(design * root[:, None], series[rows[near]] * root, rcond=None)[0][:order]
    return found


def timed(work: Callable[[], Any], times: int) -> tuple[Any, float]:
    """What it gives, and the least CPU time of so many runs."""
    seconds = []
    for _ in range(times):
        began = time.process_time()
        found = work()
        seconds.append(time.process_time() - began)
    return found, min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("clips", 64), ("frames", 300), ("joints", 25), ("bodies", 2), ("sample", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (options.clips, 3, options.frames, options.joints, options.bodies)
    motions = torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(2) * 0.01 + 1
    count = motions[:, :, 0].numel()
    drawn = torch.randperm(count, generator=generator)[: options.sample]
    fit_dynamics(motions[:1])
    rows = []
    for order in (1, 2):
        sample = motions.movedim(2, -1).reshape(count, -1)[drawn].numpy()
        fitted, vectorised = timed(
            lambda order=order: fit_dynamics(motions, order=order, bandwidth=BANDWIDTH).coefficients, 3
        )
        direct, loop = timed(
            lambda order=order, sample=sample: np.stack([one_by_one(series, order) for series in sample]), 3
        )
        loop *= count / len(sample)
        _, chosen = timed(lambda order=order: fit_dynamics(motions, order=order, bandwidth="loo"), 1)
        same = fitted.permute(0, 2, 4, 5, 3, 1).reshape(count, options.frames, order)[drawn].numpy()
        rows.append(
            {
                "order": order,
                "series": count,
                "all at once s": vectorised,
                "one by one s (extrapolated)": loop,
                "ratio": loop / vectorised,
                "largest difference": float(np.abs(same - direct)[:, order:].max()),
                "leave-one-out s": chosen,
            }
        )
    write("tvar", vars(options) | {"bandwidth": BANDWIDTH, "threads": 1}, rows)


if __name__ == "__main__":
    main()
