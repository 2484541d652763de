"""Average and Resample: what they ask, what they count, and what they are good for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from bbox.attacks import WRAPPERS, Ask, Attack, Problem, Run, make_attack
from bbox.attacks.adaptive import Average, Resample
from bbox.attacks.options import describe
from bbox.domain import ROUNDING, Box, Norm
from bbox.engine import drive, make_jobs
from bbox.errors import UsageError
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.targets.base import REFUSED
from bbox.zo import root_keys
from tests.toys import NearDuplicates, Noisy, Outcome, Quadratic, Recorder, Refusing, attack, examples_of, row_hash

HSJ = "foolbox:HopSkipJumpAttack"


class Picky(Quadratic):
    """Refuses rows by their content: a third of all, whatever was asked before."""

    refuses = True

    def __call__(self, rows: Tensor) -> Tensor:
        picked = torch.tensor([row_hash(row)[0] % 3 == 0 for row in rows])
        return super().__call__(rows).masked_fill(picked[:, None], torch.nan)


@dataclass(frozen=True)
class Once(Attack):
    """Asks one row, several times each, and keeps what comes back."""

    rows: int = 1
    access: ClassVar = "scores"

    def run(self, problem: Problem) -> Run:
        owner = torch.arange(len(problem)).repeat_interleave(self.rows)
        self.answers.append((yield Ask(lambda index: problem.originals[owner[index]], owner)))

    answers: ClassVar[list] = []


def bits(found: dict[int, Outcome]) -> dict:
    return {i: outcome.bits() for i, outcome in found.items()}


# --- names and options -------------------------------------------------------------------------------------------


def test_a_wrapper_takes_its_own_options_and_those_of_the_attack_inside() -> None:
    made = make_attack("average:cgba", {"repeats": "4", "step": "0.1", "preset": "paper"})
    assert isinstance(made, Average) and made.repeats == 4
    assert made.inner == make_attack("cgba", {"step": 0.1, "preset": "paper"})
    made = make_attack(f"resample:{HSJ}", {"tries": 2, "steps": "3"})
    assert isinstance(made, Resample) and made.tries == 2
    assert made.inner.attack.steps == 3
    for wrapper in WRAPPERS.names():
        for inner in ("cgba", "square", HSJ):
            fields, presets, summary = describe(f"{wrapper}:{inner}")
            own = {f for f in fields if f not in describe(inner)[0]}
            assert set(describe(inner)[0]) < set(fields) and presets == describe(inner)[1]
            assert "inner" not in fields and all(fields[f][1] for f in own) and "\n" not in summary
            plain = make_attack(inner)
            made = make_attack(f"{wrapper}:{inner}")
            assert (made.access, made.norms) == (plain.access, plain.norms)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("average", {}, ("'average'", "average:cgba")),
        ("resample:", {}, ("'resample:'", "resample:cgba")),
        ("average:average:cgba", {}, ("wraps a wrapper", "average:cgba")),
        ("average:resample:cgba", {}, ("wraps a wrapper",)),
        ("average:cgab", {}, ("unknown attack 'cgab'", "did you mean 'cgba'")),
        ("average:foolbox:HopSkipJump", {}, ("did you mean 'HopSkipJumpAttack'",)),
        (
            "average:cgba",
            {"repeat": 3},
            ("average:cgba has no option 'repeat'", "did you mean 'repeats'", "start_noise"),
        ),
        ("average:cgba", {"inner": "cgba"}, ("no option 'inner'",)),
        ("average:cgba", {"repeats": "0"}, ("repeats is 0", "at least 1")),
        ("average:cgba", {"repeats": "many"}, ("'many'", "an integer")),
        ("average:cgba", {"majority": 1}, ("majority is 1", "below 1")),
        ("average:cgba", {"majority": 0.4}, ("majority is 0.4", "0.5")),
        ("average:cgba", {"preset": "none"}, ("no preset 'none'", "paper")),
        (f"average:{HSJ}", {"preset": "paper"}, ("no option 'preset'",)),
        ("resample:cgba", {"tries": 0}, ("tries is 0", "at least 1")),
        ("resample:cgba", {"first": 0}, ("first is 0", "0 < first <= largest")),
        ("resample:cgba", {"first": 0.2, "largest": 0.1}, ("first is 0.2", "0 < first <= largest")),
    ],
)
def test_a_wrong_name_or_option_is_one_line_that_helps(name: str, options: dict, words: tuple) -> None:
    with pytest.raises(UsageError) as caught:
        make_attack(name, options)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


# --- both: budgets, company, replay ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["average:cgba", "average:cgba-h", f"average:{HSJ}", "resample:cgba"])
def test_every_budget_is_exact(name: str) -> None:
    for budget in (*range(1, 20), 101):
        target = Picky() if name.startswith("resample") else Quadratic()
        options = {"repeats": 3} if name.startswith("average") else {}
        oracle = Oracle(target, max_batch=7)
        found = attack(name, target, examples_of(target, 1), budget, oracle=oracle, options=options)
        assert target.rows == oracle.books["attack"].queries == found[0].spent == budget
        assert found[0].stopped == "budget"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("average:cgba", lambda: Noisy(sigma=0.05)),
        ("average:square", lambda: Noisy(sigma=0.05)),
        (f"average:{HSJ}", lambda: Noisy(sigma=0.05)),
        ("resample:cgba", Picky),
        ("resample:square", Picky),
        (f"resample:{HSJ}", Picky),
    ],
)
@pytest.mark.filterwarnings("ignore:foolbox gave up")
def test_an_example_is_the_same_alone_and_in_any_company(name: str, make: Callable[[], Quadratic]) -> None:
    options = {"repeats": 3} if name.startswith("average") else {"tries": 4}
    alone, rows = {}, Counter()
    for i in range(3):
        target = make()
        alone |= attack(name, target, examples_of(Quadratic(), 3), 100, indices=[i], options=options, max_batch=64)
        rows += target.counts()
    for company in ({"group": 16, "max_batch": 50}, {"indices": [2, 0, 1], "group": 2, "max_batch": 4}):
        target = make()
        found = attack(name, target, examples_of(Quadratic(), 3), 100, options=options, **company)
        assert bits(found) == bits(alone)
        assert target.counts() == rows


@pytest.mark.parametrize("name", ["average:cgba", "average:square", f"average:{HSJ}", "resample:cgba"])
def test_a_journal_replays_without_asking(name: str) -> None:
    """A kill may come between the copies of a row: forwards of 5 or 40 rows, 3 copies each."""
    make = Picky if name.startswith("resample") else Quadratic
    options = {"repeats": 3} if name.startswith("average") else {}
    full, whole = Recorder(), make()
    examples = examples_of(Quadratic(), 3)
    expected = attack(name, whole, examples, 100, journal=full, group=2, max_batch=16, options=options)
    assert full.rows() == whole.rows <= 300
    for kept in (1, len(full.forwards) // 3, len(full.forwards) // 2, len(full.forwards)):
        journal, target = Recorder(full.forwards[:kept]), make()
        paid = journal.rows()
        oracle = Oracle(target, max_batch=5 if kept % 2 else 40)
        found = attack(name, target, examples, 100, journal=journal, group=2, oracle=oracle, options=options)
        assert bits(found) == bits(expected)
        assert (oracle.books["attack"].replayed, target.rows) == (paid, whole.rows - paid)


@pytest.mark.parametrize("limit", [100, 101, 250])
def test_the_run_wide_limit_holds_over_a_resume(limit: int) -> None:
    full, whole = Recorder(), Quadratic()
    examples = examples_of(whole, 4)
    expected = attack("average:cgba", whole, examples, 100, journal=full, limit=limit, options={"repeats": 3})
    assert whole.rows == limit
    for kept in (1, len(full.forwards) // 2, len(full.forwards)):
        journal, target = Recorder(full.forwards[:kept]), Quadratic()
        oracle = Oracle(target, max_batch=16, limit=limit, paid=journal.rows())
        found = attack("average:cgba", target, examples, 100, journal=journal, oracle=oracle, options={"repeats": 3})
        assert oracle.paid + target.rows == limit == sum(o.spent for o in found.values())
        assert bits(found) == bits(expected)


# --- average -----------------------------------------------------------------------------------------------------


def test_average_plans_with_its_share_of_the_budget() -> None:
    seen: list[tuple[int, list[int]]] = []

    @dataclass(frozen=True)
    class Looks(Attack):
        def run(self, problem: Problem) -> Run:
            for _ in range(2):
                seen.append((problem.budget, problem.remaining().tolist()))
                yield Ask(problem.originals, torch.arange(len(problem)))

    target = Quadratic()
    attack(Average(Looks(), 4), target, examples_of(target, 2), 10)
    assert seen == [(3, [3, 3]), (3, [2, 2])]
    assert target.rows == 2 * 2 * 4


def test_average_gives_mean_scores() -> None:
    Once.answers.clear()
    target = Noisy(sigma=0.2)
    attack(Average(Once(), 64), target, examples_of(Quadratic(), 2), 1000)
    twin = Noisy(sigma=0.2)
    rows = examples_of(Quadratic(), 2).inputs.repeat_interleave(64, 0)
    expected = twin.answer(rows).view(2, 64, -1).double().mean(1).float()
    assert torch.allclose(Once.answers[0].scores, expected, rtol=1e-6)


# --- resample ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cgba", "square", HSJ])
def test_resample_changes_nothing_where_nothing_is_refused(name: str) -> None:
    plain, wrapped = Quadratic(), Quadratic()
    examples = examples_of(plain, 3)
    expected = attack(name, plain, examples, 150)
    assert bits(attack(f"resample:{name}", wrapped, examples, 150)) == bits(expected)
    assert wrapped.counts() == plain.counts()


def test_resample_gets_past_a_detector_of_near_duplicates() -> None:
    def played(name: str) -> tuple[float, int, list[float]]:
        target = NearDuplicates(0.4)
        oracle = Oracle(target, max_batch=32)
        found = attack(name, target, examples_of(Quadratic(), 6), 300, oracle=oracle)
        for i, o in found.items():  # what is booked is a row that was asked and answered
            assert row_hash(o.best) in target.counts()
            assert (
                int(Quadratic().answer(o.best[None]).argmax()) == o.label != int(examples_of(Quadratic(), 6).labels[i])
            )
        ledger = oracle.books["attack"]
        return sorted(o.distance for o in found.values())[3], ledger.refused, [o.spent for o in found.values()]

    plain, refused, _ = played("cgba")
    adapted, refused_less, spent = played("resample:cgba")
    assert refused > 900 and refused_less < 0.25 * 1800
    assert adapted < 0.85 * plain
    assert spent == [300] * 6


def test_a_row_is_asked_at_most_so_often_then_the_attack_is_told_that_it_was_refused() -> None:
    Once.answers.clear()
    target = Refusing(lambda number: number >= 0)
    attack(Resample(Once(3), tries=5), target, examples_of(Quadratic(), 2), 1000)
    answer = Once.answers[0]
    assert target.rows == 2 * 3 * 5
    assert bool(answer.answered.all()) and not bool(answer.adversarial.any())
    assert answer.labels.tolist() == [REFUSED] * 6
    assert len(set(target.seen)) == 2 + 2 * (3 * 5 - 1), "the first row as it is, every other one with fresh noise"


def test_the_noise_grows_while_rows_are_refused_and_shrinks_by_probing() -> None:
    class Distant(Quadratic):
        """Refuses the original itself and whatever is near it."""

        refuses = True
        sizes: ClassVar[list[float]] = []

        def __call__(self, rows: Tensor) -> Tensor:
            away = (rows - middle).flatten(1).std(1)
            self.sizes.extend(away.tolist())
            return super().__call__(rows).masked_fill(away[:, None] < 0.03, torch.nan)

    middle = torch.full((1, 1, 8, 8), 0.5)
    target = Distant()

    @dataclass(frozen=True)
    class Again(Attack):
        def run(self, problem: Problem) -> Run:
            for _ in range(200):
                yield Ask(problem.originals, torch.arange(1))

    examples = examples_of(Quadratic(), 1)
    examples.inputs[0] = middle[0]
    oracle = Oracle(target)
    attack(Resample(Again(), first=0.004), target, examples, 1000, oracle=oracle)
    assert 0.027 < sum(target.sizes[-50:]) / 50 < 0.05, "it settles just above what is refused"
    assert max(target.sizes) < 0.09
    assert oracle.books["attack"].refused < 0.3 * target.rows


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_rows_of_an_attack_in_a_ball_stay_in_it(norm: Norm) -> None:
    """Square's rows lie on the surface, and noise of this size would take them far outside."""

    class Meter(Picky):
        def __call__(self, rows: Tensor) -> Tensor:
            gaps.extend(Box(norm=norm).distance(original.expand_as(rows), rows).tolist())
            return super().__call__(rows)

    gaps: list[float] = []
    epsilon = {"l2": 1.0, "linf": 0.1}[norm]
    original = examples_of(Quadratic(), 1).inputs
    target = Meter()
    oracle = Oracle(target)
    made = make_attack("resample:square", {"epsilon": epsilon, "first": 0.1})
    goal, keys = Goal(examples_of(Quadratic(), 1).labels), root_keys(0, torch.arange(1))
    for _ in drive(made, oracle, make_jobs(original, goal, keys, 150, device=target.device, domain=Box(norm=norm))):
        pass
    assert oracle.books["attack"].refused > 20
    assert 0.8 * epsilon < max(gaps) <= epsilon + ROUNDING


# --- refused answers, without a wrapper --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:foolbox gave up")
@pytest.mark.parametrize("access", ["scores", "labels"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    "refuse",
    [lambda number: number % 2 == 1, lambda number: number >= 50, lambda number: number >= 0],
    ids=["every second row", "all after 50", "all"],
)
@pytest.mark.parametrize("name", ["cgba", "cgba-h", HSJ, "resample:cgba", "average:cgba", f"resample:{HSJ}"])
def test_attacks_survive_refused_answers(name: str, refuse: Callable, targeted: bool, access: str) -> None:
    target, examples = Refusing(refuse, access), examples_of(Quadratic(), 3)
    oracle = Oracle(target, max_batch=8)
    found = attack(name, target, examples, 80, oracle=oracle, targeted=targeted)
    assert target.rows == oracle.books["attack"].queries == sum(o.spent for o in found.values()) <= 240
    assert oracle.books["attack"].refused == int(refuse(torch.arange(target.rows)).sum())
    assert {o.stopped for o in found.values()} <= {"budget", "start_not_found", "converged"}
    answers = Quadratic().answer(torch.stack([o.best for o in found.values()])).argmax(1)
    goals = examples.others if targeted else examples.labels
    for o, answer, goal in zip(found.values(), answers.tolist(), goals.tolist(), strict=True):
        assert not o.trace or (answer == goal) == targeted
    if refuse(torch.tensor([0])):
        assert not any(o.trace for o in found.values())
    elif not name.startswith("average"):
        assert any(o.trace for o in found.values())
