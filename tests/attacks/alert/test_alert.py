"""The attack under the engine: exact budget, memory, batches, prune, and the options that the command line reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bbox.attacks import make_attack
from bbox.attacks.alert.objective import values
from bbox.code.domain import Renaming
from bbox.code.equivalence import compare
from bbox.code.program import Program, Programs
from bbox.engine import drive, make_jobs
from bbox.errors import UsageError
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.problem import Pool
from bbox.zo import root_keys
from tests.code_toys import Letters, programs

RARE = [  # names with letters that no program of the tests has much of; a provider wants a name in two programs
    Program(
        f"def rare{n}(zebra, quartz, jazzy, vexing, fuzzy, kiwi, xylo, wxyz, qqqq, zzzz, jjjj):\n    pass\n", "python"
    )
    for n in range(2)
]
SEARCHES = ["bandit", "greedy", "genetic", "mhm", "mhm-released", "beam", "labels"]


def _attack(
    options: dict[str, object], budget: int, group: int = 8, max_batch: int = 128, target_class: int | None = None
) -> tuple[dict[int, dict[str, Any]], Letters]:
    target, inputs = Letters("labels" if options.get("search") == "labels" else "scores"), programs()
    labels = target.labels(inputs)
    corpus = Programs([*inputs, *RARE])
    goal = Goal(labels) if target_class is None else Goal(torch.full_like(labels, target_class), targeted=True)
    jobs = make_jobs(
        inputs,
        goal,
        root_keys(0, torch.arange(len(inputs))),
        budget,
        device=torch.device("cpu"),
        domain=Renaming(),
        group=group,
        pool=Pool(corpus, target.labels(corpus)),
    )
    found = {}
    attack = make_attack("alert", {"substitutes": "random", **options})
    for job in drive(attack, Oracle(target, max_batch=max_batch), jobs):
        books = job.accounts
        for row, example in enumerate(job.examples.tolist()):
            found[example] = {
                "best": books.best[row],
                "distance": float(books.distance[row]),
                "spent": int(books.spent[row]),
                "first": int(books.first[row]),
            }
    return found, target


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_runs_under_the_exact_budget(search: str) -> None:
    found, target = _attack({"search": search}, 40)
    assert target.rows == sum(f["spent"] for f in found.values())
    assert all(f["spent"] <= 40 for f in found.values())
    broken = [f for f in found.values() if f["first"]]
    assert broken and all(f["distance"] < float("inf") for f in broken), "every success is a safe renaming"


@pytest.mark.parametrize("budget", [1, 2, 7])
def test_a_small_budget_is_no_error(budget: int) -> None:
    found, target = _attack({"search": "greedy"}, budget)
    assert max(f["spent"] for f in found.values()) == budget and target.rows == sum(f["spent"] for f in found.values())


@pytest.mark.parametrize("search", ["bandit", "genetic"])
def test_a_program_gets_the_same_in_any_batch(search: str) -> None:
    alone, _ = _attack({"search": search}, 60, group=1, max_batch=1)
    together, _ = _attack({"search": search}, 60, group=4, max_batch=7)
    assert alone == together


def test_no_program_is_asked_twice() -> None:
    _, target = _attack({"search": "mhm"}, 60)
    assert len(set(target.seen)) == len(target.seen)


def test_pruning_renames_fewer() -> None:
    kept, _ = _attack({"search": "labels", "prune": False}, 200)
    pruned, _ = _attack({"search": "labels", "prune": True}, 200)
    both = [i for i in kept if kept[i]["first"]]
    assert [pruned[i]["first"] for i in both] == [kept[i]["first"] for i in both]
    assert sum(pruned[i]["distance"] for i in both) < sum(kept[i]["distance"] for i in both)


def test_a_targeted_attack_reaches_the_class() -> None:
    found, target = _attack({}, 100, target_class=1)
    inputs = programs()
    moved = [i for i, f in found.items() if 0 < f["distance"] < float("inf")]
    assert moved
    for i in moved:
        best = found[i]["best"]
        assert int(target.answer([best.code]).argmax()) == 1 and compare(inputs[i], best).equivalent


def test_options_are_checked() -> None:
    assert make_attack("alert", {"preset": "paper"}).search == "genetic"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="pull is 0"):
        make_attack("alert", {"pull": 0})
    with pytest.raises(UsageError, match="search is 'best'"):
        make_attack("alert", {"search": "best"})


def test_the_objective_is_below_zero_where_the_class_is_left() -> None:
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [1.0, 0.0, 0.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    margins = values(scores, labels, "margin")
    assert margins[0] > 0 > margins[1] and torch.isfinite(margins).all()
    assert torch.allclose(values(scores, labels, "probability"), scores[:, 0].double())
    assert torch.allclose(values(scores, labels, "probability", targeted=True), 1 - scores[:, 0].double())
    assert torch.allclose(values(scores, labels, "margin", targeted=True), -margins)
