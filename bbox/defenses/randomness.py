"""Randomness for defenses that answer each query with fresh noise."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.defenses.base import Defense, Wrapped
from bbox.targets.base import Target
from bbox.zo import fold, root_keys

__all__ = ["Randomized", "RowKeys", "row_digest"]

_WIDTH = 1 << 16  # distinct weights of the row digest; longer rows repeat them
_REMEMBERED = 1 << 20  # distinct rows a generation: about 100 bytes each, two generations are kept


class RowKeys:
    """A key for each row that is asked: from the seed, the row's content, and how often that row was asked before.

    So a repeated query gets fresh noise (an attacker can average over it), and yet what a row is answered does not
    depend on what else is in the batch: a defended target keeps the batch invariance of the attacks on it.

    Memory is bounded: a row that was not asked among the last ``remembered`` distinct rows may be forgotten. Asked
    again, it gets its first noise again, which tells an attacker nothing new.

    Args:
        seed: the noise of a known seed can be subtracted; in service, keep it secret.
        remembered: distinct rows whose counts are kept, at least; at most twice as many.
    """

    def __init__(self, seed: int, *, remembered: int = _REMEMBERED) -> None:
        self.seed = seed
        self._remembered = remembered
        self._asked: dict[int, int] = {}
        self._before: dict[int, int] = {}  # the generation before: dropped whole, since a dict's oldest is dear to find

    def __len__(self) -> int:
        return len(self._asked) + len(self._before)

    def __call__(self, rows: Tensor) -> Tensor:
        """Shapes: rows (n, *shape) float32; returns (n,) int64 on the rows' device."""
        content = row_digest(rows)
        repeats = [self._count(digest) for digest in content.tolist()]
        seed = root_keys(self.seed, torch.zeros(1, dtype=torch.int64)).to(rows.device)
        return fold(fold(seed, content), torch.tensor(repeats, dtype=torch.int64, device=rows.device))

    def _count(self, digest: int) -> int:
        times = self._asked.get(digest)
        if times is None:
            times = self._before.pop(digest, 0)
            if len(self._asked) >= self._remembered:
                self._before, self._asked = self._asked, {}
        self._asked[digest] = times + 1
        return times


class Randomized(Wrapped):
    """A wrapped target that draws fresh noise from ``self.keys`` for each query."""

    def __init__(self, inner: Target, defense: Defense, *, name: str, seed: int) -> None:
        super().__init__(inner, defense, name=name)
        self.deterministic = False
        self.keys = RowKeys(seed)

    def fresh(self) -> Target:
        twin = super().fresh()
        if isinstance(twin, Randomized):
            # A twin that replayed the same noise would confirm every adversarial row that was only lucky.
            twin.keys = self.keys
        return twin


def row_digest(rows: Tensor) -> Tensor:
    """A 64-bit digest of each row's bits, by wrapping integer arithmetic: exact in any order, on any device.

    Shapes:
        rows: (n, *shape) float32; returns (n,) int64.
    """
    bits = rows.detach().float().contiguous().flatten(1).view(torch.int32).to(torch.int64)
    place = torch.arange(bits.shape[1], device=rows.device)
    weights = fold(root_keys(0, place % _WIDTH), place // _WIDTH) | 1
    # Mixed before they are summed: floats such as 1.0 end in zero bits, which would leave the sum half empty.
    return (fold(bits, 1) * weights).sum(1)
