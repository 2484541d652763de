"""``--engine ray``: shards of a run over Ray actors, each with a target of its own; the journal stays with the driver.

The driver hands out shards, and with each a part of the run's limits; it writes down answers as they come, and finishes
examples as the local engine does. A shard whose worker dies is attacked again by a new one, from the answers on record.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from bbox.calibrate import usable_cores
from bbox.errors import BboxError, InputError, RequestLimitError, TargetError, UsageError
from bbox.problem import ABSENT, Done
from bbox.results.plan import Plan
from bbox.results.ray_worker import Answered, Finished, Outfit, Stopped, Worker
from bbox.results.shard import Shard
from bbox.results.store import RunFolder

__all__ = ["drive_sharded"]

_GROUP = 8  # examples that the engine attacks as one (``make_jobs``): shards are whole groups
_SHARDS_A_WORKER = 2  # the fewer, the fuller the forwards; the more, the less is done again when a worker dies
_LARGEST = 256  # examples in a shard: as many as the engine runs side by side
_DEATHS = 3  # of workers by one shard, after which it is the shard's fault


@dataclass
class _Assignment:
    """A shard under way.

    Attributes:
        queries, requests: what it may spend, ``None`` without a limit; asked: new answers so far.
    """

    shard: Shard
    stream: Any
    queries: int | None
    requests: int | None
    asked: int = 0


def drive_sharded(
    plan: Plan,
    folder: RunFolder,
    shard: Shard,
    *,
    time_limit: float | None = None,
    on_answers: Callable[[int], None] | None = None,
) -> Iterator[Done]:
    """Attack the examples of a shard on ``plan.config.workers`` Ray actors, and yield groups as they are finished.

    Ray is started on this machine, or reached by ``RAY_ADDRESS``. GPUs, where Ray sees some, are shared out evenly.

    Args:
        time_limit: seconds after which every example stops with ``time_limit``.
        on_answers: called with the number of new answers.

    Raises:
        UsageError: ray is not installed or cannot be reached.
        TargetError: a target failed, or one shard killed three workers; what was answered is on record.
    """
    if len(shard) == 0:
        return
    with _cluster() as ray:
        yield from _Driver(ray, plan, folder, shard, time_limit, on_answers or (lambda _: None)).run()


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, started for this run or connected to."""
    import ray  # ``prepare`` has seen that it is installed

    ours = not ray.is_initialized()
    if ours:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's own deprecations
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise UsageError(f"Ray does not start or answer on {where}: {reason}") from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


class _Driver:
    """Hands out shards and keeps the books of the run."""

    def __init__(
        self,
        ray: Any,
        plan: Plan,
        folder: RunFolder,
        shard: Shard,
        time_limit: float | None,
        on_answers: Callable[[int], None],
    ) -> None:
        self.ray, self.plan, self.folder = ray, plan, folder
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.on_answers = on_answers
        workers = plan.config.workers
        size = -(-len(shard) // (_SHARDS_A_WORKER * workers))
        size = min(_LARGEST, -(-size // _GROUP) * _GROUP)
        self.waiting = deque(shard.take(rows) for rows in torch.split(torch.arange(len(shard)), size))
        self.workers = min(workers, len(self.waiting))
        self.deaths: Counter[int] = Counter()  # by the first example of the shard
        self.error: BboxError | None = None
        self.left = plan.oracle.left()
        self.pool = ray.put(plan.pool)
        config = replace(plan.config, max_batch=plan.oracle.max_batch)
        threads = max(1, torch.get_num_threads() // self.workers)
        self.share = 1 / (self.workers + 1)  # of a live target's rate limits: the driver verifies beside the workers
        self.outfit = ray.put(Outfit(config, self.share, plan.oracle.max_batch, threads))

    def run(self) -> Iterator[Done]:
        """Until every shard is finished."""
        under_way: dict[Any, _Assignment] = {}
        idle = [self._new_worker() for _ in range(self.workers)]
        busy: dict[Any, Any] = {}
        self.plan.oracle.terms.share = self.share
        try:
            self._check_same(idle)
            while True:
                while idle and (assignment := self._next(idle[-1], free=not under_way)):
                    under_way[assignment.stream] = assignment
                    busy[assignment.stream] = idle.pop()
                if not under_way:
                    break
                ready, _ = self.ray.wait(list(under_way), num_returns=1)
                assignment = under_way[ready[0]]
                try:
                    message = self.ray.get(next(assignment.stream))
                except self.ray.exceptions.RayActorError:
                    self._bury(under_way.pop(ready[0]))
                    busy.pop(ready[0])
                    idle.append(self._new_worker())
                    continue
                if isinstance(message, Answered):
                    self._book(assignment, message)
                elif isinstance(message, Finished):
                    yield self._whole(assignment, message)
                else:
                    del under_way[ready[0]]
                    idle.append(busy.pop(ready[0]))
                    self._end(assignment, message)
        finally:
            self.plan.oracle.terms.share = 1.0
            for worker in (*idle, *busy.values()):
                self.ray.kill(worker)
        if self.error is not None:
            raise self.error

    def _new_worker(self) -> Any:
        gpus = self.ray.cluster_resources().get("GPU", 0)
        cores = self.ray.cluster_resources().get("CPU", usable_cores())
        remote = self.ray.remote(num_cpus=min(1, cores / self.workers), num_gpus=min(1, gpus / self.workers))
        return remote(Worker).remote(self.outfit, self.pool)

    def _check_same(self, workers: list[Any]) -> None:
        """Refuse workers that load another target than the driver."""
        mine = self.plan.oracle.fingerprint
        try:
            theirs = self.ray.get([worker.fingerprint.remote() for worker in workers])
        except self.ray.exceptions.RayActorError as error:
            raise InputError(f"a worker cannot load {self.plan.config.target}: {_reason(error)}") from error
        if any(fingerprint != mine for fingerprint in theirs):
            raise InputError(f"the workers load another {self.plan.config.target} than the driver")

    def _next(self, worker: Any, *, free: bool) -> _Assignment | None:
        """Hand the next shard to a worker, with its part of what is left.

        Args:
            free: no other shard is under way.
        """
        self.plan.oracle.terms.settle()  # what the driver has reserved for its own answers
        if not self.waiting or (self.error is not None and not (free and self._again())):
            return None
        shard = self.waiting.popleft()
        known = {int(e): self.folder.answers(int(e)) for e in shard.positions}
        queries = None
        if self.left is not None:
            most = len(shard) * shard.budget - sum(int((labels != ABSENT).sum()) for labels, _ in known.values())
            queries = min(most, self.left)
            self.left -= queries
        requests, purse = None, self.plan.purse
        if purse is not None:
            requests = purse.lease(max(1, (purse.limit - purse.used) // self.workers))
        seconds = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        stream = worker.run.remote(shard, known, queries, requests, seconds)
        return _Assignment(shard, stream, queries, requests)

    def _again(self) -> bool:
        """Whether the requests that others have handed back let a shard go on that had run out of them."""
        purse = self.plan.purse
        if isinstance(self.error, RequestLimitError) and purse is not None and purse.used < purse.limit:
            self.error = None
        return self.error is None

    def _book(self, assignment: _Assignment, message: Answered) -> None:
        for examples, numbers, labels, scores in message.parts:
            self.folder.append(examples, numbers, labels, scores)
        new = sum(len(labels) for _, _, labels, _ in message.parts)
        assignment.asked += new
        ledger = self.plan.oracle.books["attack"]
        for name, count in message.cost.items():
            setattr(ledger, name, getattr(ledger, name) + count)
        self.on_answers(new)

    @staticmethod
    def _whole(assignment: _Assignment, message: Finished) -> Done:
        place = {int(e): row for row, e in enumerate(assignment.shard.positions)}
        rows = torch.tensor([place[int(e)] for e in message.examples])
        message.accounts.originals = assignment.shard.take(rows).inputs
        return Done(message.accounts, message.examples)

    def _end(self, assignment: _Assignment, message: Stopped) -> None:
        self._settle(assignment, message.requests_left)
        if message.error is not None:
            self.error = message.error
            self._put_back(assignment.shard)

    def _bury(self, assignment: _Assignment) -> None:
        """A worker has died: its shard waits again. The requests that it was granted count as sent."""
        self._settle(assignment, 0)
        first = int(assignment.shard.positions[0])
        self.deaths[first] += 1
        self._put_back(assignment.shard)
        if self.deaths[first] >= _DEATHS:
            self.error = TargetError(
                f"{_DEATHS} workers have died of examples {first} and following (memory?); what was answered is kept: "
                "go on with --resume"
            )
        else:
            warnings.warn("a worker has died; its examples are attacked again from the answers on record", stacklevel=2)

    def _settle(self, assignment: _Assignment, requests_left: int) -> None:
        if self.left is not None and assignment.queries is not None:
            self.left += assignment.queries - assignment.asked
        if self.plan.purse is not None and requests_left:
            self.plan.purse.lease(-requests_left)

    def _put_back(self, shard: Shard) -> None:
        """Let a shard wait again, without the examples that are finished."""
        self.folder.reload()
        done = self.folder.examples()
        rows = torch.tensor([row for row, e in enumerate(shard.positions.tolist()) if e not in done])
        if len(rows):
            self.waiting.appendleft(shard.take(rows))


def _reason(error: BaseException) -> str:
    """The last line that says something: Ray puts the worker's own error at the end of a long text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
