"""The engine: exact budgets, results that do not depend on company, replay, and an end to every loop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbox.attacks import Answer, Ask, Attack, Problem, Run, Square, make_attack
from bbox.engine import drive, make_jobs
from bbox.errors import InternalError, TargetError
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.zo import fold, root_keys, uniform
from tests.toys import (
    IMAGE_ATTACKS,
    Constant,
    Examples,
    NaNAfter,
    Outcome,
    Quadratic,
    RaisesAfter,
    Random,
    Recorder,
    SmallMemory,
    attack,
    examples_of,
    row_hash,
)

HSJ = "foolbox:HopSkipJumpAttack"
SHAPES = [(1, 8, 8), (3, 9, 7), (3, 16, 16)]
KINDS = [("cgba", {}), ("cgba-h", {}), ("cgba", {"preset": "paper"}), ("cgba-h", {"preset": "paper"})]


def _kind(value: object) -> str | None:
    return f"{value[0]}-paper" if isinstance(value, tuple) and value[1] else None


@dataclass(frozen=True)
class ScoreWalk(Attack):
    """A small score-based attack: walk from noise to the original, a step and a candidate of two a query."""

    access: ClassVar = "scores"

    def run(self, problem: Problem) -> Run:
        n = len(problem)
        shape = problem.originals.shape[1:]
        point = uniform(problem.keys, shape.numel()).view(-1, *shape)
        everyone = torch.arange(n)
        for t in range(10_000):
            owner = everyone[problem.remaining() > 0]
            if len(owner) == 0:
                return
            noise = uniform(fold(problem.keys[owner], t), shape.numel()).view(-1, *shape) - 0.5
            near = torch.lerp(point[owner], problem.originals[owner], 0.05)
            rows = torch.stack([near, near + 0.05 * noise], 1).flatten(0, 1).clamp(0, 1)
            answer = yield Ask(rows, owner.repeat_interleave(2))
            margin = answer.scores.nan_to_num(-1e30).amax(1) - answer.scores.nan_to_num(-1e30).sum(1)
            pick = margin.view(-1, 2).argmax(1)
            chosen = rows.view(-1, 2, *shape)[torch.arange(len(owner)), pick]
            good = answer.adversarial.view(-1, 2)[torch.arange(len(owner)), pick]
            point[owner[good]] = chosen[good]


@dataclass(frozen=True)
class Scripted(Attack):
    """Runs any generator function."""

    script: Callable[[Problem], Generator[Ask, Answer, None]]

    def run(self, problem: Problem) -> Run:
        yield from self.script(problem)


# --- (a) budgets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cgba", "cgba-h"])
def test_every_budget_is_exact(name: str) -> None:
    for budget in (*range(1, 201), 1000):
        target = Quadratic()
        oracle = Oracle(target, max_batch=64)
        found = attack(name, target, examples_of(target, 1), budget, oracle=oracle)
        assert (target.rows, oracle.books["attack"].queries, found[0].spent) == (budget,) * 3, budget
        assert found[0].stopped == "budget"


@pytest.mark.parametrize("targeted", [False, True])
def test_a_foolbox_attack_keeps_every_budget(targeted: bool) -> None:
    for budget in (1, 2, 3, 10, 37, 101, 200, 1000):
        target = Quadratic()
        oracle = Oracle(target)
        found = attack(HSJ, target, examples_of(target, 4), budget, oracle=oracle, targeted=targeted, indices=[0])
        assert (target.rows, oracle.books["attack"].queries, found[0].spent) == (budget,) * 3, budget


@given(
    name=st.sampled_from(["cgba", "cgba-h"]),
    targeted=st.booleans(),
    count=st.integers(1, 6),
    group=st.integers(1, 6),
    max_batch=st.integers(1, 50),
    budget=st.integers(1, 90),
    limit=st.none() | st.integers(1, 300),
    seed=st.integers(0, 2**63),
    side_by_side=st.integers(1, 8),
)
@settings(max_examples=60)
def test_ragged_budgets(
    name: str,
    targeted: bool,
    count: int,
    group: int,
    max_batch: int,
    budget: int,
    limit: int | None,
    seed: int,
    side_by_side: int,
) -> None:
    target = Quadratic((1, 5, 6))
    oracle = Oracle(target, max_batch=max_batch, limit=limit)
    found = attack(
        name,
        target,
        examples_of(target, count, seed % 100),
        budget,
        oracle=oracle,
        targeted=targeted,
        group=group,
        seed=seed,
        side_by_side=side_by_side,
    )
    reported = sum(outcome.spent for outcome in found.values())
    assert target.rows == oracle.books["attack"].queries == reported
    assert max(outcome.spent for outcome in found.values()) <= budget
    assert max(target.batches, default=0) <= max_batch
    assert limit is None or target.rows <= limit
    assert len(found) == count
    assert {outcome.stopped for outcome in found.values()} <= {"budget", "start_not_found"}
    if all(outcome.stopped == "budget" for outcome in found.values()):
        assert reported == min(count * budget, limit or count * budget)


# --- (b) the same alone, in any company --------------------------------------------------------------------------


def _alone(name: str | Attack, shape: tuple[int, ...], count: int, budget: int, **options: object) -> tuple:
    """Each example's outcome and metered rows, attacked alone."""
    outcomes: dict[int, Outcome] = {}
    rows: dict[int, Counter[bytes]] = {}
    for i in range(count):
        target = Quadratic(shape)
        outcomes |= attack(name, target, examples_of(target, count), budget, indices=[i], **options)
        rows[i] = target.counts()
        assert sum(rows[i].values()) == outcomes[i].spent
    return outcomes, rows


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=_kind)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_example_is_the_same_alone_and_in_any_company(shape: tuple, kind: tuple, targeted: bool) -> None:
    name, options = kind
    alone, rows = _alone(name, shape, 4, 160, targeted=targeted, options=options)
    companies = [
        {"indices": [0, 1, 2, 3], "group": 16, "max_batch": 256},
        {"indices": [3, 1, 0, 2], "group": 2, "max_batch": 7},
        {"indices": [2, 0, 3], "group": 3, "max_batch": 1, "side_by_side": 1},
    ]
    for company in companies:
        target = Quadratic(shape)
        found = attack(name, target, examples_of(target, 4), 160, targeted=targeted, options=options, **company)
        assert {i: outcome.bits() for i, outcome in found.items()} == {i: alone[i].bits() for i in found}
        assert target.counts() == sum((rows[i] for i in company["indices"]), Counter())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", [{}, {"subspace_factor": 1}], ids=["default", "full"])
def test_larger_images_are_the_same_in_any_company(options: dict, threads: int) -> None:
    shape = (3, 64, 64) if not options else (3, 128, 128)  # the full space of the latter is summed by threads
    budget = 120 if not options else 45
    torch.set_num_threads(threads)
    try:
        alone, rows = _alone("cgba", shape, 2, budget, options=options, max_batch=1)
        target = Quadratic(shape)
        found = attack("cgba", target, examples_of(target, 2), budget, options=options, max_batch=50)
    finally:
        torch.set_num_threads(1)
    assert {i: outcome.bits() for i, outcome in found.items()} == {i: alone[i].bits() for i in found}
    assert target.counts() == rows[0] + rows[1]


@pytest.mark.parametrize("name", [HSJ, "foolbox:BoundaryAttack"])
def test_a_foolbox_attack_is_the_same_in_any_company(name: str) -> None:
    alone, rows = _alone(name, (1, 8, 8), 3, 60)
    target = Quadratic()
    found = attack(name, target, examples_of(target, 3), 60, indices=[2, 0, 1], group=2, max_batch=5)
    assert {i: outcome.bits() for i, outcome in found.items()} == {i: alone[i].bits() for i in found}
    assert target.counts() == rows[0] + rows[1] + rows[2]


def test_foolbox_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    target = Quadratic()
    attack(HSJ, target, examples_of(target, 2), 40)
    assert torch.equal(torch.get_rng_state(), before)


def test_out_of_memory_changes_nothing_but_the_batches() -> None:
    plain, small = Quadratic(), SmallMemory(fits=3)
    expected = attack("cgba", plain, examples_of(plain, 3), 100, max_batch=64)
    found = attack("cgba", small, examples_of(plain, 3), 100, max_batch=64)
    assert small.refused > 0
    assert {i: o.bits() for i, o in found.items()} == {i: o.bits() for i, o in expected.items()}
    assert small.counts() == plain.counts()


def test_the_seed_matters_and_only_with_the_index() -> None:
    target = Quadratic()
    examples = examples_of(target, 2)
    first, again, other = (attack("cgba", target, examples, 80, seed=seed) for seed in (1, 1, 2))
    assert first[0].bits() == again[0].bits() != other[0].bits()
    twins = Examples(examples.inputs[[0, 0]], examples.labels[[0, 0]])
    found = attack("cgba", target, twins, 80, seed=1)
    assert found[0].bits() == first[0].bits() != found[1].bits()


# --- (d) reported = metered --------------------------------------------------------------------------------------

_EVERY = [
    *IMAGE_ATTACKS,
    HSJ,
    "foolbox:BoundaryAttack",
    "foolbox:LinearSearchBlendedUniformNoiseAttack",
    "foolbox:SaltAndPepperNoiseAttack",
]


@pytest.mark.parametrize(
    ("name", "access"),
    [(name, access) for name in _EVERY for access in ("scores", "labels") if (name, access) != ("square", "labels")],
)
def test_reported_queries_are_the_metered_rows(name: str, access: str) -> None:
    target = Quadratic(access=access)
    oracle = Oracle(target, max_batch=9)
    examples = examples_of(target, 3)
    found = attack(name, target, examples, 70, oracle=oracle, group=2)
    assert target.rows == oracle.books["attack"].queries == sum(o.spent for o in found.values())
    assert oracle.books["attack"].calls == len(target.batches)
    for i, outcome in found.items():
        assert outcome.spent <= 70
        if outcome.trace:
            assert row_hash(outcome.best) in target.seen, "the best row is one that the target saw"
            assert int(target.answer(outcome.best[None]).argmax()) == outcome.label != int(examples.labels[i])
            gap = (outcome.best.double() - examples.inputs[i].double()).square().sum().sqrt()
            assert outcome.distance == pytest.approx(float(gap), rel=1e-12) == outcome.trace[-1][1]
            assert all(later[1] < earlier[1] for earlier, later in zip(outcome.trace, outcome.trace[1:], strict=False))
            assert outcome.trace[-1][0] <= outcome.spent
            assert float(outcome.best.min()) >= 0 and float(outcome.best.max()) <= 1


# --- replay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "targeted"),
    [("cgba", False), ("cgba-h", True), (HSJ, False), (ScoreWalk(), False), (Square(epsilon=1.0), False)],
    ids=["cgba", "cgba-h", "foolbox", "scores", "square"],
)
def test_a_journal_replays_without_asking(name: str | Attack, targeted: bool) -> None:
    full = Recorder()
    whole = Quadratic()
    examples = examples_of(whole, 4)
    budget = 60 if name == HSJ else 150
    expected = attack(name, whole, examples, budget, journal=full, group=2, max_batch=16, targeted=targeted)
    assert full.rows() == whole.rows
    for kept in (0, 1, len(full.forwards) // 3, len(full.forwards) - 1, len(full.forwards)):
        journal, target = Recorder(full.forwards[:kept]), Quadratic()
        oracle = Oracle(target, max_batch=5 if kept % 2 else 40)
        paid = journal.rows()
        found = attack(name, target, examples, budget, journal=journal, group=2, oracle=oracle, targeted=targeted)
        assert {i: o.bits() for i, o in found.items()} == {i: o.bits() for i, o in expected.items()}
        assert oracle.books["attack"].replayed == paid
        assert target.rows == whole.rows - paid
        again = Counter(whole.seen[:paid]) + target.counts()
        assert again == whole.counts(), "no row is asked twice"


def test_the_run_wide_limit_holds_over_a_resume() -> None:
    full, whole = Recorder(), Quadratic()
    examples = examples_of(whole, 4)
    expected = attack("cgba", whole, examples, 100, journal=full, limit=250)
    assert whole.rows == 250
    for kept in (1, len(full.forwards) // 2, len(full.forwards)):
        journal, target = Recorder(full.forwards[:kept]), Quadratic()
        paid = journal.rows()
        oracle = Oracle(target, max_batch=16, limit=250, paid=paid)
        found = attack("cgba", target, examples, 100, journal=journal, oracle=oracle)
        assert paid + target.rows == 250
        assert sum(o.spent for o in found.values()) == 250
        assert {i: o.bits() for i, o in found.items()} == {i: o.bits() for i, o in expected.items()}


@pytest.mark.parametrize("kept", [1, 9, 10_000])
def test_the_run_wide_limit_holds_over_a_resume_of_many_groups(kept: int) -> None:
    full, whole = Recorder(), Quadratic()
    examples = examples_of(whole, 6)
    attack("cgba", whole, examples, 100, journal=full, limit=333, group=1)
    journal, target = Recorder(full.forwards[:kept]), Quadratic()
    oracle = Oracle(target, max_batch=23, limit=333, paid=journal.rows())
    found = attack("cgba", target, examples, 100, journal=journal, oracle=oracle, group=1)
    assert whole.rows == oracle.paid + target.rows == sum(o.spent for o in found.values()) == 333
    assert {o.stopped for o in found.values()} == {"budget"}


def test_attacks_get_scores_only_where_they_declare_it() -> None:
    given_scores: list[bool] = []

    def script(problem: Problem) -> Run:
        answer = yield Ask(problem.originals, torch.arange(len(problem)))
        given_scores.append(answer.scores is not None)

    target = Quadratic()
    attack(Scripted(script), target, examples_of(target, 2), 10)
    assert given_scores == [False]
    found = attack(ScoreWalk(), target, examples_of(target, 2), 50)
    assert all(o.stopped == "budget" for o in found.values())


# --- (g) every loop ends, with the right reason ------------------------------------------------------------------


def _labelled(count: int, label: int = 0) -> Examples:
    inputs = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return Examples(inputs, torch.full((count,), label))


@pytest.mark.parametrize("name", ["cgba", "cgba-h"])
@pytest.mark.parametrize("budget", [5, 400])
def test_a_constant_target_gives_no_start(name: str, budget: int) -> None:
    target = Constant()
    found = attack(name, target, _labelled(3), budget)
    assert target.rows == sum(o.spent for o in found.values()) <= 3 * budget
    assert {o.stopped for o in found.values()} == {"start_not_found" if budget == 400 else "budget"}
    assert all(o.trace == () and o.distance == float("inf") for o in found.values())


def test_the_papers_start_search_ends_at_the_budget() -> None:
    """The public code searches noise for ever on such a target."""
    target = Constant()
    found = attack("cgba", target, _labelled(2), 300, options={"preset": "paper"})
    assert target.rows == 600
    assert {o.stopped for o in found.values()} == {"budget"}


@pytest.mark.filterwarnings("ignore:foolbox gave up")
@pytest.mark.parametrize("kind", [*KINDS, (HSJ, {})], ids=_kind)
def test_a_random_target_ends_at_the_budget(kind: tuple) -> None:
    target = Random()
    found = attack(kind[0], target, _labelled(3), 250, options=kind[1])
    assert target.rows == sum(o.spent for o in found.values())
    assert all(o.spent <= 250 for o in found.values())
    assert {o.stopped for o in found.values()} <= {"budget", "start_not_found", "converged"}
    for o in found.values():
        distances = [d for _, d in o.trace]
        assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("kind", [*KINDS, (HSJ, {})], ids=_kind)
@pytest.mark.parametrize("good", [0, 1, 25, 90])
def test_a_target_that_turns_to_nan_is_a_target_error(kind: tuple, good: int) -> None:
    target, examples = NaNAfter(good=good), examples_of(Quadratic(), 2)
    oracle = Oracle(target, max_batch=8)
    found = attack(kind[0], target, examples, 200, options=kind[1], oracle=oracle)
    assert {o.stopped for o in found.values()} == {"target_error"}
    assert target.rows == sum(o.spent for o in found.values()) < 400
    for i, o in found.items():
        if o.trace:
            assert int(Quadratic().answer(o.best[None]).argmax()) != int(examples.labels[i])


def test_nan_for_one_example_does_not_end_the_others() -> None:
    class Touchy(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            return super().answer(rows).masked_fill(rows.flatten(1)[:, :1] > 0.95, torch.nan)

    target, plain = Touchy(), Quadratic()
    examples = examples_of(plain, 3)
    examples.inputs[1, 0, 0, 0] = 0.96
    examples.inputs[[0, 2], 0, 0, 0] = 0.3
    found = attack("cgba", target, examples, 120, options={"start_noise": 1e-6})
    assert found[1].stopped == "target_error"
    assert found[1].spent < 120


@pytest.mark.parametrize("name", ["cgba", HSJ])
@pytest.mark.parametrize("good", [0, 40])
def test_a_target_that_raises_ends_the_run_with_its_error(name: str, good: int) -> None:
    target = RaisesAfter(good=good)
    journal = Recorder()
    with pytest.raises(TargetError, match="the service has gone"):
        attack(name, target, examples_of(target, 2), 200, journal=journal, max_batch=8)
    assert journal.rows() <= good


def test_success_stops_at_the_distance() -> None:
    target = Quadratic()
    examples = examples_of(target, 3)
    free = attack("cgba", target, examples, 300)
    middle = sorted(o.distance for o in free.values())[1] * 1.1
    found = attack("cgba", target, examples, 300, stop_at=middle)
    for i, o in found.items():
        assert o.stopped == ("success" if free[i].distance <= middle else "budget")
        if o.stopped == "success":
            assert o.distance <= middle and o.spent < 300


def test_a_time_limit_keeps_the_best_and_counts_what_was_delivered() -> None:
    class Slow(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            time.sleep(0.01)
            return super().answer(rows)

    target = Slow()
    oracle = Oracle(target, max_batch=4)
    found = attack("cgba", target, examples_of(target, 3), 100_000, oracle=oracle, time_limit=0.6)
    assert {o.stopped for o in found.values()} == {"time_limit"}
    assert target.rows == oracle.books["attack"].queries == sum(o.spent for o in found.values())
    assert all(o.trace for o in found.values())


def _asks_nothing(problem: Problem) -> Run:
    while True:
        yield Ask(problem.originals[:0], torch.empty(0, dtype=torch.int64))


def _leaves_the_box(problem: Problem) -> Run:
    yield Ask(problem.originals + 1.0, torch.arange(len(problem)))


def _asks_nan(problem: Problem) -> Run:
    yield Ask(problem.originals * torch.nan, torch.arange(len(problem)))


def _never_lets_go(problem: Problem) -> Run:
    """Spends the budget of example 0 and asks for it for ever, while the others could still ask."""
    while True:
        yield Ask(problem.originals[:1], torch.tensor([0]))


def _leaves_the_box_late(problem: Problem) -> Run:
    yield Ask(problem.originals, torch.arange(len(problem)))
    yield Ask(lambda index: problem.originals[index] - 1.0, torch.arange(len(problem)))


@pytest.mark.parametrize(
    ("script", "word", "most"),
    [
        (_asks_nothing, "asked no rows", 0),
        (_leaves_the_box, "outside its domain", 0),
        (_asks_nan, "outside its domain", 0),
        (_leaves_the_box_late, "outside its domain", 2),
        (_never_lets_go, "examples that are done", 30),
    ],
)
def test_an_attack_that_breaks_the_contract_is_an_internal_error(script: Callable, word: str, most: int) -> None:
    target = Quadratic()
    with pytest.raises(InternalError, match=word):
        attack(Scripted(script), target, examples_of(target, 2), 30)
    assert target.rows == most


def test_an_attack_that_never_returns_ends_with_its_budget() -> None:
    def script(problem: Problem) -> Run:
        while True:
            yield Ask(problem.originals, torch.arange(len(problem)))

    target = Quadratic()
    found = attack(Scripted(script), target, examples_of(target, 2), 77)
    assert target.rows == 154
    assert {o.stopped for o in found.values()} == {"budget"}


def test_one_huge_ask_is_cut_at_the_budget_row_by_row() -> None:
    answered: list[int] = []

    def script(problem: Problem) -> Run:
        owner = torch.arange(len(problem)).repeat(1000)
        answer = yield Ask(lambda index: problem.originals[owner[index]], owner)
        answered.extend(torch.bincount(owner[answer.answered]).tolist())
        assert bool((answer.labels[~answer.answered] == -1).all())
        assert not bool(answer.adversarial[~answer.answered].any())
        assert bool(answer.answered[: 2 * 33].all()), "the rows that come first are admitted"

    target = Quadratic()
    attack(Scripted(script), target, examples_of(target, 2), 33, max_batch=7)
    assert answered == [33, 33]
    assert target.rows == 66


def test_groups_share_forwards() -> None:
    target = Quadratic()
    examples = examples_of(target, 12)
    attack("cgba", target, examples, 200, group=2, max_batch=64)
    together = len(target.batches)
    apart = Quadratic()
    attack("cgba", apart, examples, 200, group=2, max_batch=64, side_by_side=1)
    assert together < 0.5 * len(apart.batches)


def test_the_target_sees_one_forward_at_a_time() -> None:
    """Whoever verifies a finished group asks while a forward of the others is under way."""

    class Slow(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            time.sleep(0.003)
            return super().answer(rows)  # the toy raises when it is called twice at once

    target = Slow()
    examples = examples_of(Quadratic(), 32)
    oracle = Oracle(target, max_batch=8)
    jobs = [
        job
        for budget, rows in ((10, slice(0, 8)), (25, slice(8, 16)), (40, slice(16, 24)), (60, slice(24, 32)))
        for job in make_jobs(
            examples.inputs[rows],
            Goal(examples.labels[rows]),
            root_keys(0, torch.arange(32)[rows]),
            budget,
            device=target.device,
        )
    ]
    for job in drive(make_attack("cgba"), oracle, jobs):
        oracle.ask(job.accounts.best, "verify")
    assert oracle.books["verify"].queries == 32
    assert target.rows == 32 + oracle.books["attack"].queries


def test_only_what_runs_is_taken_from_the_jobs() -> None:
    target = Quadratic()
    examples = examples_of(target, 8)
    taken = 0

    def jobs() -> Generator:
        nonlocal taken
        for job in make_jobs(
            examples.inputs,
            Goal(examples.labels),
            root_keys(0, torch.arange(8)),
            20,
            device=target.device,
            group=2,
        ):
            taken += 1
            yield job

    running = drive(make_attack("cgba"), Oracle(target), jobs(), side_by_side=2)
    next(running)
    assert taken <= 2
    assert len(list(running)) == 3
    assert taken == 4


def test_generators_are_closed_when_the_run_ends_with_an_error() -> None:
    closed: list[bool] = []

    def script(problem: Problem) -> Run:
        try:
            while True:
                yield Ask(problem.originals, torch.arange(len(problem)))
        finally:
            closed.append(True)

    with pytest.raises(TargetError) as caught:
        attack(Scripted(script), RaisesAfter(good=6), examples_of(Quadratic(), 4), 30, group=2)
    assert closed == [True, True]
    assert caught.value is not None


# --- votes -------------------------------------------------------------------------------------------------------


def _votes(answers: list[Answer], votes: int, asks: int = 1, rows: int = 2, majority: float = 0.5) -> Scripted:
    """Asks ``rows`` rows an example, made by a function, and keeps what comes back."""

    def make(problem: Problem, owner: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return (problem.originals[owner[index]] + 0.01 * (index % rows).view(-1, 1, 1, 1)).clamp(0, 1)

    def script(problem: Problem) -> Run:
        owner = torch.arange(len(problem)).repeat_interleave(rows)
        for _ in range(asks):
            answers.append((yield Ask(lambda index: make(problem, owner, index), owner, votes, majority)))

    return Scripted(script)


@pytest.mark.parametrize("max_batch", [1, 4, 100])
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 6, 7, 8, 11, 12])
def test_a_row_counts_when_all_its_votes_were_cast(budget: int, max_batch: int) -> None:
    answers: list[Answer] = []
    target = Constant()  # class 0
    examples = Examples(torch.full((3, 1, 8, 8), 0.5), torch.tensor([1, 0, 2]))
    found = attack(_votes(answers, 3, asks=9), target, examples, budget, max_batch=max_batch)
    assert target.rows == 3 * budget == sum(o.spent for o in found.values())
    whole = budget // 3
    for ask, answer in enumerate(answers):
        rows = max(0, min(2, whole - 2 * ask))
        for i in range(3):
            mine = slice(2 * i, 2 * i + 2)
            assert answer.answered[mine].tolist() == [r < rows for r in range(2)]
            assert answer.adversarial[mine].tolist() == [r < rows and i != 1 for r in range(2)]
            assert answer.labels[mine].tolist() == [0 if r < rows else -1 for r in range(2)]
    assert [bool(found[i].trace) for i in range(3)] == [whole > 0, False, whole > 0]
    if whole:
        assert found[0].trace == ((3, 0.0),), "the number of the last copy"
    assert {o.stopped for o in found.values()} == {"budget"}


class Alternating(Quadratic):
    """Answers each row by turns: class 0, 1, 1, 0, 1, 1 ... or NaN scores, by a list."""

    refuses = True

    def __init__(self, turns: list[int]) -> None:
        super().__init__()
        self.turns = turns
        self.asked: Counter[bytes] = Counter()

    def answer(self, rows: torch.Tensor) -> torch.Tensor:
        labels = []
        for row in rows:
            labels.append(self.turns[self.asked[row_hash(row)] % len(self.turns)])
            self.asked[row_hash(row)] += 1
        scores = torch.nn.functional.one_hot(torch.tensor(labels).clamp(min=0), 4).float()
        return scores.masked_fill(torch.tensor(labels)[:, None] < 0, torch.nan)


@pytest.mark.parametrize(
    ("turns", "majority", "label"),
    [
        ([1, 1, 0], 0.5, 1),
        ([1, 0, 0], 0.5, 0),
        ([1, 0, 1, 0], 0.5, 0),
        ([1, 1, 0], 0.7, 0),
        ([1, 1, 1, 1], 0.9, 1),
        ([1, -2, -2, -2], 0.5, 1),
        ([-2, -2], 0.5, -2),
    ],
)
def test_best_and_trace_are_booked_by_the_vote(turns: list[int], majority: float, label: int) -> None:
    answers: list[Answer] = []
    target = Alternating(turns)
    examples = Examples(torch.full((2, 1, 8, 8), 0.5), torch.zeros(2, dtype=torch.int64))
    examples.inputs[1] = 0.25
    found = attack(_votes(answers, len(turns), majority=majority), target, examples, 100, max_batch=3)
    (answer,) = answers
    assert bool(answer.answered.all())
    assert answer.labels.tolist() == [label] * 4
    assert answer.adversarial.tolist() == [label == 1] * 4
    for o in found.values():
        assert o.trace == (((len(turns), 0.0),) if label == 1 else ())
        assert o.label == (1 if label == 1 else -1)


def test_one_unusable_copy_ends_the_example() -> None:
    answers: list[Answer] = []
    target = NaNAfter(good=2)
    found = attack(_votes(answers, 4, asks=5), target, examples_of(target, 1), 100)
    assert (found[0].stopped, target.rows) == ("target_error", 8)
    target = NaNAfter(good=2)
    found = attack(_votes(answers, 8, asks=5), target, examples_of(target, 1), 3)
    assert (found[0].stopped, target.rows) == ("target_error", 3), "also where the budget ends among the copies"


def test_an_ask_that_is_closed_among_its_votes_is_spent_as_delivered() -> None:
    class Slow(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02)
            return super().answer(rows)

    target = Slow()
    oracle = Oracle(target, max_batch=4)
    found = attack(_votes([], 7, rows=500), target, examples_of(target, 2), 100_000, oracle=oracle, time_limit=0.3)
    assert {o.stopped for o in found.values()} == {"time_limit"}
    assert 0 < target.rows == oracle.books["attack"].queries == sum(o.spent for o in found.values()) < 7000


def test_asks_with_and_without_votes_share_forwards() -> None:
    def script(problem: Problem) -> Run:
        owner = torch.arange(len(problem))
        for votes in (1, 3, 1, 2):
            answer = yield Ask(problem.originals, owner, votes)
            labels.append((votes, *answer.labels.tolist()))

    labels: list[tuple[int, ...]] = []
    target = Quadratic()
    examples = examples_of(target, 4)
    attack(Scripted(script), target, examples, 100, group=1, max_batch=3)
    assert target.rows == 4 * 7 and max(target.batches) == 3
    assert Counter(labels) == Counter((votes, label) for votes in (1, 3, 1, 2) for label in examples.labels.tolist())


def test_less_than_one_vote_is_an_internal_error() -> None:
    target = Quadratic()
    with pytest.raises(InternalError, match="0 votes"):
        attack(_votes([], 0), target, examples_of(target, 1), 10)
