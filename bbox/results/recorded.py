"""A live target's answers to noisy rows, on disk as they come: a certification that stops loses none of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from torch import Tensor

from bbox.batch import Batch
from bbox.defenses.books import Books, Journal
from bbox.defenses.certificate import Certificate
from bbox.oracle import Answers, Oracle, Purpose
from bbox.results.plain_folder import cannot_write

__all__ = ["Recorded", "on_record"]


class Recorded(Oracle):
    """An oracle that has the labels of a slice of forwards on record, and asks no row of it again.

    It is the oracle that it is made of: the same books, limits and target.

    Args:
        path: the journal, made where it is missing.
    """

    def __init__(self, oracle: Oracle, path: Path) -> None:
        vars(self).update(vars(oracle))
        self._oracle, self._path = oracle, path
        self._open()

    def next_slice(self) -> None:
        """From here on other rows are asked: what is on record does not match them, and goes with the first answer."""
        self.close()
        self._open()

    def ask(self, rows: Batch, purpose: Purpose = "attack") -> Answers:
        """See ``Oracle.ask``; the answers have no scores.

        Raises:
            StorageError: the disk is full.
        """
        try:
            labels = self._slice.ask(cast(Tensor, self.admissible(rows)), purpose, lambda answers, _: answers.labels)
        except OSError as error:
            raise cannot_write(self._path.parent, error) from error
        return Answers(labels.long().cpu(), None)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _open(self) -> None:
        self._journal = Journal(self._path)
        self._slice = Books(self._oracle, {}, self._journal)


@contextmanager
def on_record(oracle: Oracle, path: Path, state: Certificate | None, *, same_batch: bool = True) -> Iterator[Oracle]:
    """The oracle to certify with: of a live target a ``Recorded`` one; one of this machine just answers again.

    Args:
        state: what the certification goes on with. The rows that it set aside for the slice under way are free again:
            those that were answered are on record.
        same_batch: whether its forwards hold as many rows as before; else none of them will match the record.
    """
    if oracle.target.in_process:
        yield oracle
        return
    if state is not None and same_batch:
        state.queries = int(state.selected.sum() + state.samples.sum())
    recorded = Recorded(oracle, path)
    try:
        yield recorded
    finally:
        recorded.close()
