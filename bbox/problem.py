"""What passes between an attack and the engine: a problem, asks and answers; and the jobs that problems come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from bbox.accounts import Accounts
from bbox.batch import Batch, pick
from bbox.code.program import Programs
from bbox.domain import Box, Domain
from bbox.errors import InternalError
from bbox.goal import Goal
from bbox.oracle import StopReason

__all__ = ["ABSENT", "Answer", "Ask", "Done", "Job", "Journal", "Pool", "Problem", "Rows", "make_jobs"]

ABSENT = -3  # the label of a query that has no answer on record: calls that are under way side by side leave gaps
Rows: TypeAlias = Batch | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ask:
    """Rows that an attack wants answered.

    Shapes:
        rows: (m, *shape) on the target's device, or m programs, or a function that makes the rows with given numbers,
            (k,) int64 -> (k, *shape), so that many rows need not exist at once.
        owner: (m,) int64 on the CPU, the example that each row belongs to.

    Attributes:
        votes: how often each row is asked; each time is a query. What comes back and what is booked is the vote
            (``bbox.votes.vote``), never a single copy: one lucky answer of a noisy target is no adversarial example.
        majority: the share of a row's votes that must be for the goal, and more, for the goal to be met.
        probe: the rows only measure (a masked program): never adversarial, never a result.
    """

    rows: Rows
    owner: Tensor
    votes: int = 1
    majority: float = 0.5
    probe: bool = False


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
    """The data's labelled inputs: images to start from, programs to take names from.

    Shapes: inputs (p, *shape) or p programs, labels (p,) int64.
    """

    inputs: Any
    labels: Tensor


@dataclass(frozen=True)
class Problem:
    """What an attack is given: a group of n examples.

    ``remaining()`` says how many queries each may still ask, (n,) int64 on the CPU. ``finish(within)`` stops those
    with success whose closest adversarial row so far lies within this distance: for attacks at a fixed epsilon.
    ``stop(example, reason)`` ends one example's search, with a reason that the attack knows better than the books.
    ``repeat(owner)`` notes rows, (m,) int64, that the attack answered from its own memory instead of asking again.

    Shapes:
        originals: (n, *shape) float32 on the target's device, in ``domain``; for an attack on code see ``programs``.
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
    repeat: Callable[[Tensor], None] = field(default=lambda owner: None, repr=False)
    stop: Callable[[int, StopReason], None] = field(default=lambda example, reason: None, repr=False)

    @property
    def programs(self) -> Programs:
        """The originals of an attack on code."""
        originals: Any = self.originals
        if not isinstance(originals, Programs):
            raise InternalError("this attack takes programs, and was given images")
        return originals

    def __len__(self) -> int:
        return len(self.originals)


class Journal(Protocol):
    """Remembers answers, so that a killed run is replayed instead of paid for twice."""

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        """The answers on record for an example, up to its last query there: labels (k,) int64, ``ABSENT`` for a query
        without one, and scores (k, classes), or ``None``."""

    def append(self, examples: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Record the answers of one forward."""


@dataclass(frozen=True)
class Done:
    """What is left of a group of examples that were attacked.

    Shapes:
        accounts: of n examples; examples: (n,) int64, each example's number in the journal.
    """

    accounts: Accounts
    examples: Tensor


@dataclass(frozen=True)
class Job(Done):
    """A group of n examples to be attacked, and their names in the journal."""

    problem: Problem


def make_jobs(
    originals: Batch,
    goal: Goal,
    keys: Tensor,
    budget: int,
    *,
    device: torch.device,
    examples: Tensor | None = None,
    starts: Tensor | None = None,
    pool: Pool | None = None,
    domain: Domain | None = None,
    group: int = 8,
    stop_at: float | None = None,
) -> Iterator[Job]:
    """Split n examples into groups that the engine runs side by side; each is moved to the device when its turn comes.

    Shapes:
        originals: (n, *shape) float32, or n programs; starts: (n, *shape) float32; keys: (n,) int64
            (``bbox.zo.root_keys``); examples: (n,) int64.
    """
    domain = domain or Box()
    examples = torch.arange(len(originals)) if examples is None else examples
    for rows in torch.split(torch.arange(len(originals)), group):
        inputs = pick(originals, rows)
        if isinstance(inputs, Tensor):
            inputs = inputs.to(device)
        accounts = Accounts(inputs, goal.take(rows), domain, budget, stop_at=stop_at)
        problem = Problem(
            originals=cast("Tensor", inputs),
            goal=accounts.goal,
            domain=cast("Box", domain),
            keys=keys[rows].to(device),
            budget=budget,
            starts=None if starts is None else starts[rows].to(device),
            pool=pool,
            remaining=accounts.remaining,
            finish=accounts.finish,
            repeat=accounts.repeat,
            stop=accounts.stop,
        )
        yield Job(accounts, examples[rows], problem)
