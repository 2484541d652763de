"""Drives the searches of a group of programs side by side: what they ask shares one ask, and is remembered."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bbox.attacks.alert.objective import Objective, values
from bbox.attacks.alert.space import Mask, Reply, Row, Search, Space
from bbox.attacks.base import Answer, Ask, Problem, Run
from bbox.code.program import Program, Programs

__all__ = ["Example", "together"]

_IDLE = 1000  # asks in a row that memory answers: a search that does no more is closed
_REFUSED = Reply(adversarial=False, value=float("inf"))


class Example:
    """One program's search: the rows it waits for, and the answers to all programs it ever asked."""

    def __init__(self, space: Space, search: Search[object]) -> None:
        self.space = space
        self.rows: Sequence[Row] = ()
        self.repeats = 0  # rows answered from memory since it was last taken
        self._search = search
        self._programs: list[Program | None] = []
        self._memory: dict[tuple[bool, Program], Reply] = {}
        self._idle = 0
        self.done = False
        self._send(None)

    @property
    def probes(self) -> bool:
        """Whether what it waits for are masks, which only measure."""
        return bool(self.rows) and isinstance(self.rows[0], Mask)

    def wanted(self) -> list[Program]:
        """Programs that are not known yet, each once; where all are known, the search goes on by itself."""
        while not self.done:
            known = [program is None or (self.probes, program) in self._memory for program in self._programs]
            fresh = [program for program, old in zip(self._programs, known, strict=True) if not old]
            unique = [program for program in dict.fromkeys(fresh) if program is not None]
            if unique:
                self._idle = 0
                self.repeats += sum(program is not None for program in self._programs) - len(unique)
                return unique
            self._idle += 1
            self.repeats += sum(program is not None for program in self._programs)
            if self._idle > _IDLE:
                self.close()
            else:
                self._send(self._replies())
        return []

    def learn(self, programs: Sequence[Program], replies: Sequence[Reply | None]) -> None:
        """Hand over answers; one that is missing means that the budget is spent, and ends the search."""
        for program, reply in zip(programs, replies, strict=True):
            if reply is None:
                self.close()
                return
            self._memory[self.probes, program] = reply
        self._send(self._replies())

    def close(self) -> None:
        self._search.close()
        self.done = True

    def _replies(self) -> list[Reply]:
        probes = self.probes
        return [_REFUSED if program is None else self._memory[probes, program] for program in self._programs]

    def _send(self, replies: list[Reply] | None) -> None:
        try:
            self.rows = next(self._search) if replies is None else self._search.send(replies)
        except StopIteration:
            self.done = True
        else:
            self._programs = [self.space.render(row) for row in self.rows]


def together(problem: Problem, examples: Sequence[Example], objective: Objective) -> Run:
    """Run the searches of a problem's examples to their ends; choices and masks are asked apart."""
    while True:
        waiting = [
            (owner, wanted, example.probes) for owner, example in enumerate(examples) if (wanted := example.wanted())
        ]
        repeats = torch.tensor([example.repeats for example in examples])
        if bool(repeats.any()):
            problem.repeat(torch.arange(len(examples)).repeat_interleave(repeats))
        for example in examples:
            example.repeats = 0
        if not waiting:
            return
        for probe in (False, True):
            part = [(owner, wanted) for owner, wanted, masked in waiting if masked == probe]
            if not part:
                continue
            owner = torch.tensor([owner for owner, wanted in part for _ in wanted])
            rows = Programs(program for _, wanted in part for program in wanted)
            answer = yield Ask(rows, owner, probe=probe)
            replies = iter(_read(problem, owner, answer, objective))
            for number, wanted in part:
                examples[number].learn(wanted, [next(replies) for _ in wanted])


def _read(problem: Problem, owner: torch.Tensor, answer: Answer, objective: Objective) -> list[Reply | None]:
    goal = problem.goal
    if answer.scores is None:
        found = torch.zeros(len(owner), dtype=torch.float64)
    else:
        found = values(answer.scores, goal.labels[owner], objective, targeted=goal.targeted)
    found = found.masked_fill(answer.labels < 0, torch.inf)
    parts = zip(answer.answered.tolist(), answer.adversarial.tolist(), found.tolist(), strict=True)
    return [Reply(adversarial, value) if answered else None for answered, adversarial, value in parts]
