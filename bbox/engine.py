"""Drives attack generators over an oracle.

Examples are split into groups; each group is one run of the attack's generator. The groups run side by side: whatever
rows they wait for share forwards of ``max_batch`` rows (one group bisects while another estimates a normal), and a
group goes on as soon as its own rows are answered. Budget, best-so-far and traces are booked on the way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bbox.accounts import on_record
from bbox.batch import Batch, join, pick
from bbox.code.program import Programs
from bbox.errors import InternalError, TargetError
from bbox.oracle import UNKNOWN, Answers, Oracle, StopReason
from bbox.problem import ABSENT, Answer, Ask, Job, Journal, Pool, Problem, make_jobs
from bbox.votes import Tally

__all__ = ["Answer", "Ask", "Job", "Journal", "Pool", "Problem", "drive", "make_jobs"]

_FRUITLESS = 1000
_WORTH_A_CALL = 8  # rows: what waits is shared out among the calls that a live target bears, but not more finely
_AHEAD = 2**24  # bytes of rows made at once for a live target: its calls are small, and cost as much to make each
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


@dataclass
class _Part:
    """Some rows of a lane's ask, in a forward; ``answers`` once they are back."""

    index: Tensor
    rows: Batch
    old: Tensor  # (rows,) bool: answered from the journal
    answers: Answers | None = None

    def new_rows(self) -> Batch:
        """The rows that have no answer yet."""
        return pick(self.rows, (~self.old).nonzero()[:, 0]) if bool(self.old.any()) else self.rows


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
        self.held = None if self.replay is None else _held([labels for labels, _ in self.replay])
        self.ask: Ask | None = None
        self.tally: Tally | None = None  # for an ask with votes
        self.owner = self.pending = torch.empty(0, dtype=torch.int64)
        self.made: Batch | None = None  # the rows of the first of the pending, where they were made ahead
        self.parts: deque[_Part] = deque()  # under way, in the order of their rows
        self.finished = False
        self.fruitless = 0  # asks in a row of which nothing could be admitted
        self.starved = False  # the run-wide limit left rows unanswered

    @property
    def idle(self) -> bool:
        """Whether the ask is answered, as far as it will be."""
        return not self.finished and len(self.pending) == 0 and not self.parts

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
        admitted, self.number = accounts.admit(owner, room.left, self.held)
        full = room.left is not None and bool((~admitted & accounts.active[owner]).any())
        self.starved |= full
        self.answered = torch.zeros(rows, dtype=torch.bool)
        self.adversarial = torch.zeros(rows, dtype=torch.bool)
        self.labels = torch.full((rows,), -1, dtype=torch.int64)
        self.scores: Tensor | None = None
        self.pending = admitted.nonzero()[:, 0]
        room.take(len(self.pending) - int(self.old(self.pending).sum()))
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
            room.take(int(self.old(self.pending).sum()) - len(self.pending))
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

    def old(self, index: Tensor) -> Tensor:
        """Which of these rows of the ask the journal has answers to: bool."""
        if self.held is None:
            return torch.zeros(len(index), dtype=torch.bool)
        return on_record(self.held, self.owner[index], self.number[index])

    def take(self, most: int, oracle: Oracle) -> _Part:
        """Split off at most so many pending rows, for a forward."""
        made = self.made
        if made is None:
            made = self.rows(self.pending[: max(most, self._ahead(oracle))], oracle)
        most = min(most, len(made))
        index, self.pending = self.pending[:most], self.pending[most:]
        part = _Part(index, made[:most], self.old(index))
        self.made = made[most:] if len(made) > most else None
        self.parts.append(part)
        return part

    def _ahead(self, oracle: Oracle) -> int:
        """How many rows to make at once, if more than a forward takes."""
        originals = self.job.problem.originals
        if oracle.target.concurrency == 1 or not isinstance(originals, Tensor):
            return 0
        return _AHEAD // (4 * originals[0].numel())

    def land(self, part: _Part, asked: Answers) -> None:
        """Take the answers to the rows of a part that were asked. What is complete is booked in the order of the rows,
        whichever forward was the first to come back: a trace must not depend on the network."""
        part.answers = self._with_old(part, asked)
        while self.parts and (answers := self.parts[0].answers) is not None:
            done = self.parts.popleft()
            self.book(done.index, done.rows, answers.labels, answers.scores)

    def _with_old(self, part: _Part, asked: Answers) -> Answers:
        """The answers to all rows of a part, those that the journal holds among them."""
        if self.replay is None or not bool(part.old.any()):
            return asked
        owner, place = self.owner[part.index[part.old]], self.number[part.index[part.old]] - 1
        given = [(self.replay[o], p) for o, p in zip(owner.tolist(), place.tolist(), strict=True)]
        labels = torch.full((len(part.index),), ABSENT, dtype=torch.int64)
        labels[part.old] = torch.stack([known[p] for (known, _), p in given])
        labels[~part.old] = asked.labels
        kept = [scores[p] for (_, scores), p in given if scores is not None]
        if not kept:
            return Answers(labels, None)
        table = torch.full((len(labels), len(kept[0])), torch.nan)
        table[part.old] = torch.stack(kept)
        if asked.scores is not None and len(asked.labels):
            table[~part.old] = asked.scores
        return Answers(labels, table)

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
    slots = oracle.target.concurrency
    room = _Room(oracle.left())
    deadline = None if time_limit is None else time.monotonic() + time_limit
    with ThreadPoolExecutor(slots, "bbox-forward") as worker:
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
                while most := _rows_to_take(lanes, len(flights), slots, oracle.max_batch):
                    flights.append(_Flight(lanes, oracle, journal, worker, most))
                # With a limit for all, who is served must not depend on the network.
                if slots > 1 and room.left is None:
                    wait([flight.answers for flight in flights], return_when=FIRST_COMPLETED)
                    for flight in [flight for flight in flights if flight.answers.done()]:
                        flights.remove(flight)
                        flight.land()
                else:
                    flights.popleft().land()
                if on_forward is not None:
                    on_forward([lane.job for lane in lanes])
        except (TargetError, GeneratorExit) as error:  # what else is under way may be answered: it is journaled
            worker.shutdown(cancel_futures=True)
            if isinstance(error, TargetError):
                error.unfinished = [lane.job for lane in lanes]
            raise
        except BaseException:
            with oracle.abandoning():
                worker.shutdown(cancel_futures=True)
            raise
        finally:
            for lane in lanes:
                lane.generator.close()


def _rows_to_take(lanes: Sequence[_Lane], flying: int, slots: int, max_batch: int) -> int:
    """How many rows the next forward should take off with, 0 for none.

    Of a target on this machine one forward is under way while the answers of the one before are booked and new rows
    are made; the second takes off early only while plenty of rows wait, so that hardly any forward is not full. A live
    target gets as many calls as it bears, and what waits is shared out among them.
    """
    waiting = sum(len(lane.pending) for lane in lanes)
    if slots > 1:
        free = slots - flying
        return min(max_batch, waiting, max(_WORTH_A_CALL, -(-waiting // free))) if free else 0
    return max_batch if waiting and (not flying or (flying < 2 and waiting >= _PLENTY * max_batch)) else 0


def _held(labels: Sequence[Tensor]) -> Tensor:
    """Which queries of each example have an answer on record: (examples, most queries) bool."""
    held = torch.zeros((len(labels), max(len(known) for known in labels)), dtype=torch.bool)
    for row, known in zip(held, labels, strict=True):
        row[: len(known)] = known != ABSENT
    return held


def _replay(lane: _Lane, oracle: Oracle) -> None:
    """Answer from the journal what it holds, up to the first gap. Replayed rows are made and booked like any other."""
    while len(lane.pending):
        old = lane.old(lane.pending[: oracle.max_batch])
        unbroken = int(old.long().cumprod(0).sum())
        if unbroken == 0:
            return
        part = lane.take(unbroken, oracle)
        oracle.books["attack"].replayed += len(part.index)
        lane.land(part, _NOTHING)


_NOTHING = Answers(torch.empty(0, dtype=torch.int64), None)


class _Flight:
    """One forward under way, filled with pending rows, those of the lanes that wait for the fewest first."""

    def __init__(
        self, lanes: Sequence[_Lane], oracle: Oracle, journal: Journal | None, worker: Executor, most: int
    ) -> None:
        self.parts: list[tuple[_Lane, _Part]] = []
        for lane in sorted(lanes, key=lambda lane: len(lane.pending)):
            if most > 0 and len(lane.pending):
                part = lane.take(most, oracle)
                self.parts.append((lane, part))
                most -= len(part.index)
        asked = [(lane, part, part.index[~part.old]) for lane, part in self.parts if not bool(part.old.all())]
        oracle.books["attack"].replayed += sum(int(part.old.sum()) for _, part in self.parts)
        if not asked:
            self.answers: Future[Answers] = Future()
            self.answers.set_result(_NOTHING)
            return
        joined = join([part.new_rows() for _, part, _ in asked])
        examples = torch.cat([lane.job.examples[lane.owner[index]] for lane, _, index in asked])
        numbers = torch.cat([lane.number[index] for lane, _, index in asked])
        scores_wanted = any(lane.scores_wanted for lane, _, _ in asked)

        def ask() -> Answers:
            answers = oracle.ask(joined)
            if journal is not None:  # before anything else is asked: a kill loses what was under way at most
                journal.append(examples, numbers, answers.labels, answers.scores if scores_wanted else None)
            return answers

        self.answers = worker.submit(ask)

    def land(self) -> None:
        """Wait for the answers and book them."""
        answers = self.answers.result()
        start = 0
        for lane, part in self.parts:
            stop = start + int((~part.old).sum())
            scores = None if answers.scores is None else answers.scores[start:stop]
            lane.land(part, Answers(answers.labels[start:stop], scores))
            start = stop
