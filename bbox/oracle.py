"""The oracle: the only door to a target. It counts every row, and keeps each example's account.

``Oracle`` delivers rows and keeps the books (``Ledger``). ``Accounts`` holds, for a group of attacked examples, the
exact budget, the best adversarial row seen so far and its trace of (queries, distance). Neither knows any attack.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.batch import Batch, pick, put
from bbox.code.program import Programs
from bbox.domain import ROUNDING, Domain
from bbox.errors import BudgetError, InternalError, TargetError
from bbox.goal import Goal
from bbox.targets.base import REFUSED, Target

__all__ = ["UNKNOWN", "Accounts", "Answers", "Ledger", "Oracle", "Purpose", "StopReason"]

Purpose = Literal["attack", "probe", "clean", "verify", "fit", "select", "certify", "baseline", "evaluate"]
StopReason = Literal[
    "budget",
    "converged",
    "success",
    "start_not_found",
    "no_identifiers",
    "already_wrong",
    "refused",
    "target_error",
    "interrupted",
    "time_limit",
]

_B = TypeVar("_B", bound=Batch)

UNKNOWN = -1  # the label of a row that the target answered with something that is no answer (NaN, out of range)


@dataclass
class Ledger:
    """What one purpose has cost.

    Attributes:
        queries: rows delivered by the target. Repeats count.
        calls: forwards (batches) that delivered them.
        replayed: rows answered from a journal on resume; they count in an example's budget and were paid before.
        invalid: delivered rows whose answer was not usable (not finite, not a class).
        refused: delivered rows that the target refused to answer (a stateful defense).
    """

    queries: int = 0
    calls: int = 0
    replayed: int = 0
    invalid: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Answers:
    """A target's answers, on the CPU (one transfer a call).

    Shapes:
        labels: (m,) int64, the top-1 class, -1 where the answer was not usable, -2 where the target refused.
        scores: (m, classes) float32, or ``None`` where the target gives labels only.
    """

    labels: Tensor
    scores: Tensor | None


class Oracle:
    """Asks a target and counts.

    Args:
        target: anything that classifies (``bbox.targets``).
        max_batch: rows a forward; halved for good when CUDA runs out of memory.
        quantize: ``"8bit"`` answers for the image as it is after rounding to 8 bits.
        limit: rows that all attacks together may ask, ``None`` for no limit.
        paid: rows of the limit that earlier sessions of the run have asked.

    Raises (from ``ask``):
        TargetError: the target raised, or answered with the wrong number or kind of answers.
    """

    def __init__(
        self,
        target: Target,
        *,
        max_batch: int = 128,
        quantize: Literal["8bit"] | None = None,
        limit: int | None = None,
        paid: int = 0,
    ) -> None:
        self.target = target
        self.max_batch = max_batch
        self.quantize = quantize
        self.limit = limit
        self.paid = paid
        self.books: defaultdict[Purpose, Ledger] = defaultdict(Ledger)
        # The engine asks from a thread of its own while finished examples are verified: one forward at a time.
        self._one_at_a_time = threading.Lock()

    @property
    def device(self) -> torch.device:
        return self.target.device

    def admissible(self, rows: _B) -> _B:
        """The rows as the target will see them: float32 on its device, on the 8-bit grid if that was asked for."""
        if isinstance(rows, Programs):
            return rows
        moved = rows.to(self.device, torch.float32)
        if self.quantize == "8bit":
            moved = torch.round(moved * 255.0) / 255.0
        return cast("_B", moved)

    def left(self) -> int | None:
        """Rows that the run-wide limit still allows, ``None`` without one."""
        return None if self.limit is None else self.limit - self.paid - self.books["attack"].queries

    def ask(self, rows: Batch, purpose: Purpose = "attack") -> Answers:
        """Deliver rows in forwards of at most ``max_batch``, and count them under ``purpose``.

        Shapes:
            rows: (m, *shape) in the target's range, or m programs.
        """
        left = self.left()
        if purpose == "attack" and left is not None and len(rows) > left:
            raise BudgetError(f"{len(rows)} rows asked, but the run's limit of {self.limit} leaves {left}")
        rows = self.admissible(rows)
        parts: list[Answers] = []
        start = 0
        while start < len(rows):
            part = rows[start : start + self.max_batch]
            try:
                parts.append(self._deliver(part, purpose))
            except torch.cuda.OutOfMemoryError as error:
                # Nothing was delivered, so nothing was counted: halve and ask the same rows again.
                if len(part) == 1:
                    raise TargetError(f"{self.target.name}: one row does not fit in GPU memory") from error
                torch.cuda.empty_cache()
                self.max_batch = len(part) // 2
                continue
            start += len(part)
        if not parts:
            return Answers(torch.empty(0, dtype=torch.int64), None)
        scores = None if parts[0].scores is None else torch.cat([p.scores for p in parts if p.scores is not None])
        return Answers(torch.cat([p.labels for p in parts]), scores)

    def _deliver(self, rows: Batch, purpose: Purpose) -> Answers:
        try:
            # A target that remembers what it was asked must see the attack's traffic alone.
            target = self.target if purpose == "attack" else self.target.fresh()
            with self._one_at_a_time:
                raw = target(rows)
        except torch.cuda.OutOfMemoryError:
            raise
        except (TargetError, BudgetError):
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise TargetError(f"{self.target.name} failed on rows of shape {tuple(rows.shape)}: {reason}") from error
        answers = self._read(raw, len(rows))
        ledger = self.books[purpose]
        ledger.queries += len(rows)
        ledger.calls += 1
        ledger.invalid += int((answers.labels == UNKNOWN).sum())
        ledger.refused += int((answers.labels == REFUSED).sum())
        return answers

    def _read(self, raw: object, count: int) -> Answers:
        """Check an answer and bring it to the CPU."""
        name = self.target.name
        if not isinstance(raw, Tensor):
            raise TargetError(f"{name} answered a {type(raw).__name__}, expected a tensor of scores or labels")
        if self.target.access == "labels":
            if raw.shape != (count,):
                raise TargetError(f"{name} answered {tuple(raw.shape)} for {count} rows, expected ({count},) labels")
            labels = raw.detach().to("cpu")
            if labels.is_floating_point():
                whole = torch.isfinite(labels) & (labels == labels.round())
                labels = torch.where(whole, labels, torch.full_like(labels, UNKNOWN))
            labels = labels.to(torch.int64)
            beyond = labels < 0
            if self.target.refuses:
                beyond &= labels != REFUSED
            if self.target.num_classes is not None:
                beyond |= labels >= self.target.num_classes
            return Answers(labels.masked_fill(beyond, UNKNOWN), None)
        if raw.ndim != 2 or len(raw) != count or raw.shape[1] < 1:
            raise TargetError(
                f"{name} answered {tuple(raw.shape)} for {count} rows, expected ({count}, classes) scores"
            )
        scores = raw.detach().to("cpu", torch.float32)
        labels = scores.argmax(1)
        # A class masked with -inf is an answer; NaN, or an infinite best score, is none (NaN counts as the maximum).
        labels = labels.masked_fill(~torch.isfinite(scores.amax(1)), UNKNOWN)
        if self.target.refuses:
            labels = labels.masked_fill(scores.isnan().all(1), REFUSED)
        return Answers(labels, scores)


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

    def admit(self, owner: Tensor, room: int | None = None, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reserve budget for the rows that fit, in order, row by row; ``room`` is for rows without an answer on record.

        Shapes:
            owner: (m,) int64; known: (n,) int64, the answers on record for each example.
            returns: admitted (m,) bool, and each row's query number within its example, from 1: (m,) int64.
        """
        # numpy, here and in ``record``: on arrays this small its calls cost a quarter of torch's.
        owners, spent = owner.numpy(), self.spent.numpy()
        number = spent[owners] + _rank(owners) + 1
        fits = (number <= self.limit.numpy()[owners]) & self.open.numpy()[owners]
        if room is not None:
            new = np.True_ if known is None else number > known.numpy()[owners]
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
