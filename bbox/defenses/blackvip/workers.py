"""The evaluations of a step shared among workers, of which each gives back one number for a point.

As Oh et al. 2023 need the values of whole losses alone, workers that know the seed exchange nothing but these. A value
does not depend on the worker: each point of a step is asked in calls of its own, whoever has time for it, so the
parameters are the same to the last bit for any number of workers.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

from bbox.defenses.blackvip.train import Fused
from bbox.defenses.books import Books
from bbox.defenses.label_mapping import LabelMapping
from bbox.defenses.randomness import row_digest
from bbox.errors import RequestLimitError, TargetError
from bbox.oracle import Ledger, Oracle

__all__ = ["LocalWorker", "Step", "Worker", "Workers", "keys_of", "threads"]


@dataclass(frozen=True)
class Step:
    """What there is to evaluate. A worker in this process reads it; one elsewhere rebuilds all of it from the seed.

    Shapes:
        points: (evaluations, dim); batch: (n,) int64 on the CPU; keys: (evaluations,), see ``keys_of``.
    """

    points: Tensor
    batch: Tensor
    keys: list[int]
    mapping: LabelMapping | None


class Worker(Protocol):
    """Where evaluations are made. Another engine (a cluster) is another class of this kind."""

    def evaluate(self, step: Step, number: int) -> float:
        """The mean loss at a point of the step. Called from a thread, one call at a time.

        Raises:
            TargetError: the worker is lost, and is not asked again.
        """

    def tell(self, values: Tensor) -> None:
        """The values of the whole step, (evaluations,) float64, from which a replica makes its next weights."""

    def delivered(self) -> Ledger:
        """What its target has delivered since this was last asked; known of a lost worker as well."""

    def close(self) -> None:
        """End it."""


class LocalWorker:
    """A worker in this process, with an oracle of its own."""

    def __init__(self, fused: Fused, oracle: Oracle) -> None:
        self._oracle = oracle
        objective = replace(fused.objective, books=Books(oracle, {}))
        self._fused = Fused(fused.prompter, fused.data, objective, fused.spsa, fused.seed, fused.purpose)

    def evaluate(self, step: Step, number: int) -> float:
        self._fused.objective.mapping = step.mapping
        return float(self._fused.at(step.points[number : number + 1], step.batch))

    def tell(self, values: Tensor) -> None:
        del values

    def delivered(self) -> Ledger:
        return self._oracle.books.pop(self._fused.purpose, Ledger())

    def close(self) -> None:
        pass


def threads(fused: Fused, count: int) -> list[Worker]:
    """Workers on the oracle's own target, which is asked by one at a time while others make their images.

    For copies of a target that can be asked at once (one a GPU), make a ``LocalWorker`` of an oracle for each.
    """
    crew: list[Worker] = []
    for _ in range(count):
        oracle = copy.copy(fused.objective.books.oracle)  # its lock included: one forward at a time
        oracle.books = defaultdict(Ledger)
        crew.append(LocalWorker(fused, oracle))
    return crew


class Workers:
    """An ``Evaluator`` that shares the points of a step among workers, within the budget of the books.

    Budget is set aside for each evaluation before it is given out. A worker that raises ``TargetError`` is lost: the
    rows that it was delivered stay paid, the others are free again, and its evaluation is made by another worker, or
    left out (NaN) where the budget does not allow it. Values go to the journal in the order of the evaluations.

    Use it as a context manager, which ends the workers.

    Raises (from ``values``):
        TargetError: all workers are lost; what they had answered is in the journal.
        RequestLimitError: the limit on requests is reached.
    """

    def __init__(self, fused: Fused, crew: Sequence[Worker]) -> None:
        self.fused = fused
        self.crew = list(crew)
        self._idle = deque(self.crew)  # those that are not lost, between two steps
        self._pool = ThreadPoolExecutor(max(1, len(self.crew)))
        self._lost: BaseException = TargetError("none was given")

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        for worker in self.crew:
            worker.close()

    def calls(self, evaluations: int, batch: int) -> int:
        """See ``Evaluator.calls``."""
        return evaluations * math.ceil(batch / self.fused.objective.books.oracle.max_batch)

    def values(self, step: int, weights: Tensor, batch: Tensor, width: float) -> Tensor:
        """See ``Evaluator.values``."""
        points = self.fused.points(step, weights, width)
        task = Step(points, batch, keys_of(points, batch), self.fused.objective.mapping)
        found = self._on_record(task)
        self._evaluate(task, found)
        values = torch.tensor([found.get(number, math.nan) for number in range(len(points))], dtype=torch.float64)
        for worker in self.crew:
            worker.tell(values)
        return values

    def _on_record(self, task: Step) -> dict[int, float]:
        """Values from the journal, by number."""
        books, purpose = self.fused.objective.books, self.fused.purpose
        found: dict[int, float] = {}
        met = True
        while met:  # again: one that was made anew after a loss lies behind others
            met = False
            for number, key in enumerate(task.keys):
                if number not in found and (value := books.recall(purpose, key)) is not None:
                    found[number] = value
                    met = True
                met |= number not in found and books.recall(purpose, key, lost=True) is not None
        return found

    def _evaluate(self, task: Step, found: dict[int, float]) -> None:
        """Add the values that are missing. This thread alone touches the books."""
        books, purpose = self.fused.objective.books, self.fused.purpose
        rows, calls = len(task.batch), self.calls(1, len(task.batch))
        todo = deque(number for number in range(len(task.points)) if number not in found)
        unwritten = list(todo)
        paid: dict[int, Ledger] = {}
        running: dict[Future[float], tuple[Worker, int]] = {}

        def collect(future: Future[float]) -> None:
            worker, number = running.pop(future)
            delivered = worker.delivered()
            books.settle(rows, calls, purpose, delivered)
            error = future.exception()
            if isinstance(error, TargetError):
                self._lost = error
                todo.appendleft(number)  # first: the value without a perturbation is part of all differences
                books.record(purpose, task.keys[number], math.nan, delivered, lost=True)
                return
            self._idle.append(worker)
            found[number], paid[number] = future.result(), delivered
            while unwritten and unwritten[0] in found:
                write(unwritten.pop(0))

        def write(number: int) -> None:
            books.record(purpose, task.keys[number], found[number], paid[number])

        try:
            while running or (todo and self._idle):
                while todo and self._idle:
                    number = todo.popleft()
                    if books.reserve(rows, calls, purpose):
                        worker = self._idle.popleft()
                        running[self._pool.submit(worker.evaluate, task, number)] = worker, number
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    collect(future)
        finally:
            for future in wait(running).done:  # interrupted: what is under way will be paid
                collect(future)
            for number in unwritten:
                if number in found:
                    write(number)
        if todo and isinstance(self._lost, RequestLimitError):
            raise self._lost  # no worker is at fault
        if todo:
            raise TargetError(f"all {len(self.crew)} workers are lost; the last one: {self._lost}")


def keys_of(points: Tensor, batch: Tensor) -> list[int]:
    """What the journal, and workers elsewhere, know an evaluation by: digests of the point and of the batch.

    Shapes:
        points: (m, dim); batch: (n,).
    """
    return row_digest(torch.cat([points, batch.to(points).expand(len(points), -1)], dim=1)).tolist()
