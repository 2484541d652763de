"""Adaptive attackers: wrappers that let any attack face a target that answers at random, or that refuses to answer.

A wrapper sees only the asks that the attack inside yields, so it works around any attack.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from bbox.attacks.base import Answer, Ask, Attack, Problem, Run
from bbox.batch import images
from bbox.errors import UsageError
from bbox.problem import Pool
from bbox.targets.base import REFUSED
from bbox.zo import fold, gaussian, rademacher

__all__ = ["Average", "Resample", "Wrapper"]

_Put: TypeAlias = Callable[[Ask], Generator[Ask, Answer, Answer]]

_STREAM = -11  # of an example's key, so that this noise and the attack's own never share a number
_LOWER = 0.8  # a probe's size over the size in use
_PATIENCE = 16  # most rounds between two probes
_WINDOW = 16  # most rows an example asks at once: what one alarm can cost (measured: fewer refusals than without)


@dataclass(frozen=True)
class Wrapper(Attack):
    """An attack around another one. What it needs to see and the distances it minimises are those of the inner one.

    Args:
        inner: the attack inside.
    """

    inner: Attack

    def __post_init__(self) -> None:
        if self.inner.access == "none":
            wrapper, inner = (type(made).__name__.lower() for made in (self, self.inner))
            raise UsageError(f"{inner} asks no target, so {wrapper} has nothing to repeat; name another attack")
        for name in ("takes", "motions", "access", "norms"):
            object.__setattr__(self, name, getattr(self.inner, name))

    def radius(self, problem: Problem) -> float | None:
        return self.inner.radius(problem)

    def ready(self, pool: Pool | None, device: torch.device) -> None:
        self.inner.ready(pool, device)


@dataclass(frozen=True)
class Average(Wrapper):
    """Ask each row several times and go by the vote: the answer to defenses that answer at random.

    The expectation over the target's randomness takes the place of one draw (EOT; Athalye, Carlini, Wagner,
    "Obfuscated gradients give a false sense of security", ICML 2018). Labels are voted on and scores are
    averaged (``bbox.votes``), and only the vote can make an adversarial example.

    Args:
        repeats: how often each row is asked.
        majority: the share of a row's answers that must be adversarial, and more, for it to count as adversarial. The
            closest of many rows at the border of one half are those that had luck; they do not hold when asked again
            (docs/adaptive-attacks.md). 0.9 of 8 is all of them.

    Queries: ``repeats`` times those of the attack inside, which plans with ``budget / repeats``; the budget is the
    same, and it holds to the query. A last row whose votes are cut off by it counts for nothing.

    Raises:
        UsageError: ``repeats`` is less than 1, or ``majority`` not from 0.5 to below 1.
    """

    repeats: int = 8
    majority: float = 0.9

    summary: ClassVar[str] = "asks each row several times and goes by the vote, against random answers (EOT)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeats < 1:
            raise UsageError(f"repeats is {self.repeats}, expected at least 1")
        if not 0.5 <= self.majority < 1:
            raise UsageError(f"majority is {self.majority:g}, expected 0.5 to below 1")

    def run(self, problem: Problem) -> Run:
        def share(queries: Any) -> Any:  # rounded up: what is left over is still asked, as a row that cannot be voted
            return -(-queries // self.repeats)

        inside = replace(problem, budget=share(problem.budget), remaining=lambda: share(problem.remaining()))

        def put(ask: Ask) -> Generator[Ask, Answer, Answer]:
            return (yield replace(ask, votes=ask.votes * self.repeats, majority=self.majority))

        yield from _relay(self.inner.run(inside), put)


@dataclass(frozen=True)
class Resample(Wrapper):
    """Ask a refused row again, moved by fresh noise of adapted size: the answer to stateful detectors.

    In the spirit of OARS (Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash, "Stateful Defenses for Machine Learning Models
    Are Not Yet Secure Against Black-box Attacks", CCS 2023): adapt and resample. There the attack's own step is
    adapted; here noise is added to whatever row the attack asks. The size is kept for each example. It grows twofold
    while rows are refused, and single rows probe a smaller size, more and more rarely where that is refused, so that
    it settles just above what the detector lets through. After a refusal one row alone is asked, then two, four, ...
    16 while they pass: a detector that would refuse a whole batch is met with few rows of it.

    The attack inside is given the answer to the row that was really asked, and that row is what counts as found. Where
    nothing is refused, nothing is changed. A detector that bans an account for good at its first alarm is not beaten.

    Args:
        tries: how often a row is asked; then the attack inside is told that it was refused (not adversarial).
        first: size of the first noise, standard deviation of a value over the range of values.
        largest: the size that it never exceeds.

    Queries: one a row, one more for each refusal and for each probe that is refused.

    Raises:
        UsageError: ``tries`` is less than 1, or not 0 < first <= largest.
    """

    tries: int = 8
    first: float = 0.004
    largest: float = 0.125

    summary: ClassVar[str] = "asks refused rows again with noise of adapted size, against stateful detectors (OARS)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.takes != "images":
            raise UsageError("resample moves a refused image a little, and programs cannot be moved so; leave it out")
        if self.tries < 1:
            raise UsageError(f"tries is {self.tries}, expected at least 1")
        if not 0 < self.first <= self.largest:
            raise UsageError(f"first is {self.first:g} and largest {self.largest:g}, expected 0 < first <= largest")

    def run(self, problem: Problem) -> Run:
        yield from _relay(self.inner.run(problem), _Resampler(problem, self).put)


def _relay(search: Run, put: _Put) -> Run:
    """Run an attack, with each of its asks answered by ``put``."""
    talk: Any = search
    with closing(search):
        answer: Answer | None = None
        while True:
            try:
                ask = talk.send(answer)
            except StopIteration:
                return
            answer = yield from put(ask)


class _Resampler:
    """What a ``Resample`` has learnt of its examples.

    Shapes (n examples, on the CPU):
        size: (n,) float32, the noise in use; window: (n,) int64, rows that are asked at once; wait: (n,) int64, rounds
        until a smaller size is probed; patience: (n,) int64, rounds between probes; asked: (n,) int64, rows so far.
    """

    def __init__(self, problem: Problem, options: Resample) -> None:
        n = len(problem)
        self.problem, self.options = problem, options
        self.radius = options.radius(problem)
        self.size = torch.zeros(n)
        self.window, self.patience = torch.ones(n, dtype=torch.int64), torch.ones(n, dtype=torch.int64)
        self.wait, self.asked = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)

    def put(self, ask: Ask) -> Generator[Ask, Answer, Answer]:
        """Ask the rows of ``ask`` in rounds until each is answered, given up, or out of budget."""
        m = len(ask.owner)
        answered, adversarial = torch.zeros(m, dtype=torch.bool), torch.zeros(m, dtype=torch.bool)
        labels, tried = torch.full((m,), -1, dtype=torch.int64), torch.zeros(m, dtype=torch.int64)
        scores: Tensor | None = None
        todo = torch.arange(m)
        while len(todo):
            rank = _rank(ask.owner[todo])
            now = rank < self.window[ask.owner[todo]]
            part, rank = todo[now], rank[now]
            owner = ask.owner[part]
            probe = (rank == 0) & (self.wait[owner] == 0) & (self.size[owner] > 0) & (tried[part] == 0)
            rows = self._moved(ask, part, rank, self._sizes(owner, probe))
            answer = yield replace(ask, rows=rows, owner=owner)
            answered[part], adversarial[part], labels[part] = answer.answered, answer.adversarial, answer.labels
            if answer.scores is not None:
                scores = torch.full((m, answer.scores.shape[1]), torch.nan) if scores is None else scores
                scores[part] = answer.scores
            refused = answer.answered & (answer.labels == REFUSED)
            self._learn(owner, probe, refused, answer.answered)
            tried[part] += 1
            again = torch.ones(m, dtype=torch.bool)
            again[part] = refused & (tried[part] < self.options.tries)
            spent = torch.zeros(len(self.size), dtype=torch.bool)
            spent[owner[~answer.answered]] = True
            todo = todo[again[todo] & ~spent[ask.owner[todo]]]
        return Answer(answered, adversarial, labels, scores)

    def _sizes(self, owner: Tensor, probe: Tensor) -> Tensor:
        """The size of each row's noise; a probe of less than half the first size is one of none. Shapes: (k,)."""
        lower = self.size[owner] * _LOWER
        lower = torch.where(lower < self.options.first / 2, 0.0, lower)
        return torch.where(probe, lower, self.size[owner])

    def _moved(self, ask: Ask, part: Tensor, rank: Tensor, size: Tensor) -> Callable[[Tensor], Tensor]:
        """A function that makes the rows of this part, moved within the domain."""
        owner, source, domain = ask.owner[part], ask.rows, self.problem.domain
        device = self.problem.originals.device
        keys = fold(self.problem.keys[owner.to(device)], _STREAM)
        keys = fold(keys, (self.asked[owner] + rank).to(device))
        self.asked += torch.bincount(owner, minlength=len(self.asked))

        def make(index: Tensor) -> Tensor:
            chosen = part[index]
            rows = source(chosen) if callable(source) else images(source)[chosen.to(device)]
            much = size[index]
            if not bool(much.any()):
                return rows
            much = much.to(device).view(-1, *[1] * (rows.ndim - 1))
            # For linf, signs: every value moves by the same size, the most for the distance.
            draw = rademacher if domain.norm == "linf" else gaussian
            noise = draw(keys[index.to(device)], rows[0].numel()).view_as(rows)
            origin = self.problem.originals[owner[index].to(device)]
            moved = domain.clip(rows + domain.width * much * noise, origin)
            if self.radius is not None:
                moved = domain.pull(origin, moved, self.radius)
            return torch.where(much > 0, moved, rows)

        return make

    def _learn(self, owner: Tensor, probe: Tensor, refused: Tensor, answered: Tensor) -> None:
        """Adapt size, window and probing to a round's answers. Shapes: all (k,)."""

        def of(rows: Tensor) -> Tensor:
            return torch.bincount(owner[rows], minlength=len(self.size)) > 0

        alarm, passed = of(refused & ~probe), of(answered & ~refused)
        lower, no_lower = of(probe & answered & ~refused), of(probe & refused)
        grown = (2 * self.size).clamp(self.options.first, self.options.largest)
        least = _LOWER * self.size
        least = torch.where(least < self.options.first / 2, 0.0, least)
        self.size = torch.where(alarm, grown, torch.where(lower, least, self.size))
        self.window = torch.where(alarm, 1, torch.where(passed, (2 * self.window).clamp(max=_WINDOW), self.window))
        self.patience = torch.where(no_lower, 2 * self.patience, torch.where(lower, self.patience // 2, self.patience))
        self.patience.clamp_(1, _PATIENCE)
        self.wait = torch.where(no_lower | alarm, self.patience, (self.wait - of(answered).long()).clamp(min=0))


def _rank(owner: Tensor) -> Tensor:
    """Each row's place among the rows of the same owner, from 0: (m,) int64."""
    order = owner.argsort(stable=True)
    ordered = owner[order]
    rank = torch.empty_like(owner)
    rank[order] = torch.arange(len(owner)) - torch.searchsorted(ordered, ordered)
    return rank
