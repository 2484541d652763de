"""Randomness for defenses that answer each query with fresh noise."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from bbox.zo import fold, root_keys

__all__ = ["RowKeys"]

_WIDTH = 1 << 16  # distinct weights of the row digest; longer rows repeat them


class RowKeys:
    """A key for each row that is asked: from the seed, the row's content, and how often that row was asked before.

    So a repeated query gets fresh noise (an attacker can average over it), and yet what a row is answered does not
    depend on what else is in the batch: a defended target keeps the batch invariance of the attacks on it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._asked: Counter[int] = Counter()

    def __call__(self, rows: Tensor) -> Tensor:
        """Shapes: rows (n, *shape) float32; returns (n,) int64 on the rows' device."""
        content = row_digest(rows)
        repeats = []
        for digest in content.tolist():
            repeats.append(self._asked[digest])
            self._asked[digest] += 1
        seed = root_keys(self.seed, torch.zeros(1, dtype=torch.int64)).to(rows.device)
        return fold(fold(seed, content), torch.tensor(repeats, device=rows.device))


def row_digest(rows: Tensor) -> Tensor:
    """A 64-bit digest of each row's bits, by wrapping integer arithmetic: exact in any order, on any device.

    Shapes:
        rows: (n, *shape) float32; returns (n,) int64.
    """
    bits = rows.detach().float().contiguous().flatten(1).view(torch.int32).to(torch.int64)
    place = torch.arange(bits.shape[1], device=rows.device)
    weights = fold(root_keys(0, place % _WIDTH), place // _WIDTH) | 1
    return (fold(bits, 1) * weights).sum(1)
