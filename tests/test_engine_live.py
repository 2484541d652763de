"""A target that bears several calls at once: all of them are used, and nothing depends on which one is back first."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from bbox.cache import AnswerCache
from bbox.data.base import Dataset
from bbox.errors import InputError, RequestLimitError, TargetError, UsageError
from bbox.oracle import Oracle
from bbox.problem import ABSENT
from bbox.results.fits import check_fits
from bbox.targets.account import Meter, Purse, Terms, account, on_account
from tests.toys import Examples, Quadratic, Random, Recorder, attack, examples_of, row_hash


class Live(Quadratic):
    """Answers after a while, from several threads; says on the bill what it was sent; may fail, or be slow."""

    in_process = False
    concurrency = 5
    batch = 7

    def __init__(self, seed: int = 0, good: int | None = None, access: str = "scores") -> None:
        super().__init__(access=access)
        self._random = random.Random(seed)
        self._counting = threading.Lock()
        self.good = good
        self.now = self.most = 0

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        bill, _ = account()
        with self._counting:
            self.now += 1
            self.most = max(self.most, self.now)
            broken = self.good is not None and self.rows + len(rows) > self.good
            if not broken:
                self.rows += len(rows)
                self.batches.append(len(rows))
                self.seen.extend(row_hash(row) for row in rows)
            wait = self._random.choice((0.0, 0.001, 0.004))
        time.sleep(wait)
        bill.requests += 1
        bill.rows += len(rows)
        with self._counting:
            self.now -= 1
        if broken:
            raise TargetError("the service has gone")
        return self.answer(rows)


def _bits(found: dict) -> dict:
    return {number: outcome.bits() for number, outcome in found.items()}


@pytest.mark.parametrize("name", ["cgba", "square"])
def test_results_are_those_of_one_call_at_a_time(name: str) -> None:
    examples = examples_of(Quadratic(), 12)
    options: dict[str, object] = {"epsilon": 0.8} if name == "square" else {}
    alone = attack(name, Quadratic(), examples, 150, group=3, options=options)
    for seed in range(3):
        live = Live(seed)
        found = attack(name, live, examples, 150, group=3, options=options, max_batch=7)
        assert _bits(found) == _bits(alone)
        assert live.rows == sum(o.spent for o in found.values())
        assert 1 < live.most <= Live.concurrency
        assert max(live.batches) <= 7


def test_a_limit_for_all_gives_the_same_on_every_network() -> None:
    examples = examples_of(Quadratic(), 12)
    runs = []
    for seed in range(3):
        live = Live(seed)
        runs.append(_bits(attack("cgba", live, examples, 150, group=3, limit=700, max_batch=7)))
        assert live.rows == 700
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("good", [0, 1, 137, 600, 1500])
def test_what_was_answered_when_the_target_failed_is_never_asked_again(good: int) -> None:
    examples = examples_of(Quadratic(), 12)
    undisturbed = Recorder()
    whole = attack("cgba", Live(), examples, 150, group=3, journal=undisturbed, max_batch=7)
    first, journal = Live(seed=1, good=good), Recorder()
    with pytest.raises(TargetError, match="has gone"):
        attack("cgba", first, examples, 150, group=3, journal=journal, max_batch=7)
    on_record = sum(len(labels) for _, _, labels, _ in journal.forwards)
    assert on_record == first.rows <= good  # what was answered is on record, also of calls that were under way
    again = Live(seed=2)
    assert _bits(attack("cgba", again, examples, 150, group=3, journal=journal, max_batch=7)) == _bits(whole)
    assert first.rows + again.rows == sum(o.spent for o in whole.values())
    assert first.counts() + again.counts() == Live_counts(examples)


def Live_counts(examples: Examples):  # noqa: N802
    live = Live()
    attack("cgba", live, examples, 150, group=3, max_batch=7)
    return live.counts()


@pytest.mark.parametrize("ahead", [0, 3, 10, 10**6])
def test_a_gap_on_record_is_asked_and_nothing_else(monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    """Rows are made ahead of the calls that take them, whose ends need not meet."""
    examples = examples_of(Quadratic(), 4)
    monkeypatch.setattr("bbox.engine._AHEAD", ahead * 4 * examples.inputs[0].numel())
    journal = Recorder()
    whole = attack("cgba", Live(), examples, 100, group=2, journal=journal, max_batch=7)
    kept = [part for place, part in enumerate(journal.forwards) if place % 5 != 2]
    lost = sum(len(part[2]) for part in journal.forwards) - sum(len(part[2]) for part in kept)
    again = Live()
    assert lost > 20
    assert _bits(attack("cgba", again, examples, 100, group=2, journal=Recorder(kept), max_batch=7)) == _bits(whole)
    assert again.rows == lost
    assert any((Recorder(kept).answers(e)[0] == ABSENT).any() for e in range(4))


def test_ctrl_c_does_not_wait_for_retries() -> None:
    class Hanging(Live):
        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            _, terms = account()
            assert terms.abandoned.wait(30), "nobody told the call that it is not waited for"
            raise TargetError("abandoned")

    examples = examples_of(Quadratic(), 4)
    oracle = Oracle(Hanging(), max_batch=7)

    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        attack("cgba", oracle.target, examples, 100, oracle=oracle)
    assert time.monotonic() - began < 10
    assert not oracle.terms.abandoned.is_set()  # the oracle can be used again


# --- an ask of many rows -------------------------------------------------------------------------------------------


def test_many_rows_are_asked_side_by_side_and_come_back_in_order() -> None:
    live, rows = Live(), torch.rand(100, 1, 8, 8)
    oracle = Oracle(live, max_batch=7)
    answers = oracle.ask(rows, "clean")
    assert answers.scores is not None and torch.equal(answers.scores, Quadratic().answer(rows))
    assert 1 < live.most <= Live.concurrency
    book = oracle.books["clean"]
    assert (book.queries, book.calls, book.requests, book.billed, book.retried) == (100, 15, 15, 100, 0)


def test_a_call_that_fails_is_on_the_bill_and_is_no_query() -> None:
    oracle = Oracle(Live(good=14), max_batch=7)
    with pytest.raises(TargetError, match="has gone"):
        oracle.ask(torch.rand(7 * 4, 1, 8, 8))
    book = oracle.books["attack"]
    assert book.queries == 14 and book.billed > 14 and book.requests * 7 == book.billed


def test_two_oracles_do_not_share_a_bill() -> None:
    live = Live()
    one, other = Oracle(live, max_batch=7), Oracle(live, max_batch=7)
    one.ask(torch.rand(3, 1, 8, 8))
    other.ask(torch.rand(20, 1, 8, 8), "verify")
    assert one.books["attack"].billed == 3 and other.books["verify"].billed == 20
    with on_account(Terms()) as bill:
        live(torch.rand(2, 1, 8, 8))
    assert bill.rows == 2


# --- the limit on requests -----------------------------------------------------------------------------------------


def test_a_meter_is_hard_also_across_threads() -> None:
    kept: list[int] = []
    purse = Purse(1000, used=100, keep=kept.append)
    meter = Meter(purse.lease, 1000)
    taken, lock = [0], threading.Lock()

    def spend() -> None:
        try:
            while True:
                meter.take()
                with lock:
                    taken[0] += 1
        except RequestLimitError as error:
            assert "1,000 requests" in str(error) and "--max-requests" in str(error)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken[0] == 900 and kept[-1] == 1000 and max(kept) <= 1000


def test_what_a_meter_did_not_use_is_handed_back() -> None:
    purse = Purse(1000)
    meter = Meter(purse.lease, 1000)
    for _ in range(70):
        meter.take()
    assert purse.used == 100  # a twentieth at a time, reserved before it is sent: a crash cannot make it too few
    meter.give_back()
    assert purse.used == 70
    small, large = Purse(10), Purse(10**6)
    for purse in (small, large):
        Meter(purse.lease, purse.limit).take()
    assert (small.used, large.used) == (1, 64)


# --- the query cache -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_repeated_run_asks_nothing(tmp_path: Path, access: str) -> None:
    examples = examples_of(Quadratic(), 6)
    found, asked = [], []
    for _ in range(2):
        with AnswerCache(tmp_path / "cache" / "answers.sqlite") as cache:
            target = Live(access=access)
            target.answer = (lambda t: lambda rows: Quadratic.answer(t, rows))(target)  # type: ignore[method-assign]
            target.num_classes = 4
            oracle = Oracle(_LabelsOnly(target) if access == "labels" else target, max_batch=7, cache=cache)
            found.append(_bits(attack("cgba", target, examples, 120, group=3, oracle=oracle)))
            oracle.ask(examples.inputs, "verify")
            asked.append({purpose: book.queries for purpose, book in oracle.books.items()})
            hits = oracle.books["attack"].cached
    assert found[0] == found[1]
    assert asked[1] == {"attack": 0, "verify": 0}
    assert asked[0]["verify"] == 6  # a file is verified by the target, though the attack may have asked the row before
    assert hits == sum(bits[3] for bits in found[1].values())


class _LabelsOnly(Live):
    def __init__(self, inner: Live) -> None:
        super().__init__(access="labels")

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return super().__call__(rows).argmax(1)


def test_the_limit_for_all_counts_hits_so_that_a_repeated_run_gives_the_same(tmp_path: Path) -> None:
    examples = examples_of(Quadratic(), 6)
    found = []
    for _ in range(2):
        with AnswerCache(tmp_path / "answers.sqlite") as cache:
            oracle = Oracle(Live(), max_batch=7, cache=cache, limit=333)
            found.append(_bits(attack("cgba", oracle.target, examples, 120, group=3, oracle=oracle)))
    assert found[0] == found[1] and sum(bits[3] for bits in found[0].values()) == 333


def test_other_targets_other_shapes_and_probes_have_no_part_in_it(tmp_path: Path) -> None:
    rows = torch.rand(5, 1, 8, 8)
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        oracle = Oracle(Live(), max_batch=7, cache=cache)
        oracle.ask(rows, "clean")
        oracle.ask(rows, "probe")
        assert (oracle.books["probe"].queries, oracle.books["probe"].cached) == (5, 0)
        for asked in (5, 5):  # by the target itself, though the rows are known; then that is known, too
            oracle.ask(rows, "verify")
            assert oracle.books["verify"].queries == asked
        other = Live()
        other.fingerprint = lambda: "another"  # type: ignore[method-assign]
        second = Oracle(other, max_batch=7, cache=cache)
        second.ask(rows, "clean")
        assert second.books["clean"].cached == 0
        assert len(cache) == 15
        assert cache.keys(rows[:1].view(1, 1, 4, 16), "f") != cache.keys(rows[:1], "f")
        again = Oracle(Live(), max_batch=7, cache=cache)
        answers = again.ask(torch.cat([rows, rows.flip(0), torch.rand(2, 1, 8, 8)]), "clean")
        assert (again.books["clean"].queries, again.books["clean"].cached) == (2, 10)
        assert torch.equal(answers.labels[:5], answers.labels[5:10].flip(0))


def test_rows_without_an_answer_are_asked_again(tmp_path: Path) -> None:
    class Silent(Live):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            return super().answer(rows) * torch.nan

    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        oracle = Oracle(Silent(), max_batch=7, cache=cache)
        for _ in range(2):
            oracle.ask(torch.ones(3, 1, 8, 8))
        assert oracle.books["attack"].queries == 6 and oracle.books["attack"].invalid == 6 and len(cache) == 0


def test_a_cache_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(InputError, match="is no query cache"):
        AnswerCache(tmp_path / "text")
    with pytest.raises(UsageError, match="give another --cache"):
        AnswerCache(tmp_path / "text" / "below")
    with pytest.raises(UsageError, match="give another --cache"):
        AnswerCache(tmp_path)


def test_a_cache_that_fills_the_disk_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        cache._db.execute("PRAGMA max_page_count = 4")
        oracle = Oracle(Live(), max_batch=7, cache=cache)
        with pytest.warns(UserWarning, match="keeps nothing more"):
            oracle.ask(torch.rand(400, 1, 8, 8))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            oracle.ask(torch.rand(100, 1, 8, 8))
        assert oracle.books["attack"].queries == 500


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE answers (id INTEGER PRIMARY KEY, examples BLOB)")
    db.close()
    with pytest.raises(InputError, match="is no query cache"):
        AnswerCache(tmp_path / "other.sqlite")


# --- the probe for noise -------------------------------------------------------------------------------------------


def test_a_live_target_that_answers_at_random_is_found_out(tmp_path: Path) -> None:
    examples = examples_of(Quadratic(), 2)
    dataset = Dataset(
        name="toys", inputs=examples.inputs, labels=examples.labels, indices=torch.arange(2), ids=("0", "1")
    )
    target = Random()
    target.in_process = False
    oracle = Oracle(target)
    with pytest.warns(UserWarning, match="not deterministic"):
        check_fits(oracle, dataset)
    assert oracle.books["probe"].queries == 2 and not target.deterministic
    steady = Oracle(Live())
    check_fits(steady, dataset)
    assert steady.books["probe"].queries == 2 and steady.target.deterministic
    here = Oracle(Quadratic())
    check_fits(here, dataset)
    assert here.books["probe"].queries == 1
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        cached = Oracle(Live(), cache=cache)
        cached.ask(examples.inputs, "clean")
        changed = Live()
        changed.answer = lambda rows: Quadratic.answer(changed, rows).flip(1)  # type: ignore[method-assign]
        with pytest.warns(UserWarning, match="the model has changed"):
            check_fits(Oracle(changed, cache=cache), dataset)
