"""A Ray actor that attacks shards with a target of its own, and sends every answer to the driver as it comes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor

from bbox import targets
from bbox.accounts import Accounts
from bbox.attacks import make_attack
from bbox.cache import AnswerCache
from bbox.engine import Pool, drive
from bbox.errors import BboxError, InternalError
from bbox.oracle import Ledger, Oracle
from bbox.results.records import Config
from bbox.results.shard import Shard
from bbox.targets.account import Meter, Purse, Terms

__all__ = ["Answered", "Finished", "Outfit", "Stopped", "Worker"]

_EVERY = 0.2  # seconds between two messages: a killed worker's answers since the last one are asked again


@dataclass(frozen=True)
class Outfit:
    """What a worker is made of.

    Attributes:
        share: the part of a live target's rate limits that is this worker's.
        path: the driver's module search path, for targets that are loaded from a module.
    """

    config: Config
    share: float
    max_batch: int
    threads: int
    path: tuple[str, ...] = field(default_factory=lambda: (os.getcwd(), *sys.path))  # noqa: PTH109


@dataclass(frozen=True)
class Answered:
    """Answers for the journal, and what they cost.

    Shapes: examples, numbers, labels (k,) int64; scores (k, classes) float32 or ``None``.
    """

    parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor | None]]
    cost: Mapping[str, int]


@dataclass(frozen=True)
class Finished:
    """A group of examples that is done; the accounts without the originals, which the driver has."""

    accounts: Accounts
    examples: Tensor


@dataclass(frozen=True)
class Stopped:
    """The end of a shard.

    Attributes:
        error: why it stopped before it was finished.
        requests_left: requests of its grant that were not used.
    """

    error: BboxError | None
    requests_left: int


class Worker:
    """Loads target and attack once, then attacks one shard after another."""

    def __init__(self, outfit: Outfit, pool: Pool | None) -> None:
        sys.path[:] = [*dict.fromkeys((*outfit.path, *sys.path))]
        torch.set_num_threads(outfit.threads)
        config = outfit.config
        target = targets.load(config.target, options=config.target_options, trust=config.trust, device=config.device)
        quantize: Any = config.quantize
        self._oracle = Oracle(
            target,
            max_batch=outfit.max_batch,
            quantize=quantize,
            terms=Terms(config.patience, share=outfit.share),
            cache=None if config.cache is None else AnswerCache(Path(config.cache)),
        )
        self._attack = make_attack(config.attack, config.attack_options)
        self._pool = pool
        self._max_requests = config.max_requests or 0
        self._attack.ready(pool, self._oracle.device)
        self._told = Ledger()

    def fingerprint(self) -> str:
        """The target's, for the driver to compare."""
        return self._oracle.target.fingerprint()

    def run(
        self,
        shard: Shard,
        known: Mapping[int, tuple[Tensor, Tensor | None]],
        limit: int | None,
        requests: int | None,
        time_limit: float | None,
    ) -> Iterator[Answered | Finished | Stopped]:
        """Attack a shard.

        Args:
            known: answers on record, by example (``bbox.engine.Journal``).
            limit, requests: queries and requests that it may spend.
            time_limit: seconds.
        """
        purse = None if requests is None else Purse(requests)
        self._oracle.terms.meter = None if purse is None else Meter(purse.lease, self._max_requests)
        self._oracle.limit, self._oracle.paid = limit, -self._spent()
        mail = _Mail(known)
        thread = threading.Thread(target=self._attack_shard, args=(shard, mail, time_limit), daemon=True)
        thread.start()
        ended = False
        while not ended:
            thread.join(_EVERY)
            ended = not thread.is_alive()
            parts, finished, error = mail.empty()
            if parts:
                yield Answered(parts, self._cost())
            for group in finished:  # noqa: UP028 (Ray's wrapper of generators takes no "yield from")
                yield group
        self._oracle.terms.settle()
        cost = self._cost()
        if any(cost.values()):  # what brought no answer was sent all the same
            yield Answered((), cost)
        yield Stopped(error, 0 if purse is None else purse.limit - purse.used)

    def _spent(self) -> int:
        book = self._oracle.books["attack"]
        return book.queries + book.cached

    def _attack_shard(self, shard: Shard, mail: _Mail, time_limit: float | None) -> None:
        jobs = shard.jobs(self._oracle.device, self._pool)
        try:
            for job in drive(self._attack, self._oracle, jobs, journal=mail, time_limit=time_limit):
                accounts = job.accounts
                accounts.originals = accounts.originals[:0].clone()  # a view would travel with all its memory
                if isinstance(accounts.best, Tensor):
                    accounts.best = accounts.best.cpu()
                mail.finished.put(Finished(accounts, job.examples))
        except BboxError as error:
            error.__dict__.clear()  # the jobs that were running hold tensors of this process
            mail.error = error
        except Exception as error:
            mail.error = InternalError(f"a worker failed: {type(error).__name__}: {error}")

    def _cost(self) -> dict[str, int]:
        """What was asked since it was last told."""
        now = Ledger(**asdict(self._oracle.books["attack"]))
        before, self._told = asdict(self._told), now
        return {name: count - before[name] for name, count in asdict(now).items()}


class _Mail:
    """The journal of a worker: what the driver knows, and what it is to be told."""

    def __init__(self, known: Mapping[int, tuple[Tensor, Tensor | None]]) -> None:
        self._known = known
        self._parts: SimpleQueue[tuple[Tensor, Tensor, Tensor, Tensor | None]] = SimpleQueue()
        self.finished: SimpleQueue[Finished] = SimpleQueue()
        self.error: BboxError | None = None

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        return self._known.get(example, (torch.empty(0, dtype=torch.int64), None))

    def append(self, examples: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        self._parts.put((examples, numbers, labels, scores))

    def empty(self) -> tuple[list[tuple[Tensor, Tensor, Tensor, Tensor | None]], list[Finished], BboxError | None]:
        """All that has come; finished examples first, so that their answers are among the parts."""
        finished = _all_of(self.finished)
        return _all_of(self._parts), finished, self.error


def _all_of(queue: SimpleQueue[Any]) -> list[Any]:
    found = []
    while True:
        try:
            found.append(queue.get_nowait())
        except Empty:
            return found
