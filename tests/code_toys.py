"""Programs and a metered target of code, for tests of what is around an attack."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bbox.code.program import Program, Programs
from bbox.targets.base import Target

SOURCES = (
    "def area(width, height):\n    total = width * height\n    return total\n",
    "def mean(values):\n    count = len(values)\n    total = sum(values)\n    return total / count\n",
    "def clamp(value, low, high):\n    if value < low:\n        return low\n    return min(value, high)\n",
    "def join(parts, glue):\n    text = glue.join(parts)\n    size = len(text)\n    return text, size\n",
    "def count(items, wanted):\n    found = 0\n    for item in items:\n        found += item == wanted\n"
    "    return found\n",
    "def nothing():\n    return 1\n",
)


def programs(count: int = len(SOURCES)) -> Programs:
    return Programs(Program(code, "python") for code in SOURCES[:count])


class Letters(Target):
    """A linear model of how often each letter stands in a program; it meters what it is asked.

    Each row is computed by itself in float64, so that its answer cannot depend on the batch.
    """

    takes = "code"
    num_classes = 3

    def __init__(self, access: str = "scores", seed: int = 0) -> None:
        self.name = "letters"
        self.access = access  # type: ignore[assignment]
        self.weights = np.random.default_rng(seed).normal(size=(3, 26))
        self.seen: list[str] = []
        self.batches: list[int] = []

    @property
    def rows(self) -> int:
        return len(self.seen)

    def answer(self, codes: Sequence[str]) -> Tensor:
        rows = []
        for code in codes:
            counts = Counter(letter for letter in code.lower() if "a" <= letter <= "z")
            share = np.array([counts[chr(97 + i)] for i in range(26)]) / max(1, sum(counts.values()))
            logits = 60 * self.weights @ share
            rows.append(np.exp(logits - logits.max()))
        scores = torch.tensor(np.array(rows))
        return (scores / scores.sum(1, keepdim=True)).float()

    def __call__(self, rows: Programs) -> Tensor:
        self.seen.extend(rows.codes())
        self.batches.append(len(rows))
        scores = self.answer(rows.codes())
        return scores.argmax(1) if self.access == "labels" else scores

    def labels(self, rows: Programs) -> Tensor:
        """The classes it gives, without a query: true labels for a test."""
        return self.answer(rows.codes()).argmax(1)

    def fingerprint(self) -> str:
        return hashlib.sha256(self.weights.tobytes()).hexdigest()[:16]
