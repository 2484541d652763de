"""Workers: the same parameters for any number of them, exact books whoever is lost, and only scalars on the way."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bbox.defenses.blackvip import BlackVIP
from bbox.defenses.blackvip.objective import Objective
from bbox.defenses.blackvip.processes import Replica, processes
from bbox.defenses.blackvip.prompters import UniversalPrompt
from bbox.defenses.blackvip.train import Course, Evaluator, Fused, Labelled, Schedule, Trained, train
from bbox.defenses.blackvip.workers import LocalWorker, Worker, Workers, keys_of, threads
from bbox.defenses.books import Books, Journal
from bbox.errors import InternalError, RequestLimitError, TargetError, UsageError
from bbox.oracle import Ledger, Oracle
from bbox.serving import Faults, server
from bbox.targets import load
from bbox.targets.account import Meter as RequestMeter
from bbox.targets.account import Purse, Terms
from bbox.zo import SPSA, Gains
from tests.defenses.blackvip.boxes import QUICK, SHAPE, Meter, images, leaning
from tests.toys import Quadratic

STEPS, BATCH = 10, 8


class Hiccup(Meter):
    """Raises at one of the calls that workers make, and answers before and after it."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.asked = at, 0

    def __call__(self, rows: Tensor) -> Tensor:
        self.asked += threading.current_thread() is not threading.main_thread()
        if self.asked == self.at:
            self.at = 0
            raise ConnectionError("a hiccup")
        return super().__call__(rows)


class Written(Quadratic):
    """Writes down every forward in a file, whatever process it is in.

    The first process that comes to its fourth forward dies of it, where they are mortal.
    """

    def __init__(self, path: Path, mortal: bool = False) -> None:
        super().__init__()
        self.path, self.mortal = path, mortal

    def __call__(self, rows: Tensor) -> Tensor:
        if self.mortal and len(self.batches) == 3:
            with suppress(FileExistsError), self.path.with_suffix(".dead").open("x") as file:
                file.write(f"{os.getpid()}")
                file.flush()
                os._exit(1)
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {len(rows)}\n")
        return super().__call__(rows)

    @classmethod
    def forwards(cls, path: Path) -> list[tuple[int, int]]:
        return [tuple(map(int, line.split())) for line in path.read_text().splitlines()]  # type: ignore[misc]


@dataclass
class Setting:
    """A small training: VP on 24 images, 10 steps of 6 evaluations of 8 images, 480 queries in all."""

    fused: Fused
    course: Course

    @classmethod
    def of(cls, oracle: Oracle, journal: Journal | None = None, *, limit: int = 480, sides: int = 2) -> Setting:
        spsa = SPSA(3 if sides == 2 else 5, sides)
        rows, labels = images(24)
        data = Labelled(rows, labels, rows.new_empty(len(rows), 0))
        prompter = UniversalPrompt(SHAPE)
        fused = Fused(prompter, data, Objective(Books(oracle, {"fit": limit}, journal)), spsa, 7, "fit")
        schedule = Schedule(spsa, Gains(0.05, 0.05), BATCH)
        start = prompter.start(7)
        return cls(
            fused, Course(schedule=schedule, sizes=[BATCH] * STEPS, start=start, count=24, seed=7, reference=2.0)
        )

    @property
    def books(self) -> Books:
        return self.fused.objective.books

    def train(self, evaluator: Evaluator) -> Trained:
        def affords(size: int) -> bool:
            return self.books.affords(6 * size, evaluator.calls(6, size), "fit")

        return train(self.fused.prompter, evaluator, **self.course, affords=affords)

    def run(self, make: Callable[[Fused], list[Worker]]) -> Trained:
        with Workers(self.fused, make(self.fused)) as workers:
            return self.train(workers)


def _locals(*targets: Meter, max_batch: int = 128) -> Callable[[Fused], list[Worker]]:
    return lambda fused: [LocalWorker(fused, Oracle(target, max_batch=max_batch)) for target in targets]


def _same(one: Trained, other: Trained) -> bool:
    return torch.equal(one.weights, other.weights) and one.coefficients == other.coefficients


@pytest.mark.parametrize("sides", [1, 2])
def test_parameters_are_the_same_for_any_number_of_workers(sides: int) -> None:
    """``Quadratic`` refuses two forwards at once, and counts and hashes by itself."""
    found = {}
    for count in (1, 2, 5):
        target = Quadratic()
        setting = Setting.of(Oracle(target), sides=sides)
        found[count] = setting.run(partial(threads, count=count)), target
        assert target.batches == [BATCH] * 6 * STEPS, "each evaluation is a call of its own"
        assert setting.books.oracle.books == {"fit": Ledger(queries=480, calls=60)}
        assert (setting.books.spent["fit"], setting.books.calls) == (480, 60)
    weights = found[1][0].weights
    assert bool(weights.abs().max() > 0.01)
    for trained, target in found.values():
        assert _same(trained, found[1][0])
        assert target.counts() == found[1][1].counts(), "the same rows to the last bit"


def test_a_fit_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    """The whole of BlackVIP, and a resume of one that was cut off goes on with another number of workers."""
    rows, labels = images(40)

    def fit(target: Meter, workers: int, journal: Journal | None = None) -> tuple[BlackVIP, Oracle]:
        defense = BlackVIP(**{**QUICK, "workers": workers, "mapping": "iterative"})
        oracle = Oracle(target, max_batch=64)
        defense.fit(oracle, rows, labels, budget=1500, journal=journal)
        return defense, oracle

    whole = Meter()
    one, oracle = fit(whole, 1)
    assert sum(ledger.queries for ledger in oracle.books.values()) == whole.rows <= 1500
    assert sum(ledger.calls for ledger in oracle.books.values()) == whole.calls
    two, _ = fit(Meter(), 2)
    first, rest = Meter(fail_at=40), Meter()
    with Journal(tmp_path / "answers.sqlite") as journal, pytest.raises(TargetError, match="all 3 workers are lost"):
        fit(first, 3, journal)
    with Journal(tmp_path / "answers.sqlite") as journal:
        resumed, oracle = fit(rest, 2, journal)
    assert first.rows + rest.rows == whole.rows, "nothing is paid twice"
    assert sum(ledger.replayed for ledger in oracle.books.values()) == first.rows
    assert one.prompt and two.prompt and resumed.prompt
    assert torch.equal(one.prompt.weights, two.prompt.weights)
    assert torch.equal(one.prompt.weights, resumed.prompt.weights)


@pytest.mark.parametrize("fail_at", [0, 7, 11])
def test_the_others_make_what_a_lost_worker_owes(fail_at: int) -> None:
    """Evaluations are two forwards; at odd calls the worker is lost in the middle of one, which stays paid."""
    whole = Setting.of(Oracle(Meter(), max_batch=4)).run(_locals(Meter(), max_batch=4))
    weak, strong = Meter(fail_at=fail_at), Meter()
    setting = Setting.of(Oracle(weak, max_batch=4), limit=480 + 4)
    found = setting.run(_locals(weak, strong, max_batch=4))
    assert _same(found, whole)
    assert (weak.calls, weak.rows) == (fail_at, 4 * fail_at)
    extra = fail_at % 2
    assert strong.calls == 2 * 60 - fail_at + extra
    assert setting.books.spent["fit"] == weak.rows + strong.rows == 480 + 4 * extra
    assert setting.books.calls == weak.calls + strong.calls
    assert setting.books.oracle.books == {"fit": Ledger(480 + 4 * extra, 120 + extra)}


def test_the_budget_holds_when_a_worker_is_lost() -> None:
    """Without four rows to spare the last step is not begun, and training ends well."""
    weak, strong = Meter(fail_at=7), Meter()
    setting = Setting.of(Oracle(weak, max_batch=4), limit=480)
    found = setting.run(_locals(weak, strong, max_batch=4))
    assert found.steps == STEPS - 1
    assert setting.books.spent["fit"] == weak.rows + strong.rows == 480 - 48 + 4


def test_what_the_budget_does_not_allow_is_left_out() -> None:
    """In the step itself: five values of six, and a resume leaves out the same one without asking."""
    setting = Setting.of(Oracle(Meter(), max_batch=4), limit=48)
    targets = Meter(fail_at=1), Meter()
    batch = torch.arange(BATCH)
    with Workers(setting.fused, _locals(*targets, max_batch=4)(setting.fused)) as workers:
        values = workers.values(1, setting.course["start"], batch, 0.05)
    assert values.dtype == torch.float64
    assert int(values.isnan().sum()) == 1 and bool(values[5].isnan()), "the lost one is made first"
    assert setting.books.spent["fit"] == sum(target.rows for target in targets) == 5 * 8 + 4


def test_a_resume_knows_what_a_lost_worker_cost(tmp_path: Path) -> None:
    paid = 0
    found = []
    for targets in [(Meter(fail_at=7), Meter(fail_at=60)), (Meter(),)]:
        with Journal(tmp_path / "answers.sqlite") as journal:
            setting = Setting.of(Oracle(targets[0], max_batch=4), journal)
            try:
                found.append(setting.run(_locals(*targets, max_batch=4)))
            except TargetError:
                assert len(targets) == 2
        ledger = setting.books.oracle.books["fit"]
        assert ledger.replayed == paid
        paid += sum(target.rows for target in targets)
        assert setting.books.spent["fit"] == ledger.replayed + ledger.queries == paid <= 480
    assert [trained.steps for trained in found] == [STEPS - 1], "the rows that got no answer are missing at the end"
    whole = Setting.of(Oracle(Meter(), max_batch=4)).run(_locals(Meter(), max_batch=4))
    assert found[0].coefficients == whole.coefficients[: STEPS - 1]


def test_without_workers_left_the_target_is_unavailable() -> None:
    targets = Meter(fail_at=3), Meter(fail_at=5)
    setting = Setting.of(Oracle(targets[0]))
    with pytest.raises(TargetError, match=r"all 2 workers are lost; the last one: meter failed .*gone"):
        setting.run(_locals(*targets))
    assert setting.books.spent["fit"] == sum(target.rows for target in targets) == 64


def test_a_defect_is_no_lost_worker() -> None:
    class Wrong(LocalWorker):
        def evaluate(self, step, number):
            raise ZeroDivisionError("a defect")

    setting = Setting.of(Oracle(Meter()))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        setting.run(lambda fused: [Wrong(fused, Oracle(Meter()))])
    assert setting.books.spent["fit"] == 0


def test_a_fit_loses_a_worker_within_every_budget() -> None:
    """Rows for the mappings to come, and calls for the held-out images, are not taken for what is made again."""
    rows, labels = images(40)
    for at in (2, 31, 60):
        target = Hiccup(at)
        defense = BlackVIP(**{**QUICK, "workers": 2, "mapping": "iterative", "max_calls": 230})
        oracle = Oracle(target, max_batch=4)
        figures = defense.fit(oracle, rows, labels, budget=900)
        assert target.at == 0, "it was lost"
        ledgers = oracle.books.values()
        assert sum(ledger.queries for ledger in ledgers) == target.rows == sum(figures["queries"].values()) <= 900
        assert sum(ledger.calls for ledger in ledgers) == target.calls == figures["calls"] <= 230
        assert figures["steps"] > 3


def test_processes_exchange_scalars_alone(tmp_path: Path) -> None:
    path = tmp_path / "forwards"
    here = Setting.of(Oracle(Quadratic())).run(partial(threads, count=1))
    setting = Setting.of(Oracle(Quadratic()))
    (worker,) = processes(setting.fused, setting.course, partial(Written, path), 1)
    setup = worker.sent
    with Workers(setting.fused, [worker]) as workers:
        found = setting.train(workers)
    assert _same(found, here)
    assert Written.forwards(path) == [(worker.pid, BATCH)] * 60
    assert setting.books.oracle.books == {"fit": Ledger(480, 60)}
    values = 8 * 6 * STEPS
    assert values == 480
    told = worker.sent - setup
    assert values < told <= values + 20 * STEPS + 40 * 60, "20 bytes around a step's values, 40 for a number and a key"
    assert 8 * 60 <= worker.received <= 25 * 60


def test_a_process_that_dies_is_replaced_by_the_others(tmp_path: Path) -> None:
    """It dies between the two forwards of an evaluation, so that four rows have been delivered for nothing."""
    path = tmp_path / "forwards"
    path.write_text("")
    here = Setting.of(Oracle(Quadratic(), max_batch=4)).run(partial(threads, count=1))
    setting = Setting.of(Oracle(Quadratic(), max_batch=4), limit=480 + 4)
    crew = processes(setting.fused, setting.course, partial(Written, path, mortal=True), 2)
    with Workers(setting.fused, crew) as workers:
        found = setting.train(workers)
    assert _same(found, here)
    forwards = Written.forwards(path)
    counts = Counter(process for process, _ in forwards)
    assert set(counts) == {worker.pid for worker in crew}
    assert counts[int((tmp_path / "forwards.dead").read_text())] == 3
    assert sum(rows for _, rows in forwards) == setting.books.spent["fit"] == 484
    assert setting.books.oracle.books == {"fit": Ledger(484, 121)}


def test_a_replica_with_other_weights_asks_nothing() -> None:
    target = Quadratic()
    fused = Setting.of(Oracle(target)).fused
    weights, batch = torch.full((64,), 0.1), torch.arange(BATCH)
    here, there = multiprocessing.Pipe()
    replica = Replica(fused, there)
    for drift, rows in ((0.0, BATCH), (1e-7, BATCH)):
        here.send_bytes(pickle.dumps((2, keys_of(fused.points(1, weights, 0.1), batch)[2], None)))
        here.send_bytes(pickle.dumps(torch.zeros(6, dtype=torch.float64).numpy().tobytes()))
        if drift:
            with pytest.raises(InternalError, match="the weights of a worker differ from the lead's in step 1"):
                replica.values(1, weights + drift, batch, 0.1)
        else:
            assert replica.values(1, weights, batch, 0.1).tolist() == [0.0] * 6
        assert target.rows == rows
    here.close()
    there.close()


def test_what_cannot_be_sent_is_refused_before_a_process_starts() -> None:
    setting = Setting.of(Oracle(Quadratic()))
    with pytest.raises(UsageError, match="need what can be pickled"):
        processes(setting.fused, setting.course, lambda: Meter(leaning), 1)


def test_processes_ask_a_live_target_on_the_books_and_take_no_limit() -> None:
    here = Setting.of(Oracle(Quadratic())).run(partial(threads, count=1))
    with server(Quadratic(), Faults(rate_500=0.05, seed=1)) as up:
        target = load(up.url)
        limited = Terms(meter=RequestMeter(Purse(9).lease, 9))
        setting = Setting.of(Oracle(target, terms=limited))
        with pytest.raises(UsageError, match="max_requests is 9, and processes do not share a limit"):
            processes(setting.fused, setting.course, partial(load, up.url), 1)
        setting = Setting.of(Oracle(target))
        with Workers(setting.fused, processes(setting.fused, setting.course, partial(load, up.url), 2)) as workers:
            found = setting.train(workers)
        target.close()
    book = setting.books.oracle.books["fit"]
    assert _same(found, here) and up.books.faults["500"] > 0
    assert (book.queries, book.requests, book.billed) == (up.books.answered, up.books.requests, up.books.rows)
    assert book.retried == book.billed - book.queries > 0


def test_a_limit_on_requests_loses_no_worker() -> None:
    with server(Quadratic(), Faults()) as up:
        target = load(up.url)
        setting = Setting.of(Oracle(target, terms=Terms(meter=RequestMeter(Purse(9).lease, 9))))
        with pytest.raises(RequestLimitError, match="the limit of 9 requests"):
            setting.run(partial(threads, count=2))
        target.close()
    assert up.books.requests == 9 == setting.books.oracle.books["fit"].requests
