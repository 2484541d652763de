"""What a defense costs those who do not attack: accuracy and false alarms on clean traffic, and time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from torch import Tensor

from bbox.data.base import Dataset
from bbox.oracle import Oracle
from bbox.targets.account import Terms
from bbox.targets.base import REFUSED, Target

__all__ = ["measure_row"]

_TRAFFIC = 1000  # clean images asked, at most
_TIMED_ROWS, _REPEATS = 32, 15


class _OneMemory(Target):
    """A target whose ``fresh`` is itself: an oracle asks twins of all traffic but an attack's, which forget."""

    def __init__(self, inner: Target) -> None:
        self.inner = inner
        self.__dict__ |= {name: getattr(inner, name) for name in Target.__annotations__}

    def __call__(self, rows: Tensor) -> Tensor:
        return self.inner(rows)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


def measure_row(
    bare: Target, defended: Target, data: Dataset, *, max_batch: int, quantize: Any, terms: Terms | None = None
) -> dict[str, Any]:
    """Ask each clean image once through one fresh detector, then time forwards with and without the defense.

    Clean accuracy counts refusals as errors. Answers are what a user gets: one each, also of a target that answers at
    random (a run's clean accuracy is by vote). The time of a forward is that of 32 distinct images, into an empty
    memory where the defense keeps one: the least of 15 with the defense over the least of 15 without, in turn (on a
    busy machine the median of 5 quotients once said 0.4 for a defense that takes 1.02: others only ever add time).

    Queries: up to 1,000 images (``clean``), and 2 x 15 x 32 (``probe``) where ``defended`` is not ``bare``.
    """
    rows = data.inputs[:_TRAFFIC]
    traffic = Oracle(_OneMemory(defended.fresh()), max_batch=max_batch, quantize=quantize, terms=terms)
    labels = traffic.ask(rows, "clean").labels
    books = [traffic.books]
    ratio = 1.0
    if defended is not bare:
        oracles = [Oracle(target, max_batch=max_batch, quantize=quantize, terms=terms) for target in (bare, defended)]
        pairs = [[_seconds(oracle, rows[:_TIMED_ROWS]) for oracle in oracles] for _ in range(_REPEATS)]
        fast, slow = (min(times) for times in zip(*pairs, strict=True))
        ratio = slow / fast
        books += [oracle.books for oracle in oracles]
    ledger: dict[str, Counter[str]] = {}
    for book in books:
        for purpose, entry in book.items():
            ledger.setdefault(purpose, Counter()).update(asdict(entry))
    right = None if data.labels is None else int((labels == data.labels[:_TRAFFIC]).sum())
    return {
        "clean": {
            "images": len(rows),
            "accuracy": None if right is None else right / len(rows),
            "false_alarms": int((labels == REFUSED).sum()) / len(rows),
        },
        "latency_ratio": ratio,
        "ledger": {purpose: dict(entry) for purpose, entry in ledger.items()},
    }


def _seconds(oracle: Oracle, rows: Tensor) -> float:
    began = time.perf_counter()
    oracle.ask(rows, "probe")
    return time.perf_counter() - began
