"""bbox's own attacks behind the benchmark's interface (see ``benchmarks.peers``): class defaults, start point given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bbox import Goal, Oracle, Target, __version__, drive, make_jobs
from bbox.attacks import make_attack
from bbox.zo import root_keys
from benchmarks.meter import Meter

__all__ = ["MeterTarget", "prepare", "run_cgba", "run_cgba_h"]


class MeterTarget(Target):
    """The meter as a bbox target: labels only."""

    name = "meter"
    access = "labels"

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.num_classes = meter.num_classes

    def __call__(self, rows: Tensor) -> Tensor:
        return self.meter(rows).argmax(1)

    def fingerprint(self) -> str:
        return "meter"


def prepare(_options: Any) -> dict[str, Any]:
    return {"bbox": __version__, "settings": "class defaults, start point given"}


def _run(name: str, meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    goal = Goal(torch.tensor([label if target is None else target]), targeted=target is not None)
    # The meter starts from the given point for free; asked again by the attack, it is charged: one query to our cost.
    jobs = make_jobs(
        image[None],
        goal,
        root_keys(seed, torch.zeros(1, dtype=torch.int64)),
        meter.remaining,
        device=image.device,
        starts=start[None],
    )
    oracle = Oracle(MeterTarget(meter), max_batch=64, quantize="8bit" if meter.quantize else None)
    for _ in drive(make_attack(name), oracle, jobs):
        pass


def run_cgba(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    _run("cgba", meter, image, label, start, target, seed)


def run_cgba_h(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    _run("cgba-h", meter, image, label, start, target, seed)
