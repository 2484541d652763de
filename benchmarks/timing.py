"""What the speed benchmarks share: a target that times its model, the bare model's rate, a run of an attack."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bbox import Goal, Oracle, Target, drive, make_jobs
from bbox.attacks import make_attack
from bbox.zo import root_keys

__all__ = ["Run", "TimedTarget", "attack", "bare_seconds"]


class TimedTarget(Target):
    """A module, with the wall time spent inside it."""

    name = "timed"

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.eval().to(device)
        self.device = device
        self.seconds = 0.0
        self.calls = self.rows = 0

    def __call__(self, rows: Tensor) -> Tensor:
        began = time.perf_counter()
        with torch.inference_mode():
            scores = self.module(rows)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        self.rows += len(rows)
        return scores

    def fingerprint(self) -> str:
        return self.name


@dataclass(frozen=True)
class Run:
    """Wall time of an attack, and what it asked."""

    wall: float
    inside: float
    calls: int
    rows: int
    median: float


def attack(
    target: TimedTarget, images: Tensor, labels: Tensor, *, budget: int, max_batch: int, name: str = "cgba"
) -> Run:
    """Attack all images with class defaults."""
    oracle = Oracle(target, max_batch=max_batch)
    keys = root_keys(0, torch.arange(len(images)))
    before = (target.seconds, target.calls, target.rows)
    distances = []
    began = time.perf_counter()
    for job in drive(make_attack(name), oracle, make_jobs(images, Goal(labels), keys, budget, device=target.device)):
        distances.append(job.accounts.distance)
    wall = time.perf_counter() - began
    return Run(
        wall=wall,
        inside=target.seconds - before[0],
        calls=target.calls - before[1],
        rows=target.rows - before[2],
        median=float(torch.cat(distances).median()),
    )


def bare_seconds(target: TimedTarget, images: Tensor, *, rows: int, batch: int) -> float:
    """Seconds that the bare model needs for so many rows at this batch size: pure model time."""
    block = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].to(target.device)
    rounds = max(1, rows // batch)
    with torch.inference_mode():
        target.module(block)
        _finish(target.device)
        began = time.perf_counter()
        for _ in range(rounds):
            target.module(block).argmax(1).cpu()
        _finish(target.device)
    return (time.perf_counter() - began) * rows / (rounds * batch)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
