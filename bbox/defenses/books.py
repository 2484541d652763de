"""Queries of a fit: an exact budget a purpose, and a journal of every answer, so that a killed fit pays none twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from bbox.defenses.randomness import row_digest
from bbox.errors import BudgetError, InputError
from bbox.oracle import Answers, Ledger, Oracle, Purpose

__all__ = ["Books", "Journal"]


class Journal:
    """Answers on disk, in the order of the calls: ``answers.sqlite`` in the defense's folder.

    Raises:
        InputError: the file is no such journal.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._base = sqlite3.connect(path)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS answers "
                "(number INTEGER PRIMARY KEY, purpose TEXT, digest INTEGER, shape TEXT, numbers BLOB)"
            )
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is no journal of a defense: {error}") from error
        self._next = 0

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Answers on record."""
        return int(self._base.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._base.close()

    def next(self, purpose: str, digest: int) -> Tensor | None:
        """The answer to the next call, if the journal holds it and the rows are the same to the last bit."""
        found = self._base.execute(
            "SELECT shape, numbers FROM answers WHERE number = ? AND purpose = ? AND digest = ?",
            (self._next, purpose, digest),
        ).fetchone()
        if found is None:
            return None
        self._next += 1
        shape = tuple(int(size) for size in found[0].split("x"))
        return torch.from_numpy(np.frombuffer(found[1], np.float32).reshape(shape).copy())

    def append(self, purpose: str, digest: int, values: Tensor) -> None:
        """Record the answer to the next call. From here on the journal's old answers are of another run: they go.

        Raises:
            OSError: the disk is full.
        """
        shape = "x".join(str(size) for size in values.shape)
        record = (self._next, purpose, digest, shape, values.to(torch.float32).numpy().tobytes())
        try:
            with self._base:
                self._base.execute("DELETE FROM answers WHERE number >= ?", (self._next,))
                self._base.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", record)
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from error  # a full disk is no fault of the database
        self._next += 1


class Books:
    """Asks an oracle within an exact budget a purpose.

    Args:
        limits: queries that each purpose may spend; what is not named is not limited.
        journal: answers on record are taken from there; they were paid before, and count in the budget again.
        max_calls: calls (forwards) that all purposes together may make, ``None`` for no limit.
        ledger: the oracle's ledger that everything is written to; ``None`` writes each purpose to its own.

    Attributes:
        kept_rows, kept_calls: what ``affords`` leaves over for later questions, rows a purpose and calls of all.
    """

    def __init__(
        self,
        oracle: Oracle,
        limits: Mapping[Purpose, int],
        journal: Journal | None = None,
        *,
        max_calls: int | None = None,
        ledger: Purpose | None = None,
    ) -> None:
        self.oracle = oracle
        self.limits = dict(limits)
        self.spent: Counter[Purpose] = Counter()
        self.calls = 0
        self.kept_rows: Counter[Purpose] = Counter()
        self.kept_calls = 0
        self.max_calls = max_calls
        self._ledger = ledger
        self._journal = journal

    def left(self, purpose: Purpose) -> int:
        """Queries that this purpose may still spend."""
        return self.limits[purpose] - self.spent[purpose]

    def affords(self, rows: int, calls: int, purpose: Purpose) -> bool:
        """Whether so many more rows, in so many calls, are within the limits."""
        enough = purpose not in self.limits or rows + self.kept_rows[purpose] <= self.left(purpose)
        return enough and (self.max_calls is None or self.calls + calls + self.kept_calls <= self.max_calls)

    def ask(self, rows: Tensor, purpose: Purpose, read: Callable[[Answers, slice], Tensor]) -> Tensor:
        """What ``read`` makes of the answers to these rows: (n, ...) float32 on the oracle's device.

        ``read`` is given the answers of one forward and which of the rows they are to.

        Shapes:
            rows: (n, *shape).

        Raises:
            BudgetError: more rows than the purpose has left, or more calls; nothing was asked.
        """
        calls = -(-len(rows) // self.oracle.max_batch)
        if purpose in self.limits and len(rows) > self.left(purpose):
            raise BudgetError(f"{len(rows)} rows asked for {purpose}, {self.left(purpose)} are left")
        if self.max_calls is not None and self.calls + calls > self.max_calls:
            raise BudgetError(f"{calls} calls asked for {purpose}, {self.max_calls - self.calls} are left")
        self.spent[purpose] += len(rows)
        if len(rows) == 0:
            return torch.empty(0, device=self.oracle.device)
        # A forward at a time: what one has answered is on record before the next is asked.
        batch = self.oracle.max_batch
        parts = [self._forward(rows, slice(i, i + batch), purpose, read) for i in range(0, len(rows), batch)]
        return torch.cat(parts).to(self.oracle.device)

    def reserve(self, rows: int, calls: int, purpose: Purpose) -> bool:
        """Set budget aside for rows that a worker asks through an oracle of its own; whether there was enough."""
        if not self.affords(rows, calls, purpose):
            return False
        self.spent[purpose] += rows
        self.calls += calls
        return True

    def settle(self, rows: int, calls: int, purpose: Purpose, delivered: Ledger) -> None:
        """Put what was delivered in the place of what was set aside, and into the oracle's ledger."""
        self.spent[purpose] += delivered.queries - rows
        self.calls += delivered.calls - calls
        ledger = self.oracle.books[self._ledger or purpose]
        for name, count in vars(delivered).items():
            setattr(ledger, name, getattr(ledger, name) + count)

    def record(self, purpose: Purpose, key: int, value: float, delivered: Ledger, *, lost: bool = False) -> None:
        """Write a worker's value, or what was paid without getting one, into the journal."""
        if self._journal is not None and (delivered.queries or not lost):
            numbers = torch.tensor([value, delivered.queries, delivered.calls], dtype=torch.float64)
            # A journal holds float32; these are the same bits.
            self._journal.append(_noted(purpose, lost), key, numbers.view(torch.float32))

    def recall(self, purpose: Purpose, key: int, *, lost: bool = False) -> float | None:
        """The value of a worker that is next in the journal, if it is of this key; its rows count as in ``ask``."""
        found = None if self._journal is None else self._journal.next(_noted(purpose, lost), key)
        if found is None:
            return None
        value, rows, calls = found.view(torch.float64).tolist()
        self.spent[purpose] += int(rows)
        self.calls += int(calls)
        self.oracle.books[self._ledger or purpose].replayed += int(rows)
        return float(value)

    def _forward(
        self, rows: Tensor, place: slice, purpose: Purpose, read: Callable[[Answers, slice], Tensor]
    ) -> Tensor:
        rows = rows[place]
        ledger = self._ledger or purpose
        self.calls += 1
        if self._journal is None:
            return read(self.oracle.ask(rows, ledger), place).to(torch.float32)
        digest = int(row_digest(rows).sum())
        values = self._journal.next(purpose, digest)
        if values is None:
            values = read(self.oracle.ask(rows, ledger), place).to(torch.float32)
            self._journal.append(purpose, digest, values)
        else:
            self.oracle.books[ledger].replayed += len(rows)
        return values


def _noted(purpose: Purpose, lost: bool) -> str:
    return f"{purpose}, {'lost' if lost else 'shared'}"
