"""What passes between an attack and the engine: a problem, asks and answers; and the jobs that problems come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from bbox.domain import Box
from bbox.goal import Goal
from bbox.oracle import Accounts

__all__ = ["Answer", "Ask", "Job", "Journal", "Pool", "Problem", "Rows", "make_jobs"]

Rows: TypeAlias = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ask:
    """Rows that an attack wants answered.

    Shapes:
        rows: (m, *shape) on the target's device, or a function that makes the rows with given numbers, (k,) int64 ->
            (k, *shape), so that many rows need not exist at once.
        owner: (m,) int64 on the CPU, the example that each row belongs to.

    Attributes:
        votes: how often each row is asked; each time is a query. What comes back and what is booked is the vote
            (``bbox.votes.vote``), never a single copy: one lucky answer of a noisy target is no adversarial example.
        majority: the share of a row's votes that must be for the goal, and more, for the goal to be met.
    """

    rows: Rows
    owner: Tensor
    votes: int = 1
    majority: float = 0.5


@dataclass(frozen=True)
class Answer:
    """What came back for an ``Ask``, row by row, on the CPU.

    Shapes:
        answered: (m,) bool; a row is unanswered when its owner's budget is spent, also where it ended among the votes.
        adversarial: (m,) bool, the goal is met. False where unanswered.
        labels: (m,) int64, -1 where unanswered, -2 where the target refused (every copy); such a row is ``answered``.
        scores: (m, classes) float32, for attacks with access to scores only; the mean of the answered copies.
    """

    answered: Tensor
    adversarial: Tensor
    labels: Tensor
    scores: Tensor | None = None


@dataclass(frozen=True)
class Pool:
    """Labelled images from which start points may be taken. Shapes: inputs (p, *shape), labels (p,) int64."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Problem:
    """What an attack is given: a group of n examples.

    ``remaining()`` says how many queries each may still ask, (n,) int64 on the CPU. ``finish(within)`` stops those
    with success whose closest adversarial row so far lies within this distance: for attacks at a fixed epsilon.

    Shapes:
        originals: (n, *shape) float32 on the target's device.
        keys: (n,) int64, each example's source of randomness (``bbox.zo.fold``), from (seed, index) alone.
        starts: (n, *shape) or ``None``, a start point of the user's for each example.
    """

    originals: Tensor
    goal: Goal
    domain: Box
    keys: Tensor
    budget: int
    starts: Tensor | None = None
    pool: Pool | None = None
    remaining: Callable[[], Tensor] = field(default=lambda: torch.empty(0), repr=False)
    finish: Callable[[float], None] = field(default=lambda within: None, repr=False)

    def __len__(self) -> int:
        return len(self.originals)


class Journal(Protocol):
    """Remembers answers, so that a killed run is replayed instead of paid for twice."""

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        """The answers on record for an example, in the order of its queries: labels (k,), scores (k, classes)."""

    def append(self, examples: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Record the answers of one forward."""


@dataclass(frozen=True)
class Job:
    """A group of examples to be attacked, and their names in the journal.

    Shapes:
        problem: n examples; examples: (n,) int64, each example's number in the journal.
    """

    problem: Problem
    accounts: Accounts
    examples: Tensor


def make_jobs(
    originals: Tensor,
    goal: Goal,
    keys: Tensor,
    budget: int,
    *,
    device: torch.device,
    examples: Tensor | None = None,
    starts: Tensor | None = None,
    pool: Pool | None = None,
    domain: Box | None = None,
    group: int = 8,
    stop_at: float | None = None,
) -> Iterator[Job]:
    """Split n examples into groups that the engine runs side by side; each is moved to the device when its turn comes.

    Shapes:
        originals, starts: (n, *shape) float32; keys: (n,) int64 (``bbox.zo.root_keys``); examples: (n,) int64.
    """
    domain = domain or Box()
    examples = torch.arange(len(originals)) if examples is None else examples
    for rows in torch.split(torch.arange(len(originals)), group):
        inputs = originals[rows].to(device)
        accounts = Accounts(inputs, goal.take(rows), domain, budget, stop_at=stop_at)
        problem = Problem(
            originals=inputs,
            goal=accounts.goal,
            domain=domain,
            keys=keys[rows].to(device),
            budget=budget,
            starts=None if starts is None else starts[rows].to(device),
            pool=pool,
            remaining=accounts.remaining,
            finish=accounts.finish,
        )
        yield Job(problem, accounts, examples[rows])
