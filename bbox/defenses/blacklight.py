"""Blacklight: refuse a query whose fingerprints resemble those of an earlier one."""

from __future__ import annotations

import sys
from collections import Counter, deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.defenses.base import Defense
from bbox.defenses.detector import Detector
from bbox.defenses.ranges import at_least, between
from bbox.targets.base import Target
from bbox.zo import fold, root_keys, uniform

__all__ = ["Blacklight"]

_NONE = torch.iinfo(torch.int64).min  # where a row has fewer windows than fingerprints are kept
_FLAT = 0.1  # of the quantum: a window whose neighbours all differ by less says nothing of the image


@dataclass(frozen=True)
class Blacklight(Defense):
    """Fingerprints of quantised windows, matched against all earlier queries (Li, Shan, Wenger, Zheng, Zhao, USENIX
    Security 2022).

    Values of 0..255 get a secret offset each and are quantised; every window of consecutive values (in the order
    channel, row, column) is hashed; the largest hashes of a query are its fingerprints. A query that shares ``matches``
    of them with any earlier one is refused.

    Published are window 20 for small images and 50 for ImageNet, with quantum 50, step 1 and 25 of 50 fingerprints.
    With window 20, 24% of CGBA's queries on zoo:digits were refused (its noise is small steps in many pixels), with the
    default of 8, 88%; neither refused any of 500 distinct digits or of 320 colour crops of 32 pixels. For 224 pixels
    take ``window=20`` or more.

    Two things differ from the paper. Windows without an edge are left out: on MNIST they are background that images
    share (with them, 0.8% of the digits were refused at window 20). So an image with fewer than ``matches`` windows
    that have edges is never refused. And refused queries are not remembered: what resembles one mostly resembles what
    it was refused for, and so repeating cannot fill the memory.

    Args:
        window: values a window.
        step: values from one window to the next.
        quantum: width of a quantisation cell, in units of 1/255.
        keep: fingerprints a query.
        matches: fingerprints that an earlier query must share, at most ``keep``.
        memory: queries that are remembered, 0 for all that were answered.
        seed: of the offsets and hashes; secret in service, or an attacker can avoid all matches.

    Queries: one forward row each, none for refused ones.
    """

    window: int = 8
    step: int = 1
    quantum: int = 50
    keep: int = 50
    matches: int = 25
    memory: int = 0
    seed: int = 0

    summary: ClassVar[str] = "refuses queries that share fingerprints with an earlier one (USENIX Security 2022)"
    needs: ClassVar[tuple[str, ...]] = ("input", "state")
    cost: ClassVar[str] = "hashing; 4 to 9 KB a remembered query; refuses near-duplicates of users"
    weakness: ClassVar[str] = "OARS: steps just large enough not to match (arXiv 2303.06280, CCS 2023)"
    adaptations: ClassVar[tuple[str, ...]] = ("resample", "large-steps")

    def __post_init__(self) -> None:
        at_least("window", self.window, 1)
        at_least("step", self.step, 1)
        between("quantum", self.quantum, 1, 255)
        at_least("keep", self.keep, 1)
        between("matches", self.matches, 1, self.keep)
        at_least("memory", self.memory, 1, or_zero="all")

    def wrap(self, target: Target) -> Target:
        return _Fingerprinted(target, self)

    def fingerprints(self, rows: Tensor) -> Tensor:
        """Fingerprints of each row; int64's least value where a row has fewer. Exact on any device, in any batch.

        Shapes: rows (n, *shape) in [0, 1]; returns (n, at most keep) int64.
        """
        values = rows.flatten(1) * 255
        size = values.shape[1]
        keys = root_keys(self.seed, torch.arange(2, device=rows.device))
        offset = uniform(keys[:1], size) * 255
        cells = torch.floor((values + offset) % 255 / self.quantum).to(torch.int64)
        # A window's hash is a difference of running sums of hashed values: its cost does not depend on its length.
        # Weights belong to places, so windows match in place only; the offsets would have it so anyway.
        weights = fold(keys[1], torch.arange(size, device=rows.device)) | 1
        window = min(self.window, size)
        start = torch.arange(0, size - window + 1, self.step, device=rows.device)
        sums = torch.nn.functional.pad((fold(cells, 1) * weights).cumsum(1), (1, 0))
        hashes = fold(sums[:, start + window] - sums[:, start], 1)
        edges = (values.diff(dim=1).abs() > _FLAT * self.quantum).cumsum(1)
        edges = torch.nn.functional.pad(edges, (1, 0))
        flat = edges[:, start + window - 1] == edges[:, start]
        return hashes.masked_fill(flat, _NONE).topk(min(self.keep, len(start)), dim=1).values


class _Fingerprinted(Detector):
    defense: Blacklight

    def __init__(self, inner: Target, defense: Blacklight) -> None:
        super().__init__(inner, defense, name="blacklight")
        self._index: dict[int, list[int]] = {}  # fingerprint -> numbers of the queries that have it, oldest first
        self._queries: deque[list[int]] = deque()  # their fingerprints, oldest first
        self._first = 0  # the number of the oldest
        self._added = 0  # by the last batch

    def judge(self, rows: Tensor) -> Tensor:
        while self.defense.memory and len(self._queries) > self.defense.memory:
            self._forget_oldest()
        self._added = 0
        # One row after another, since each may match the one before; the hashing was done for all together.
        found = self.defense.fingerprints(rows).tolist()
        return torch.tensor([self._refuse([f for f in row if f != _NONE]) for row in found], device=rows.device)

    def _refuse(self, fingerprints: list[int]) -> bool:
        shared = Counter(query for f in fingerprints for query in self._index.get(f, ()))
        oldest = self._first if not self.defense.memory else self._next - self.defense.memory
        most = max((count for query, count in shared.items() if query >= oldest), default=0)
        if most >= self.defense.matches:
            return True
        for f in fingerprints:
            self._index.setdefault(f, []).append(self._next)
        self._queries.append(fingerprints)
        self._added += 1
        return False

    @property
    def _next(self) -> int:
        return self._first + len(self._queries)

    def undo(self) -> None:
        for _ in range(self._added):
            self._drop(self._queries.pop(), -1)
        self._added = 0

    def _forget_oldest(self) -> None:
        self._drop(self._queries.popleft(), 0)
        self._first += 1

    def _drop(self, fingerprints: list[int], end: int) -> None:
        for f in fingerprints:
            self._index[f].pop(end)
            if not self._index[f]:
                del self._index[f]

    @property
    def remembered(self) -> int:
        return len(self._queries)

    @property
    def state_bytes(self) -> int:
        ints = sum(sys.getsizeof(f) for row in self._queries for f in row)
        lists = sum(map(sys.getsizeof, self._index.values())) + sum(map(sys.getsizeof, self._queries))
        return sys.getsizeof(self._index) + sys.getsizeof(self._queries) + lists + ints
