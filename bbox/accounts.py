"""The books of a group of attacked examples. They know no attack and no target.

``Accounts`` holds the exact budget of each example, the best adversarial row seen so far and its trace of (queries,
distance).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.batch import Batch, pick, put
from bbox.domain import ROUNDING, Domain
from bbox.errors import InternalError
from bbox.goal import Goal
from bbox.oracle import UNKNOWN, StopReason

__all__ = ["Accounts", "on_record"]

_B = TypeVar("_B", bound=Batch)


class Accounts:
    """The books of a group of attacked examples: budget, best-so-far, trace, stop reason.

    Everything here is counted on the CPU; only ``best`` lies on the target's device.

    Shapes:
        originals: (n, *shape), or n programs; spent, limit: (n,) int64; best: like originals; distance: (n,) float64,
        inf before the first adversarial row that is a valid result; first: (n,) int64, the query of the first
        adversarial row, valid or not, 0 before it; repeats: (n,) int64, rows that the attack knew the answer to.
    """

    def __init__(
        self, originals: Batch, goal: Goal, domain: Domain, budget: int, *, stop_at: float | None = None
    ) -> None:
        n = len(originals)
        self.originals = originals
        self.goal = goal
        self.domain = domain
        self.stop_at = stop_at
        self.limit = torch.full((n,), budget, dtype=torch.int64)
        self.spent = torch.zeros(n, dtype=torch.int64)
        self.best: Batch = originals.clone()
        self.first = torch.zeros(n, dtype=torch.int64)
        self.repeats = torch.zeros(n, dtype=torch.int64)
        self.best_label = torch.full((n,), UNKNOWN, dtype=torch.int64)
        self.distance = torch.full((n,), torch.inf, dtype=torch.float64)
        self.failed = torch.zeros(n, dtype=torch.bool)
        self.stopped: list[StopReason | None] = [None] * n
        self.open = torch.ones(n, dtype=torch.bool)
        self._trace: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def active(self) -> Tensor:
        """Which examples may still ask: (n,) bool."""
        return self.open & (self.spent < self.limit)

    def remaining(self) -> Tensor:
        """Queries that each example may still ask: (n,) int64."""
        return torch.where(self.open, self.limit - self.spent, 0)

    def admit(self, owner: Tensor, room: int | None = None, held: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reserve budget for the rows that fit, in order, row by row; ``room`` is for rows without an answer on record.

        Shapes:
            owner: (m,) int64; held: (n, k) bool, which queries of each example have an answer on record.
            returns: admitted (m,) bool, and each row's query number within its example, from 1: (m,) int64.
        """
        # numpy, here and in ``record``: on arrays this small its calls cost a quarter of torch's.
        owners, spent = owner.numpy(), self.spent.numpy()
        number = spent[owners] + _rank(owners) + 1
        fits = (number <= self.limit.numpy()[owners]) & self.open.numpy()[owners]
        if room is not None:
            new = np.True_ if held is None else ~on_record(held, owner, torch.from_numpy(number)).numpy()
            fits &= ~new | ((fits & new).cumsum() <= room)
        spent += np.bincount(owners[fits], minlength=len(spent))
        return torch.from_numpy(fits), torch.from_numpy(number)

    def record(self, rows: Batch, owner: Tensor, number: Tensor, labels: Tensor) -> Tensor:
        """Book answered rows; keep the closest adversarial row of each example and extend the traces.

        Shapes:
            rows: (k, *shape) as the target saw them; owner, number, labels: (k,) int64 on the CPU.
            returns: which rows are adversarial, (k,) bool.
        """
        adversarial = self.goal.met(labels, owner) & (labels >= 0)
        owners, best = owner.numpy(), self.distance.numpy()
        self.failed.numpy()[owners[(labels == UNKNOWN).numpy()]] = True
        hit = adversarial.numpy().nonzero()[0]
        if len(hit) == 0:
            return adversarial
        first = self.first.numpy()
        new = hit[first[owners[hit]] == 0][::-1]  # backwards: the earliest row of each owner is the last to write
        first[owners[new]] = number.numpy()[new]
        # Screen in float32, which is cheap, then measure the few rows that may be the closest in float64.
        rough = self.domain.rough_distance(_at(self.originals, owners[hit]), _at(rows, hit)).cpu().numpy()
        hit = hit[rough <= best[owners[hit]] * (1 + 1e-4)]
        if len(hit) == 0:
            return adversarial
        distance = self.domain.distance(_at(self.originals, owners[hit]), _at(rows, hit)).cpu().numpy()
        better = _improves(owners[hit], distance, best)
        if len(better):
            hit, distance = hit[better], distance[better]
            last = _last_of_each(owners[hit])
            mine = owners[hit[last]]
            put(self.best, torch.from_numpy(mine), _at(rows, hit[last]))
            self.best_label.numpy()[mine] = labels.numpy()[hit[last]]
            best[mine] = distance[last]
            self._trace.append((owners[hit], number.numpy()[hit], distance))
        return adversarial

    def hand_back(self, owner: Tensor) -> None:
        """Free the budget of rows that were admitted and never delivered. Shapes: owner (k,) int64."""
        self.spent -= torch.bincount(owner, minlength=len(self))

    def repeat(self, owner: Tensor) -> None:
        """Count rows that were answered from an attack's memory: not asked, not spent. Shapes: owner (k,) int64."""
        self.repeats += torch.bincount(owner, minlength=len(self))

    def settle(self) -> None:
        """Stop the examples that are done: goal reached, target broken. Called when an ask is complete."""
        for i in self.failed.nonzero()[:, 0].tolist():
            self.stop(i, "target_error")
        if self.stop_at is not None:
            self.finish(self.stop_at)

    def finish(self, within: float) -> None:
        """Stop with ``success`` the examples whose closest adversarial row lies within this distance."""
        near = (self.distance <= within + ROUNDING) & torch.isfinite(self.distance)
        for i in near.nonzero()[:, 0].tolist():
            self.stop(i, "success")

    def stop(self, example: int, reason: StopReason) -> None:
        """Give an example its stop reason; the first one stays."""
        if self.stopped[example] is None:
            self.stopped[example] = reason
            self.open[example] = False

    def close(self, reason: StopReason | None = None) -> None:
        """Give every example that has none its stop reason: ``reason``, or what the books say."""
        for i in range(len(self)):
            spent_all = bool(self.spent[i] >= self.limit[i])
            found = bool(torch.isfinite(self.distance[i]))
            self.stop(i, "budget" if spent_all else reason or ("converged" if found else "start_not_found"))

    def traces(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Each example's improvements in order: (queries (k,) int64, distance (k,) float64)."""
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
        owner, number, distance = (np.concatenate(parts) for parts in zip(empty, *self._trace, strict=True))
        return [(number[owner == i], distance[owner == i]) for i in range(len(self))]

    def check(self, rows: Batch) -> None:
        """Refuse rows outside the domain: a defect of the attack, never passed on to the target."""
        fault = self.domain.fault(rows)
        if fault is not None:
            raise InternalError(f"the attack asked a row outside its domain: {fault}")


def on_record(held: Tensor, owner: Tensor, number: Tensor) -> Tensor:
    """Which rows have an answer on record, (m,) bool. Shapes: held (n, k) bool, owner and number (m,) int64, from 1."""
    found = number <= held.shape[1]
    if held.shape[1]:
        found &= held[owner, (number - 1).clamp(max=held.shape[1] - 1)]
    return found


def _at(rows: _B, index: NDArray[np.int64]) -> _B:
    return pick(rows, torch.from_numpy(index))


def _rank(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's place among the rows of the same owner, from 0: (m,)."""
    order = np.argsort(owner, kind="stable")
    place = np.arange(len(owner))
    rank = np.empty_like(owner)
    rank[order] = place - np.maximum.accumulate(np.where(_starts(owner[order]), place, 0))
    return rank


def _starts(ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a new value begins in an ordered array: (m,)."""
    starts = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    return starts


def _improves(owner: NDArray[np.int64], distance: NDArray[np.float64], best: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the rows that are closer than their owner's best and than every earlier row of it, in row order."""
    candidate = (distance < best[owner]).nonzero()[0]
    if len(candidate) < 2:
        return candidate
    # A running minimum by owner, exact because it runs over ranks: owners in falling blocks of ranks.
    order = candidate[np.argsort(owner[candidate], kind="stable")]
    block = _starts(owner[order]).cumsum()
    rank = np.empty_like(order)
    rank[np.argsort(distance[order], kind="stable")] = np.arange(len(order))
    rank -= block * len(order)
    new = np.ones(len(order), dtype=np.bool_)
    np.less(rank[1:], np.minimum.accumulate(rank)[:-1], out=new[1:])
    return np.sort(order[new])


def _last_of_each(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of the last row of each owner: (owners,)."""
    return len(owner) - 1 - np.unique(owner[::-1], return_index=True)[1]
