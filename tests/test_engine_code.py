"""The engine and the books with programs for rows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from bbox.attacks.base import Answer, Ask, Attack, Problem, Run
from bbox.code.domain import Renaming
from bbox.code.program import Program, Programs
from bbox.code.site import site_of
from bbox.engine import drive, make_jobs
from bbox.errors import InternalError
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.zo import root_keys
from tests.code_toys import Letters, programs

NAMES = ("zebra", "quartz", "jazzy", "vexing", "fuzzy", "kiwi")


@dataclass(frozen=True)
class Walk(Attack):
    """Renames one more identifier at a time, in a fixed order; ``capture`` adds a program that means something else."""

    capture: bool = False
    masked: bool = False

    takes: ClassVar[Any] = "code"
    access: ClassVar[Any] = "scores"
    norms: ClassVar[tuple[str, ...]] = ("names",)

    def run(self, problem: Problem) -> Run:
        sites = [site_of(program) for program in problem.programs]
        if self.masked:
            rows = Programs(Program(p.code.replace("total", "<unk>"), "python") for p in problem.programs)
            answer = yield Ask(rows, torch.arange(len(rows)), probe=True)
            assert bool(answer.answered.all()) and answer.scores is not None and not bool(answer.adversarial.any())
        if self.capture:
            rows = Programs(Program(p.code.replace("count", "total"), "python") for p in problem.programs)
            yield Ask(rows, torch.arange(len(rows)))
        for name in range(len(NAMES)):
            for most in range(1, 5):
                yield from _ask(
                    [
                        site.render({i: NAMES[(name + i) % len(NAMES)] for i in range(min(most, len(site.bindings)))})
                        for site in sites
                    ]
                )


def _ask(rows: Sequence[Program]) -> Generator[Ask, Answer, Answer]:
    return (yield Ask(Programs(rows), torch.arange(len(rows))))


def _drive(
    attack: Attack, target: Letters, inputs: Programs, budget: int, *, group: int = 8, max_batch: int = 128
) -> tuple[dict[int, dict[str, Any]], Oracle]:
    oracle = Oracle(target, max_batch=max_batch)
    numbers = torch.arange(len(inputs))
    jobs = make_jobs(
        inputs,
        Goal(target.labels(inputs)),
        root_keys(0, numbers),
        budget,
        device=oracle.device,
        domain=Renaming(),
        group=group,
    )
    found: dict[int, dict[str, Any]] = {}
    for job in drive(attack, oracle, jobs):
        books, traces = job.accounts, job.accounts.traces()
        for row, example in enumerate(job.examples.tolist()):
            found[example] = {
                "best": books.best[row],
                "distance": float(books.distance[row]),
                "spent": int(books.spent[row]),
                "first": int(books.first[row]),
                "trace": [part.tolist() for part in traces[row]],
            }
    return found, oracle


def test_the_budget_holds_and_the_best_is_what_the_target_saw() -> None:
    target, inputs = Letters(), programs()
    found, oracle = _drive(Walk(), target, inputs, 13)
    assert target.rows == oracle.books["attack"].queries == sum(f["spent"] for f in found.values()) == 13 * 6
    broken = [i for i, f in found.items() if f["distance"] < float("inf")]
    assert broken and 5 not in broken, "the last program has no name to change"
    for i in broken:
        best, original = found[i]["best"], inputs[i]
        assert best.code in target.seen and best.code != original.code
        assert int(target.answer([best.code]).argmax()) != int(target.answer([original.code]).argmax())
        assert found[i]["distance"] == found[i]["trace"][1][-1], "the number of names that changed"


@pytest.mark.parametrize(("group", "max_batch"), [(1, 1), (2, 5), (8, 3)])
def test_a_program_gets_the_same_in_any_batch(group: int, max_batch: int) -> None:
    alone, _ = _drive(Walk(), Letters(), programs(), 13)
    together, _ = _drive(Walk(), Letters(), programs(), 13, group=group, max_batch=max_batch)
    assert alone == together


def test_fewer_names_are_nearer() -> None:
    found, _ = _drive(Walk(), Letters(), programs(), 100)
    assert any(f["distance"] < f["trace"][1][0] for f in found.values() if f["trace"][1]), "some were improved"
    assert all(f["trace"][1] == sorted(set(f["trace"][1]), reverse=True) for f in found.values())


def test_a_program_that_means_something_else_is_no_result() -> None:
    class Fooled(Letters):
        def answer(self, codes: Sequence[str]) -> torch.Tensor:
            wrong = torch.tensor(["total = len" in code for code in codes])
            return torch.stack([~wrong, wrong, wrong & False], 1).float()

    found, _ = _drive(Walk(capture=True), Fooled(), programs(2), 50)
    assert found[1]["first"] == 1, "the target was fooled by the first row"
    assert found[1]["distance"] == float("inf") and found[1]["best"] == programs(2)[1], "but it is no valid result"
    assert found[0]["first"] == 0


def test_a_probe_is_paid_and_never_a_result() -> None:
    target = Letters()
    found, oracle = _drive(Walk(masked=True), target, programs(2), 1)
    assert [f["spent"] for f in found.values()] == [1, 1] and target.rows == oracle.books["attack"].queries == 2
    assert all("<unk>" in code for code in target.seen)
    assert all(f["first"] == 0 and f["distance"] == float("inf") for f in found.values())


def test_an_attack_on_code_refuses_images() -> None:
    jobs = make_jobs(torch.rand(1, 1, 2, 2), Goal(torch.tensor([0])), torch.tensor([0]), 5, device=torch.device("cpu"))
    with pytest.raises(InternalError, match="takes programs"):
        list(drive(Walk(), Oracle(Letters()), jobs))
