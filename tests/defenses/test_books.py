"""Books: limits of calls, what can be afforded, and one ledger for everything. Journals: tests/defenses/zo_ae_ds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbox.defenses.books import Books, Journal
from bbox.errors import BudgetError
from bbox.oracle import Answers, Oracle
from tests.defenses.blackvip.boxes import Meter, images


def _scores(answers: Answers, _: slice) -> torch.Tensor:
    assert answers.scores is not None
    return answers.scores


def test_calls_are_limited_over_all_purposes() -> None:
    target = Meter()
    books = Books(Oracle(target, max_batch=4), {}, max_calls=3)
    rows, _ = images(9)
    books.ask(rows[:5], "fit", _scores)
    assert books.calls == 2
    with pytest.raises(BudgetError, match="2 calls asked for select, 1 are left"):
        books.ask(rows[:5], "select", _scores)
    assert (target.rows, target.calls, books.calls, books.spent["select"]) == (5, 2, 2, 0), "nothing was asked"
    books.ask(rows[:4], "select", _scores)
    with pytest.raises(BudgetError, match="1 calls asked for fit, 0 are left"):
        books.ask(rows[:1], "fit", _scores)
    assert target.calls == books.calls == 3
    assert {purpose: ledger.calls for purpose, ledger in books.oracle.books.items()} == {"fit": 2, "select": 1}


def test_no_rows_are_no_call() -> None:
    books = Books(Oracle(Meter()), {"fit": 0}, max_calls=0)
    assert len(books.ask(images(1)[0][:0], "fit", _scores)) == 0
    assert books.calls == 0


@pytest.mark.parametrize(
    ("rows", "calls", "purpose", "affords"),
    [
        (10, 1, "fit", True),
        (11, 1, "fit", False),
        (10, 3, "fit", True),
        (10, 4, "fit", False),
        (10**6, 3, "select", True),
        (0, 0, "fit", True),
    ],
)
def test_what_is_afforded(rows: int, calls: int, purpose: str, affords: bool) -> None:
    books = Books(Oracle(Meter()), {"fit": 12}, max_calls=4)
    books.ask(images(2)[0], "fit", _scores)
    assert books.affords(rows, calls, purpose) is affords  # type: ignore[arg-type]


def test_without_limits_everything_is_afforded() -> None:
    assert Books(Oracle(Meter()), {}).affords(10**9, 10**9, "fit")


@given(
    asks=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["fit", "select", "probe"])), max_size=12),
    fit=st.integers(0, 30),
    calls=st.integers(0, 12),
    batch=st.integers(1, 8),
)
def test_no_limit_is_ever_passed_and_what_is_afforded_can_be_asked(
    asks: list[tuple[int, str]], fit: int, calls: int, batch: int
) -> None:
    target = Meter()
    books = Books(Oracle(target, max_batch=batch), {"fit": fit}, max_calls=calls)
    pool, _ = images(9)
    spent = 0
    for rows, purpose in asks:
        afforded = books.affords(rows, -(-rows // batch), purpose)  # type: ignore[arg-type]
        before = target.rows, target.calls
        try:
            books.ask(pool[:rows], purpose, _scores)  # type: ignore[arg-type]
        except BudgetError:
            assert not afforded and (target.rows, target.calls) == before
        else:
            assert afforded
            spent += rows if purpose == "fit" else 0
    assert spent <= fit and target.calls <= calls
    assert target.calls == books.calls == sum(ledger.calls for ledger in books.oracle.books.values())
    assert target.rows == sum(books.spent.values()) == sum(ledger.queries for ledger in books.oracle.books.values())


def test_one_ledger_takes_every_purpose_and_the_limits_stay_apart(tmp_path: Path) -> None:
    rows, _ = images(8)
    for paid, again in ((8, 0), (0, 8)):
        target = Meter()
        with Journal(tmp_path / "a.sqlite") as journal:
            books = Books(Oracle(target, max_batch=4), {"fit": 5}, journal, ledger="baseline")
            books.ask(rows[:5], "fit", _scores)
            books.ask(rows[5:], "select", _scores)
            with pytest.raises(BudgetError, match="1 rows asked for fit, 0 are left"):
                books.ask(rows[:1], "fit", _scores)
        assert target.rows == paid
        assert set(books.oracle.books) == {"baseline"}
        ledger = books.oracle.books["baseline"]
        assert (ledger.queries, ledger.replayed) == (paid, again)
        assert dict(books.spent) == {"fit": 5, "select": 3}


def test_calls_on_record_count_in_the_limit_of_calls_again(tmp_path: Path) -> None:
    """A run that goes on is limited as one that was never cut."""
    rows, _ = images(8)
    with Journal(tmp_path / "a.sqlite") as journal:
        Books(Oracle(Meter(), max_batch=4), {}, journal, max_calls=3).ask(rows, "fit", _scores)
    target = Meter()
    with Journal(tmp_path / "a.sqlite") as journal:
        books = Books(Oracle(target, max_batch=4), {}, journal, max_calls=3)
        books.ask(rows, "fit", _scores)
        assert (books.calls, target.calls) == (2, 0)
        with pytest.raises(BudgetError):
            books.ask(rows, "fit", _scores)
        books.ask(rows[:4], "fit", _scores)
    assert target.calls == 1
