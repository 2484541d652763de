"""Fooling rates: what any number of targets say of saved adversarial examples. No attack sees these answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from bbox import targets
from bbox.errors import InputError, TargetError
from bbox.oracle import Oracle, Purpose
from bbox.results.fits import check_fits, check_kind, match_classes
from bbox.results.judged import Files, files_of
from bbox.results.outcome import ask_labels
from bbox.results.plain_folder import PlainFolder, cannot_write
from bbox.results.records import LiveConfig
from bbox.results.spending import purse_of
from bbox.targets.account import Terms, on_account
from bbox.targets.base import REFUSED, Target
from bbox.votes import most_frequent

__all__ = ["Answers", "evaluate_folder", "evaluate_target", "fooling"]

Report = Callable[[str, int, int], None]
ORIGINALS = "originals"
_COUNTS = ("queries", "requests", "billed", "retried")  # of a ledger: what evaluations keep


class Answers:
    """What targets said of the files of a run, on disk: a killed evaluation goes on, and nothing is asked twice.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path / "answers.sqlite", isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers (target TEXT, method TEXT, example INTEGER, label INTEGER, "
                "PRIMARY KEY (target, method, example)) WITHOUT ROWID"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS ledgers (target TEXT, purpose TEXT, queries INTEGER, "
                "PRIMARY KEY (target, purpose)) WITHOUT ROWID"
            )
            there = {row[1] for row in self._db.execute("PRAGMA table_info(ledgers)")}
            for count in _COUNTS:  # files from before live targets have none but the queries
                if count not in there:
                    self._db.execute(f"ALTER TABLE ledgers ADD COLUMN {count} INTEGER NOT NULL DEFAULT 0")
        except sqlite3.OperationalError as error:
            raise cannot_write(path, OSError(str(error))) from error
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path / 'answers.sqlite'} cannot be read ({error}); delete it to ask again") from error

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def known(self, target: str, method: str) -> dict[int, int]:
        """Labels on record, by the examples' indices."""
        rows = self._db.execute("SELECT example, label FROM answers WHERE target = ? AND method = ?", (target, method))
        return dict(rows.fetchall())

    def ledger(self, target: str) -> dict[str, dict[str, int]]:
        """What the target was asked and sent in all evaluations of the run, by purpose."""
        rows = self._db.execute(f"SELECT purpose, {', '.join(_COUNTS)} FROM ledgers WHERE target = ?", (target,))
        return {purpose: dict(zip(_COUNTS, counts, strict=True)) for purpose, *counts in rows.fetchall()}

    def record(
        self, target: str, purpose: str, counts: Sequence[int], answers: Sequence[tuple[str, int, int]] = ()
    ) -> None:
        """Write down what was asked and sent (queries, requests, rows billed, rows retried), and answers: (method,
        example, label)."""
        added = ", ".join(f"{count} = {count} + excluded.{count}" for count in _COUNTS)
        try:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", [(target, *answer) for answer in answers]
            )
            self._db.execute(
                f"INSERT INTO ledgers (target, purpose, {', '.join(_COUNTS)}) VALUES (?, ?, ?, ?, ?, ?) "
                f"ON CONFLICT DO UPDATE SET {added}",
                (target, purpose, *counts),
            )
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise cannot_write(self._path, OSError(str(error))) from error


def evaluate_target(
    target: Target,
    files: Files,
    answers: Answers,
    *,
    max_batch: int = 64,
    terms: Terms | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Ask one target the originals and every method's files, and say how many answers changed.

    Queries: (1 + methods) x examples on the ``evaluate`` ledger, less what is on record; 1 on ``probe``, 2 of a live
    target. A target that answers at random is asked each row 11 times, and the most frequent answer counts. The ledger
    that is returned is of all evaluations of the run.

    Args:
        terms: what a live target is allowed (patience, requests).

    Raises:
        UsageError, InputError: the target does not take the data.
        TargetError: it failed; what it answered is on record.
    """
    max_batch = target.rows_a_call(max_batch)
    oracle = Oracle(target, max_batch=max_batch, terms=terms)
    name = target.fingerprint()
    with _recorded(answers, name, oracle, "probe"):
        check_fits(oracle, files.data)
    indices = files.data.indices.tolist()
    said: dict[str, Tensor] = {}
    for method, read in {ORIGINALS: lambda places: files.data.inputs[places], **files.methods}.items():
        known = answers.known(name, method)
        missing = [place for place, index in enumerate(indices) if index not in known]
        for start in range(0, len(missing), max_batch):
            if report is not None:
                report(f"{target.name}: {method}", len(known), len(indices))
            part = missing[start : start + max_batch]
            with _recorded(answers, name, oracle, "evaluate") as judged:
                copies, _ = ask_labels(oracle, oracle.admissible(read(part)), "evaluate")
                labels = most_frequent(copies, copies != REFUSED).tolist()
                asked = [indices[place] for place in part]
                judged += [(method, index, label) for index, label in zip(asked, labels, strict=True)]
            known |= dict(zip(asked, labels, strict=True))
        said[method] = torch.tensor([known[index] for index in indices])
    clean = said.pop(ORIGINALS)
    right = None if files.data.labels is None else clean == files.data.labels
    return {
        "target": target.name,
        "fingerprint": name,
        "class_names": None if files.data.class_names is None else list(files.data.class_names),
        "clean_accuracy": None if right is None else float(right.double().mean()),
        "correct": None if right is None else int(right.sum()),
        "ledger": answers.ledger(name),
        "methods": {method: _figures(clean, labels, right) for method, labels in said.items()},
        "clean": clean.tolist(),
        "answers": {method: labels.tolist() for method, labels in said.items()},
    }


def evaluate_folder(
    path: Path,
    specs: Sequence[str],
    *,
    options: Mapping[str, object] | None = None,
    max_batch: int = 64,
    device: str | None = None,
    trust: bool = False,
    report: Report | None = None,
    patience: float = 60.0,
    max_requests: int | None = None,
) -> dict[str, Any]:
    """Ask targets the files of a run; returns the content of its ``evaluation.json``, which earlier ones are kept in.

    Args:
        patience: seconds that a live target may be silent.
        max_requests: requests to live targets in all evaluations of the run, retries among them, a hard limit.

    Raises:
        UsageError, InputError, TargetError: see ``evaluate_target``; what was answered until then is on record.
    """
    live = LiveConfig(patience=patience, max_requests=max_requests)
    files = files_of(path)
    with on_account(live.terms()):
        loaded = [targets.load(spec, options=dict(options or {}), trust=trust, device=device) for spec in specs]
    folder = PlainFolder(path)
    terms = live.terms(purse_of(live, folder))
    found: dict[str, Any] = folder.read("evaluation.json") or {"schema_version": 1, "targets": []}
    with Answers(path) as answers, terms.settled():
        for target in loaded:
            check_kind(target, files.data)
            judged = replace(files, data=match_classes(files.data, target))
            try:
                figures = evaluate_target(target, judged, answers, max_batch=max_batch, terms=terms, report=report)
            except TargetError as error:  # an evaluation goes on when it is asked again
                raise type(error)(str(error).replace("--resume", "the same command")) from error
            others = [t for t in found["targets"] if t["target"] != figures["target"]]
            found["targets"] = [*others, figures]
            folder.write("evaluation.json", found)
    return found


@contextmanager
def _recorded(answers: Answers, name: str, oracle: Oracle, purpose: Purpose) -> Iterator[list[tuple[str, int, int]]]:
    """Write down, at the end of the block, what it has asked and sent, also where it failed, and the answers that it
    put in the list."""
    ledger = oracle.books[purpose]
    before = [getattr(ledger, count) for count in _COUNTS]
    judged: list[tuple[str, int, int]] = []
    try:
        yield judged
    finally:
        counts = [getattr(ledger, count) - then for count, then in zip(_COUNTS, before, strict=True)]
        answers.record(name, purpose, counts, judged)


def fooling(changed: Tensor) -> dict[str, Any]:
    """The share of examples whose label changed, with its Wilson interval (95%).

    Shapes: changed (n,) bool.

    Example:
        >>> fooling(torch.tensor([True, False, False, False]))["value"]
        0.25
    """
    total, count = len(changed), int(changed.sum())
    if total == 0:
        return {"changed": 0, "of": 0, "value": None, "interval": [None, None]}
    found = stats.binomtest(count, total).proportion_ci(method="wilson")
    return {"changed": count, "of": total, "value": count / total, "interval": [float(found.low), float(found.high)]}


def _figures(clean: Tensor, labels: Tensor, right: Tensor | None) -> dict[str, Any]:
    changed = (labels != clean) & (labels >= 0) & (clean >= 0)  # no usable answer, or a refusal, fools nobody
    return {"all": fooling(changed), "correct": None if right is None else fooling(changed[right])}
