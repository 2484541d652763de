"""Drives attack generators over an oracle.

Examples are split into groups; each group is one run of the attack's generator. The groups run side by side: whatever
rows they wait for share forwards of ``max_batch`` rows (one group bisects while another estimates a normal), and a
group goes on as soon as its own rows are answered. Budget, best-so-far and traces are booked on the way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from bbox.batch import Batch, join, pick
from bbox.code.program import Programs
from bbox.errors import InternalError, TargetError
from bbox.oracle import UNKNOWN, Answers, Oracle, StopReason
from bbox.problem import Answer, Ask, Job, Journal, Pool, Problem, make_jobs
from bbox.votes import Tally

__all__ = ["Answer", "Ask", "Job", "Journal", "Pool", "Problem", "drive", "make_jobs"]

_FRUITLESS = 1000
_PLENTY = 4  # full forwards: 298 calls for 64 images x 1,000 queries at 256 rows; 317 with 2, and no faster


class _Attack(Protocol):
    @property
    def access(self) -> str: ...

    def run(self, problem: Problem) -> Generator[Ask, Answer, None]: ...


class _Room:
    """What the run-wide limit still allows, counted when rows are admitted; ``None`` without a limit."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    def take(self, rows: int) -> None:
        if self.left is not None:
            self.left -= rows


class _Lane:
    """One group's generator, the ask it waits for, and what has come back so far.

    With votes, ``pending``, ``owner``, ``number`` and every index are of copies of rows; what is kept for the answer
    is of rows.
    """

    def __init__(self, job: Job, attack: _Attack, journal: Journal | None) -> None:
        self.job = job
        self.scores_wanted = attack.access == "scores"
        self.generator = attack.run(job.problem)
        self.replay = [journal.answers(int(e)) for e in job.examples] if journal else None
        self.known = torch.tensor([len(labels) for labels, _ in self.replay]) if self.replay else None
        self.ask: Ask | None = None
        self.tally: Tally | None = None  # for an ask with votes
        self.owner = self.pending = torch.empty(0, dtype=torch.int64)
        self.in_flight = 0  # rows that a forward under way will answer
        self.finished = False
        self.fruitless = 0  # asks in a row of which nothing could be admitted
        self.starved = False  # the run-wide limit left rows unanswered

    @property
    def idle(self) -> bool:
        """Whether the ask is answered, as far as it will be."""
        return not self.finished and len(self.pending) == 0 and self.in_flight == 0

    def advance(self, room: _Room) -> None:
        """Hand the answers over and take the next ask; stop when it cannot be answered at all."""
        accounts = self.job.accounts
        try:
            if self.ask is None:
                self.ask = next(self.generator)
            else:
                self.ask = self.generator.send(self._answer())
        except StopIteration:
            self.close(room)
            return
        rows, self.owner, self.tally = len(self.ask.owner), self.ask.owner, None
        if rows == 0:
            self.generator.close()
            raise InternalError("the attack asked no rows; return instead of asking nothing")
        if self.ask.votes != 1:
            self.tally = Tally(rows, self.ask.votes, self.ask.majority)
            self.owner = self.owner.repeat_interleave(self.ask.votes)
        owner = self.owner
        admitted, self.number = accounts.admit(owner, room.left, self.known)
        full = room.left is not None and bool((~admitted & accounts.active[owner]).any())
        self.starved |= full
        self.answered = torch.zeros(rows, dtype=torch.bool)
        self.adversarial = torch.zeros(rows, dtype=torch.bool)
        self.labels = torch.full((rows,), -1, dtype=torch.int64)
        self.scores: Tensor | None = None
        self.pending = admitted.nonzero()[:, 0]
        room.take(len(self.pending) - self._on_record())
        self.fruitless = 0 if len(self.pending) else self.fruitless + 1
        if self.fruitless and (full or not bool(accounts.active.any())):
            self.close(room)
        elif self.fruitless > _FRUITLESS:
            # Every other ask costs at least one row of a budget, so no attack can loop for ever.
            self.generator.close()
            raise InternalError(f"the attack asked {_FRUITLESS} times in a row for examples that are done")

    def _answer(self) -> Answer:
        return Answer(self.answered, self.adversarial, self.labels, self.scores)

    def close(self, room: _Room, reason: StopReason | None = None) -> None:
        """End the generator and give every example its stop reason; rows that were not asked are not spent."""
        self.generator.close()
        if len(self.pending):
            self.job.accounts.hand_back(self.owner[self.pending])
            room.take(-len(self.pending))
        self.job.accounts.settle()
        self.job.accounts.close("budget" if self.starved else reason)
        self.finished = True

    def rows(self, index: Tensor, oracle: Oracle) -> Batch:
        """Make these rows of the ask, as the target will see them."""
        if self.ask is None:
            raise InternalError("no ask is under way")
        source, again = self.ask.rows, None
        if self.tally is not None:  # copies lie side by side: make a row once
            index, again = torch.unique_consecutive(index // self.tally.votes, return_inverse=True)
        rows = pick(source, index) if isinstance(source, Tensor | Programs) else source(index)
        rows = oracle.admissible(rows)
        self.job.accounts.check(rows)
        return rows if again is None else pick(rows, again)

    def _old(self) -> Tensor:
        """Which pending rows the journal has answers to: (pending,) bool."""
        if self.known is None:
            return torch.zeros(len(self.pending), dtype=torch.bool)
        return self.number[self.pending] <= self.known[self.owner[self.pending]]

    def _on_record(self) -> int:
        return 0 if self.known is None else int(self._old().sum())

    def take_replayed(self) -> Tensor:
        """Split off the pending rows whose answers the journal holds: their numbers within the ask."""
        old = self._old()
        replayed, self.pending = self.pending[old], self.pending[~old]
        return replayed

    def take(self, most: int) -> Tensor:
        """Split off at most so many pending rows, for a forward: their numbers within the ask."""
        index, self.pending = self.pending[:most], self.pending[most:]
        self.in_flight += len(index)
        return index

    def book(self, index: Tensor, rows: Batch, labels: Tensor, scores: Tensor | None) -> None:
        """Book the answers to these rows of the ask."""
        owner, number = self.owner[index], self.number[index]
        if self.tally is not None:  # a row is booked by its vote, when its last copy is in
            self.job.accounts.failed[owner[labels == UNKNOWN]] = True
            self.tally.add(index, labels, scores if self.scores_wanted else None)
            last = self.tally.last(index)
            rows, owner, number = pick(rows, last.nonzero()[:, 0]), owner[last], number[last]
            index = index[last] // self.tally.votes
            labels, scores = self.tally.result(index, owner, self.job.accounts.goal)
        self.answered[index] = True
        if self.ask is not None and self.ask.probe:
            self.job.accounts.failed[owner[labels == UNKNOWN]] = True
        else:
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
    flights: deque[_Flight] = deque()
    room = _Room(oracle.left())
    deadline = None if time_limit is None else time.monotonic() + time_limit
    with ThreadPoolExecutor(1, "bbox-forward") as worker:
        try:
            while True:
                while sum(len(lane.job.problem) for lane in lanes) < side_by_side and (job := next(waiting, None)):
                    lanes.append(_Lane(job, attack, journal))
                if not lanes:
                    return
                for lane in lanes:
                    while lane.idle:
                        lane.job.accounts.settle()
                        lane.advance(room)
                        if not lane.finished:
                            _replay(lane, oracle)
                if deadline is not None and time.monotonic() > deadline:
                    while flights:
                        flights.popleft().land()
                    for lane in lanes:
                        lane.close(room, "time_limit")
                yield from (lane.job for lane in lanes if lane.finished)
                lanes = [lane for lane in lanes if not lane.finished]
                if not lanes:
                    continue
                # While one forward is under way, the answers of the one before are booked and new rows are made. The
                # second one takes off early only while plenty of rows wait, so that hardly any forward is not full.
                if not flights:
                    flights.append(_Flight(lanes, oracle, journal, worker))
                if len(flights) < 2 and sum(len(lane.pending) for lane in lanes) >= _PLENTY * oracle.max_batch:
                    flights.append(_Flight(lanes, oracle, journal, worker))
                flights.popleft().land()
                if on_forward is not None:
                    on_forward([lane.job for lane in lanes])
        except BaseException as error:
            worker.shutdown(wait=False, cancel_futures=True)
            for lane in lanes:
                lane.generator.close()
            if isinstance(error, TargetError):
                error.unfinished = [lane.job for lane in lanes]
            raise


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


class _Flight:
    """One forward under way, filled with pending rows, those of the lanes that wait for the fewest first."""

    def __init__(self, lanes: Sequence[_Lane], oracle: Oracle, journal: Journal | None, worker: Executor) -> None:
        self.parts: list[tuple[_Lane, Tensor, Batch]] = []
        room = oracle.max_batch
        for lane in sorted(lanes, key=lambda lane: len(lane.pending)):
            if room > 0 and len(lane.pending):
                index = lane.take(room)
                self.parts.append((lane, index, lane.rows(index, oracle)))
                room -= len(index)
        rows = [part for _, _, part in self.parts]
        joined = join(rows)
        examples = torch.cat([lane.job.examples[lane.owner[index]] for lane, index, _ in self.parts])
        numbers = torch.cat([lane.number[index] for lane, index, _ in self.parts])
        scores_wanted = any(lane.scores_wanted for lane, _, _ in self.parts)

        def ask() -> Answers:
            answers = oracle.ask(joined)
            if journal is not None:  # before anything else is asked: a kill loses one forward at most
                journal.append(examples, numbers, answers.labels, answers.scores if scores_wanted else None)
            return answers

        self.answers = worker.submit(ask)

    def land(self) -> None:
        """Wait for the answers and book them."""
        answers = self.answers.result()
        start = 0
        for lane, index, rows in self.parts:
            stop = start + len(index)
            scores = None if answers.scores is None else answers.scores[start:stop]
            lane.book(index, rows, answers.labels[start:stop], scores)
            lane.in_flight -= len(index)
            start = stop
