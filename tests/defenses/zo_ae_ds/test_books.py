"""Books: exact budgets, and answers that are never paid twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bbox.defenses.books import Books, Journal
from bbox.errors import BudgetError, InputError, TargetError
from bbox.oracle import Answers, Oracle
from tests.defenses.zo_ae_ds.boxes import Meter, images


def _scores(answers: Answers, _: slice) -> torch.Tensor:
    assert answers.scores is not None
    return answers.scores


def test_a_purpose_never_spends_more_than_its_limit() -> None:
    target = Meter()
    books = Books(Oracle(target), {"fit": 10})
    books.ask(images(7), "fit", _scores)
    with pytest.raises(BudgetError, match="4 rows asked for fit, 3 are left"):
        books.ask(images(4), "fit", _scores)
    books.ask(images(3), "fit", _scores)
    assert target.rows == 10 == books.oracle.books["fit"].queries
    assert books.left("fit") == 0


def test_a_journal_answers_what_it_has_and_the_budget_counts_it(tmp_path: Path) -> None:
    rows = [images(5, seed) for seed in range(3)]
    first, second = Meter(), Meter()
    with Journal(tmp_path / "a.sqlite") as journal:
        books = Books(Oracle(first), {"fit": 20}, journal)
        told = [books.ask(part, "fit", _scores) for part in rows[:2]]
    with Journal(tmp_path / "a.sqlite") as journal:
        books = Books(Oracle(second), {"fit": 20}, journal)
        again = [books.ask(part, "fit", _scores) for part in rows]
        assert books.left("fit") == 5
    assert all(torch.equal(a, b) for a, b in zip(told, again, strict=False))
    assert second.rows == 5  # only the third call
    assert books.oracle.books["fit"].replayed == 10


def test_rows_that_are_not_the_same_to_the_last_bit_are_asked_again(tmp_path: Path) -> None:
    rows = images(5)
    with Journal(tmp_path / "a.sqlite") as journal:
        books = Books(Oracle(Meter()), {"fit": 20}, journal)
        books.ask(rows, "fit", _scores)
        books.ask(rows, "fit", _scores)
    moved = rows.clone()
    moved[3, 0, 2, 2] += 1e-7
    target = Meter()
    with Journal(tmp_path / "a.sqlite") as journal:
        books = Books(Oracle(target), {"fit": 20}, journal)
        books.ask(moved, "fit", _scores)
        books.ask(rows, "fit", _scores)  # what came after the other rows is of another run
    assert target.rows == 10


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_text("not a database, and long enough to have a header of its own")
    with pytest.raises(InputError, match="is no journal"):
        Journal(path)


def test_every_forward_is_on_record_before_the_next_is_asked(tmp_path: Path) -> None:
    rows = images(50)
    target = Meter(fail_after=40)
    with Journal(tmp_path / "a.sqlite") as journal:
        books = Books(Oracle(target, max_batch=16), {"fit": 50}, journal)
        with pytest.raises(TargetError):
            books.ask(rows, "fit", _scores)
    rest = Meter()
    with Journal(tmp_path / "a.sqlite") as journal:
        told = Books(Oracle(rest, max_batch=16), {"fit": 50}, journal).ask(rows, "fit", _scores)
    assert (target.rows, rest.rows) == (32, 18)
    assert torch.equal(told, Meter()(rows))


def test_a_full_disk_is_an_operating_system_error_and_keeps_what_was_written(tmp_path: Path) -> None:
    rows = images(600)
    with Journal(tmp_path / "a.sqlite") as journal:
        journal._base.execute("PRAGMA max_page_count = 4")
        books = Books(Oracle(Meter(), max_batch=100), {"fit": 600}, journal)
        with pytest.raises(OSError, match="full"):
            books.ask(rows, "fit", _scores)
    rest = Meter()
    with Journal(tmp_path / "a.sqlite") as journal:
        Books(Oracle(rest, max_batch=100), {"fit": 600}, journal).ask(rows, "fit", _scores)
    assert 0 < rest.rows < 600
