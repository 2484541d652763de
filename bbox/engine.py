"""Drives attack generators over an oracle.

Examples are split into groups; each group is one run of the attack's generator. The groups run side by side: whatever
rows they wait for share forwards of ``max_batch`` rows (one group bisects while another estimates a normal), and a
group goes on as soon as its own rows are answered. Budget, best-so-far and traces are booked on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from bbox.domain import Box
from bbox.errors import InternalError
from bbox.goal import Goal
from bbox.oracle import Accounts, Oracle, StopReason

__all__ = ["Answer", "Ask", "Job", "Journal", "Pool", "Problem", "drive", "make_jobs"]

Rows: TypeAlias = Tensor | Callable[[Tensor], Tensor]

_FRUITLESS = 1000


@dataclass(frozen=True)
class Ask:
    """Rows that an attack wants answered.

    Shapes:
        rows: (m, *shape) on the target's device, or a function that makes the rows with given numbers, (k,) int64 ->
            (k, *shape), so that many rows need not exist at once.
        owner: (m,) int64 on the CPU, the example that each row belongs to.
    """

    rows: Rows
    owner: Tensor


@dataclass(frozen=True)
class Answer:
    """What came back for an ``Ask``, row by row, on the CPU.

    Shapes:
        answered: (m,) bool; a row is unanswered when its owner's budget is spent.
        adversarial: (m,) bool, the goal is met. False where unanswered.
        labels: (m,) int64, -1 where unanswered.
        scores: (m, classes) float32, for attacks with access to scores only.
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

    def __len__(self) -> int:
        return len(self.originals)


class Journal(Protocol):
    """Remembers answers, so that a killed run is replayed instead of paid for twice."""

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        """The answers on record for an example, in the order of its queries: labels (k,), scores (k, classes)."""

    def append(self, examples: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Record the answers of one forward."""


class _Attack(Protocol):
    @property
    def access(self) -> str: ...

    def run(self, problem: Problem) -> Generator[Ask, Answer, None]: ...


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
    group: int = 16,
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
        )
        yield Job(problem, accounts, examples[rows])


class _Lane:
    """One group's generator, the ask it waits for, and what has come back so far."""

    def __init__(self, job: Job, attack: _Attack, journal: Journal | None) -> None:
        self.job = job
        self.scores_wanted = attack.access == "scores"
        self.generator = attack.run(job.problem)
        self.replay = [journal.answers(int(e)) for e in job.examples] if journal else None
        self.known = torch.tensor([len(labels) for labels, _ in self.replay]) if self.replay else None
        self.ask: Ask | None = None
        self.pending = torch.empty(0, dtype=torch.int64)
        self.finished = False
        self.fruitless = 0  # asks in a row of which nothing could be admitted
        self.starved = False  # the run-wide limit left rows unanswered

    def advance(self, oracle: Oracle, reserved: int) -> None:
        """Hand the answers over and take the next ask; stop when it cannot be answered at all."""
        accounts = self.job.accounts
        try:
            if self.ask is None:
                self.ask = next(self.generator)
            else:
                self.ask = self.generator.send(self._answer())
        except StopIteration:
            self.close()
            return
        owner = self.ask.owner
        if len(owner) == 0:
            self.generator.close()
            raise InternalError("the attack asked no rows; return instead of asking nothing")
        left = oracle.left()
        room = None if left is None else max(0, left - reserved)
        admitted, self.number = accounts.admit(owner, room, self.known)
        self.starved |= room is not None and bool((~admitted & accounts.active[owner]).any())
        self.answered = torch.zeros(len(owner), dtype=torch.bool)
        self.adversarial = torch.zeros(len(owner), dtype=torch.bool)
        self.labels = torch.full((len(owner),), -1, dtype=torch.int64)
        self.scores: Tensor | None = None
        self.pending = admitted.nonzero()[:, 0]
        self.fruitless = 0 if len(self.pending) else self.fruitless + 1
        out_of_room = room == 0 and not (self.known is not None and bool((accounts.spent < self.known).any()))
        if self.fruitless and (out_of_room or not bool(accounts.active.any())):
            self.starved |= out_of_room
            self.close()
        elif self.fruitless > _FRUITLESS:
            # Every other ask costs at least one row of a budget, so no attack can loop for ever.
            self.generator.close()
            raise InternalError(f"the attack asked {_FRUITLESS} times in a row for examples that are done")

    def _answer(self) -> Answer:
        return Answer(self.answered, self.adversarial, self.labels, self.scores)

    def close(self, reason: StopReason | None = None) -> None:
        self.generator.close()
        if len(self.pending):
            self.job.accounts.hand_back(self.owner[self.pending])
        self.job.accounts.settle()
        self.job.accounts.close("budget" if self.starved else reason)
        self.finished = True

    def rows(self, index: Tensor, oracle: Oracle) -> Tensor:
        """Make these rows of the ask, as the target will see them."""
        source = self._current.rows
        rows = oracle.admissible(source[index.to(source.device)] if isinstance(source, Tensor) else source(index))
        self.job.accounts.check(rows)
        return rows

    def take_replayed(self) -> Tensor:
        """Split off the pending rows whose answers the journal holds: their numbers within the ask."""
        if self.known is None:
            return torch.empty(0, dtype=torch.int64)
        old = self.number[self.pending] <= self.known[self.owner[self.pending]]
        replayed, self.pending = self.pending[old], self.pending[~old]
        return replayed

    @property
    def _current(self) -> Ask:
        if self.ask is None:
            raise InternalError("no ask is under way")
        return self.ask

    @property
    def owner(self) -> Tensor:
        return self._current.owner

    def book(self, index: Tensor, rows: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Book the answers to these rows of the ask."""
        owner, number = self.owner[index], self.number[index]
        self.answered[index] = True
        self.adversarial[index] = self.job.accounts.record(rows, owner, number, labels)
        self.labels[index] = labels
        if self.scores_wanted and scores is not None:
            if self.scores is None:
                self.scores = torch.full((len(self.answered), scores.shape[1]), torch.nan)
            self.scores[index] = scores


def drive(
    attack: _Attack,
    oracle: Oracle,
    jobs: Iterable[Job],
    *,
    journal: Journal | None = None,
    side_by_side: int = 256,
    time_limit: float | None = None,
    on_forward: Callable[[Sequence[Job]], None] | None = None,
) -> Iterator[Job]:
    """Run the attack on every job, and yield each job when it is finished.

    Args:
        jobs: taken one after another, so that only what runs lies in memory.
        journal: answers on record are replayed, new ones are recorded.
        side_by_side: examples that run at the same time.
        time_limit: seconds after which every example stops with ``time_limit``.
        on_forward: called after each forward with the jobs that run, for progress.
    """
    waiting = iter(jobs)
    lanes: list[_Lane] = []
    deadline = None if time_limit is None else time.monotonic() + time_limit
    exhausted = False
    while True:
        while not exhausted and (not lanes or sum(len(lane.job.problem) for lane in lanes) < side_by_side):
            job = next(waiting, None)
            if job is None:
                exhausted = True
                break
            lanes.append(_Lane(job, attack, journal))
        if not lanes:
            return
        for lane in lanes:
            while not lane.finished and len(lane.pending) == 0:
                if lane.ask is not None:
                    lane.job.accounts.settle()
                lane.advance(oracle, sum(len(other.pending) for other in lanes if other is not lane))
                if not lane.finished:
                    _replay(lane, oracle)
        if deadline is not None and time.monotonic() > deadline:
            for lane in lanes:
                lane.close("time_limit")
        yield from (lane.job for lane in lanes if lane.finished)
        lanes = [lane for lane in lanes if not lane.finished]
        if lanes:
            _forward(lanes, oracle, journal)
            if on_forward is not None:
                on_forward([lane.job for lane in lanes])


def _replay(lane: _Lane, oracle: Oracle) -> None:
    """Answer from the journal what it holds. Replayed rows are made and booked like any other, but not asked."""
    replayed = lane.take_replayed()
    for index in torch.split(replayed, oracle.max_batch):
        if len(index) == 0 or lane.replay is None:
            continue
        owner, place = lane.owner[index], lane.number[index] - 1
        pairs = list(zip(owner.tolist(), place.tolist(), strict=True))
        labels = torch.stack([lane.replay[o][0][p] for o, p in pairs])
        given = [lane.replay[o][1] for o, _ in pairs]
        kept = [scores[p] for scores, (_, p) in zip(given, pairs, strict=True) if scores is not None]
        scores = torch.stack(kept) if kept else None
        oracle.books["attack"].replayed += len(index)
        lane.book(index, lane.rows(index, oracle), labels, scores)


def _forward(lanes: Sequence[_Lane], oracle: Oracle, journal: Journal | None) -> None:
    """Fill one forward with pending rows, the lanes that wait for the fewest first, and book the answers."""
    room = oracle.max_batch
    taken: list[tuple[_Lane, Tensor, Tensor]] = []
    for lane in sorted(lanes, key=lambda lane: len(lane.pending)):
        index = lane.pending[:room]
        if len(index):
            taken.append((lane, index, lane.rows(index, oracle)))
            room -= len(index)
    rows = taken[0][2] if len(taken) == 1 else torch.cat([part for _, _, part in taken])
    answers = oracle.ask(rows)
    if journal is not None:
        journal.append(
            torch.cat([lane.job.examples[lane.owner[index]] for lane, index, _ in taken]),
            torch.cat([lane.number[index] for lane, index, _ in taken]),
            answers.labels,
            answers.scores if taken[0][0].scores_wanted else None,
        )
    start = 0
    for lane, index, part in taken:
        stop = start + len(index)
        scores = None if answers.scores is None else answers.scores[start:stop]
        lane.book(index, part, answers.labels[start:stop], scores)
        lane.pending = lane.pending[len(index) :]
        start = stop
