"""What SMI's gradient costs over the plain attack's, and how many motions of NTU size it makes a second.

    python -m benchmarks.smi_speed [--device cuda] [--clips 8] [--iterations 10]

Times of one iteration (forward, backward, filter, step), plain and SMI by turns in one run, the median of each; the fit
of the dynamics, which is once a motion, beside it. The encoders are the compact ones, with random weights: their speed
is that of trained ones.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any

import torch

from bbox.attacks.smi import SMI
from bbox.motion.dynamics import fit_dynamics
from bbox.motion.encoders import make_encoder
from bbox.motion.skeletons import skeleton_named
from benchmarks.results_file import write


def _seconds(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    skeleton = skeleton_named("ntu25")
    generator = torch.Generator().manual_seed(0)
    # Smooth wandering of a body's size: the arithmetic does not depend on what moves.
    motions = (torch.randn(args.clips, 3, 300, 25, 2, generator=generator) * 0.01).cumsum(2).to(device)
    keys = torch.arange(args.clips, device=device)
    began = _seconds(device)
    fit_dynamics(motions, order=2)
    fitting = _seconds(device) - began
    rows: list[dict[str, Any]] = []
    for kind in ("sequence", "graph", "both"):
        encoder = make_encoder(kind, skeleton, bodies=2).to(device)
        times: dict[str, list[float]] = {"none": [], "smi1": [], "smi2": [], "adjoint:stable": [], "constant": []}
        for _ in range(args.rounds):
            for gradient, taken in times.items():
                attack = SMI(iterations=args.iterations, gradient=gradient, start="clean", clusters=4, nearest=1)
                goal = attack.objective.prepare(encoder, motions, seed=0)
                marks: list[float] = []
                attack.craft(
                    motions, goal, skeleton, keys, on_step=lambda _, marks=marks: marks.append(_seconds(device))
                )
                taken.extend(b - a for a, b in pairwise(marks))
        plain = statistics.median(times["none"])
        for gradient, taken in times.items():
            step = statistics.median(taken)
            rows.append(
                {
                    "encoder": kind,
                    "gradient": gradient,
                    "ms a step": 1000 * step,
                    "over plain": step / plain,
                    "motions a second, 400 steps": args.clips / (400 * step),
                }
            )
    options = {"clips": args.clips, "shape": [3, 300, 25, 2], "device": str(device), "iterations": args.iterations}
    write("smi_speed", {**options, "seconds to fit order 2": fitting}, rows)


if __name__ == "__main__":
    main()
