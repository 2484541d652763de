"""One session of a run in a ``PlainFolder``: what it asks and sends is on record while it goes on.

sessions.json    a record a session (the first run, each resume): seconds, ledger, price
requests.json    requests of ``--max-requests`` that are reserved, written before any of them is sent
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol

import torch

from bbox.oracle import Ledger, Oracle, Purpose
from bbox.results.costs import last_price, total_ledger
from bbox.results.plain_folder import PlainFolder
from bbox.results.records import LiveConfig
from bbox.targets.account import Purse
from bbox.targets.base import Target

__all__ = ["Session", "oracle_of", "purse_of"]

_WRITE_SECONDS = 5.0  # between two records of what the session has asked: of a killed one at most so much is not known


def purse_of(config: LiveConfig, folder: PlainFolder | None) -> Purse | None:
    """What is left of the limit on requests, kept in the folder from the first one; ``None`` without a limit."""
    return config.purse() if folder is None else config.purse(folder.requests(), folder.write_requests)


def oracle_of(
    config: LiveConfig, target: Target, folder: PlainFolder | None, max_batch: int
) -> tuple[Oracle, Purse | None]:
    """The oracle that a run asks, and the purse that it pays from.

    Args:
        folder: of the run that is gone on with.
        max_batch: rows a forward, or fewer where the target takes no more.
    """
    purse = purse_of(config, folder)
    return Oracle(target, max_batch=target.rows_a_call(max_batch), terms=config.terms(purse)), purse


class _Planned(Protocol):
    """A plan whose oracle is paid from a purse."""

    @property
    def config(self) -> LiveConfig: ...
    @property
    def oracle(self) -> Oracle: ...
    @property
    def purse(self) -> Purse | None: ...


class Session:
    """A session of a run, as a context manager: it is written down at the end of the block, however that is reached.

    Attributes:
        record: what else is to stand in ``sessions.json``.
    """

    def __init__(self, folder: PlainFolder, plan: _Planned) -> None:
        self.record: dict[str, Any] = {}
        self._folder, self._plan = folder, plan
        self._before = folder.sessions()
        self._oracles = [plan.oracle]
        self._began = self._written = time.monotonic()

    def __enter__(self) -> Session:
        purse = self._plan.purse
        if purse is not None:
            purse.kept_by(self._folder.write_requests)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not (self._folder.path / "run.json").exists():  # a run that was refused: its folder is taken back
            return
        with self._plan.oracle.terms.settled():
            self.save()

    def also(self, oracle: Oracle) -> Oracle:
        """Count another oracle in, which the same limit holds."""
        oracle.terms = self._plan.oracle.terms
        self._oracles.append(oracle)
        return oracle

    def save(self) -> None:
        """Write down what was asked until now.

        Raises:
            StorageError: the disk is full, or the folder is gone.
        """
        self._written = time.monotonic()
        self.record.update(
            seconds=self._written - self._began,
            max_batch=self._plan.oracle.max_batch,
            threads=torch.get_num_threads(),
            ledger=total_ledger([{"ledger": _copied(oracle.books)} for oracle in self._oracles]),
            price_per_1k=self._plan.config.price_per_1k,
        )
        self._folder.write("sessions.json", [*self._before, self.record])

    def reporting(self, report: Callable[[str, int, int], None] | None) -> Callable[[str, int, int], None]:
        """``report``, which now and then writes the session down as well."""

        def told(stage: str, done: int, total: int) -> None:
            if time.monotonic() - self._written > _WRITE_SECONDS:
                self.save()
            if report is not None:
                report(stage, done, total)

        return told

    def costs(self, *older: Mapping[str, Any]) -> dict[str, Any]:
        """What ``results.json`` says of all sessions: ``ledger`` and ``price_per_1k``.

        Args:
            older: records with a ledger of their own, as folders from before there were sessions have them.
        """
        self.save()
        sessions = [*older, *self._before, self.record]
        return {"ledger": total_ledger(sessions), "price_per_1k": last_price(sessions)}


def _copied(books: Mapping[Purpose, Ledger]) -> dict[str, dict[str, int]]:
    return {purpose: asdict(ledger) for purpose, ledger in list(books.items())}
