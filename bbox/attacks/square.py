"""Square Attack: random search with square-shaped updates (Andriushchenko, Croce, Flammarion, Hein; ECCV 2020;
arXiv 1912.00049).

The perturbation always lies on the surface of the epsilon ball (clipped to the box). A step changes one square of it
and is kept if the loss falls. It needs scores, one query a step, and ends with the first adversarial row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.attacks.base import Answer, Ask, Attack, Problem, Run
from bbox.attacks.losses import Loss, are_probabilities, as_logits, margin, reflected, scale_free
from bbox.attacks.squares import move_mass, recolour, row_marks, side_of, stripes, tiles
from bbox.domain import l2
from bbox.errors import UsageError
from bbox.zo import fold

__all__ = ["Square"]

_DRAWS = 64  # for a row that was not asked yet; an example without one is exhausted
_FAIR_DRAWS = 8  # after so many, squares get smaller and pile up on one another


@dataclass(frozen=True)
class Square(Attack):
    """Square Attack (linf: algorithms 1 and 2; l2: algorithms 1 and 3), at a fixed epsilon.

    Differs from the public code where that wastes queries or rows (docs/square.md): no row is ever asked twice,
    squares reach the last row and column, each example has its own places and its own randomness.

    Args:
        epsilon: radius of the ball; 0 = 0.3 (linf, one channel), 8/255 (linf, else), 2 (l2, one channel),
            5 (l2, more than 64 pixels a side), 0.5 (l2, else); for motions, the radius of the tube.
        p_init: share of the pixels that a square covers at first (the public code names 0.05 for linf and 0.1 for l2 as
            standard, and more for robust models). It is halved at 0.1, 0.5, 2, 5, 10, 20, 40, 60, 80% of the budget.
        loss: margin (as published); scale-free: margin over the spread of the scores of a row, for targets that
            scale or flatten their scores; reverse: for AAA, which turns the margin round within intervals.
        period: length of the intervals, for loss reverse (4 is AAA's default).
        restarts: parts of the budget that start anew.

    The losses. Probabilities are turned into logits by the log first, so ``margin`` is the same for both.
    ``scale-free`` defeats whatever multiplies a row's logits by a positive number or shifts them (random logit scaling,
    temperature, confidence calibration). It cannot defeat what reorders margins between rows: AAA, noise, rounding.
    ``reverse`` mirrors the margin within [k period, (k + 1) period), which undoes AAA's linear reversal for every
    strength of it, where ``period`` is the defense's interval; elsewhere it misleads. It is for untargeted attacks.

    Queries: one a step; the start is a step. Against targets that answer at random: ``average:square``.
    """

    epsilon: float = 0.0
    p_init: float = 0.8
    loss: Loss = "margin"
    period: float = 4.0
    restarts: int = 1

    access: ClassVar = "scores"
    motions: ClassVar = ("linf",)
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    summary: ClassVar[str] = "score-based random search with squares, linf and l2 (ECCV 2020)"

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise UsageError(f"epsilon is {self.epsilon:g}, expected 0 (by image shape) or more")
        if not 0 < self.p_init <= 1:
            raise UsageError(f"p_init is {self.p_init:g}, expected more than 0 and at most 1")
        if self.period <= 0:
            raise UsageError(f"period is {self.period:g}, expected more than 0")
        if self.restarts < 1:
            raise UsageError(f"restarts is {self.restarts}, expected at least 1")

    def radius(self, problem: Problem) -> float:
        """``epsilon``, or the default of the norm and the image shape."""
        if self.epsilon == 0 and problem.originals.ndim == 5:
            return problem.domain.width / 2  # the tube itself
        return self.epsilon or default_epsilon(problem.domain.norm, problem.originals.shape[1:])

    def run(self, problem: Problem) -> Run:
        whole = problem.originals.shape[1:]
        if len(whole) not in (3, 4):
            raise UsageError(f"square attacks images (channels, height, width), not inputs of shape {tuple(whole)}")
        # A motion is a picture of axes x frames x joints: the first stripes are offsets that no joint loses over time.
        shape = problem.originals.flatten(3).shape[1:]
        if self.loss == "reverse" and problem.goal.targeted:
            raise UsageError("loss reverse is for untargeted attacks; give --loss margin or scale-free")
        steps = -(-problem.budget // self.restarts)
        search = _Search(problem, self.radius(problem))
        number = 0
        while len(search):
            step = number % steps
            side = side_of(self.p_init, step, steps, *shape[1:])
            rows = search.propose(number, side, start=step == 0)
            if len(search):
                answer = yield Ask(rows.view(-1, *whole), search.owner)
                search.learn(rows, answer, self._losses(search, answer))
            number += 1

    def _losses(self, search: _Search, answer: Answer) -> Tensor:
        """The loss of each row, infinite where there is no answer. Shapes: (n,) float64."""
        usable = answer.answered & (answer.labels >= 0)
        if answer.scores is None:
            if bool(usable.any()):
                raise UsageError("square needs scores, and the target answers labels only")
            return torch.full((len(usable),), torch.inf, dtype=torch.float64)
        goal = search.problem.goal
        labels = goal.labels[search.owner]
        logits = as_logits(answer.scores, search.read_probabilities(answer.scores, usable))
        if self.loss == "scale-free":
            losses = scale_free(logits, labels, goal.targeted)
        else:
            losses = margin(logits, labels, goal.targeted)
        if self.loss == "reverse":
            losses = reflected(losses, self.period)
        return losses.masked_fill(~usable | losses.isnan(), torch.inf)


def default_epsilon(norm: str, shape: torch.Size) -> float:
    """linf: 0.3 is MNIST's, 8/255 CIFAR's and ImageNet's usual radius; l2: 2 and 5 are the paper's for MNIST and
    ImageNet, 0.5 is RobustBench's for CIFAR."""
    if norm == "linf":
        return 0.3 if shape[0] == 1 else 8 / 255
    if max(shape[1:]) > 64:
        return 5.0
    return 2.0 if shape[0] == 1 else 0.5


class _Search:
    """Where the examples of a group stand. Finished ones are compacted away.

    Every example left has asked the same number of rows, so they share the size of their squares.

    Shapes (n examples left):
        owner, value, probabilities: (n,) on the CPU: loss of the best row; whether scores are probabilities (-1: not
        seen yet). origin, best, low, high: (n, *shape), the last two the ends of the linf ball. asked: (n, capacity)
        int64, marks of the rows asked so far, the original's first.
    """

    _COMPACTED_HERE = ("owner", "value", "probabilities")
    _COMPACTED_THERE = ("keys", "origin", "best", "low", "high", "asked")

    def __init__(self, problem: Problem, epsilon: float) -> None:
        self.problem, self.epsilon = problem, epsilon
        self.owner = torch.arange(len(problem))
        self.value = torch.full((len(problem),), torch.inf, dtype=torch.float64)
        self.probabilities = torch.full((len(problem),), -1, dtype=torch.int8)
        self.keys = problem.keys
        self.origin = self.best = problem.originals.flatten(3)
        self.low, self.high = (end.flatten(3) for end in problem.domain.linf_ball(problem.originals, epsilon))
        dim = torch.arange(self.origin[0].numel(), device=self.origin.device)
        self._weights = fold(dim, 0) | 1
        self.asked = row_marks(self.origin, self._weights)[:, None]
        self.count = 1

    def __len__(self) -> int:
        return len(self.owner)

    def propose(self, number: int, side: int, *, start: bool) -> Tensor:
        """Rows that were never asked, one an example; examples that have none left are dropped."""
        if start:
            self.value.fill_(torch.inf)
        keys = fold(self.keys, number)
        everyone = torch.arange(len(self), device=keys.device)
        rows = self._draw(fold(keys, 0), everyone, self.best, side, start)
        marks = row_marks(rows, self._weights)
        old = self._seen(marks, everyone)
        for attempt in range(1, _DRAWS):
            part = everyone[old]
            if len(part) == 0:
                break
            pile = attempt >= _FAIR_DRAWS
            smaller = max(1, side >> (attempt // _FAIR_DRAWS))
            base = rows[part] if pile else self.best[part]
            rows[part] = self._draw(fold(keys[part], attempt), part, base, smaller, start and not pile)
            marks[part] = row_marks(rows[part], self._weights)
            old[part] = self._seen(marks[part], part)
        if self.count == self.asked.shape[1]:
            self.asked = torch.nn.functional.pad(self.asked, (0, self.count))
        self.asked[:, self.count] = marks
        self.count += 1
        self._keep(~old.cpu())
        return rows[~old]

    def _seen(self, marks: Tensor, part: Tensor) -> Tensor:
        return (self.asked[part, : self.count] == marks[:, None]).any(1)

    def learn(self, rows: Tensor, answer: Answer, losses: Tensor) -> None:
        """Keep what lowers the loss; finish the examples that are adversarial within epsilon."""
        better = losses < self.value
        self.value = torch.where(better, losses, self.value)
        there = better.to(rows.device)
        self.best = torch.where(there.view(-1, 1, 1, 1), rows, self.best)
        if bool(answer.adversarial.any()):
            self.problem.finish(self.epsilon)
        self._keep(answer.answered & (self.problem.remaining()[self.owner] > 0))

    def read_probabilities(self, scores: Tensor, usable: Tensor) -> Tensor:
        """Whether each example's scores are probabilities: (n,) bool. Its first usable answer says so for good, since
        losses of one example are compared with each other."""
        first = usable & (self.probabilities < 0)
        self.probabilities[first] = are_probabilities(scores[first]).to(torch.int8)
        return self.probabilities == 1

    def _keep(self, keep: Tensor) -> None:
        if bool(keep.all()):
            return
        for name in self._COMPACTED_HERE:
            setattr(self, name, getattr(self, name)[keep])
        there = keep.to(self.keys.device)
        for name in self._COMPACTED_THERE:
            setattr(self, name, getattr(self, name)[there])

    # --- rows ----------------------------------------------------------------------------------------------------

    def _draw(self, keys: Tensor, part: Tensor, base: Tensor, side: int, start: bool) -> Tensor:
        """A start, or ``base`` with a square changed, for the examples ``part``: (part, *shape)."""
        if self.problem.domain.norm == "linf":
            low, high = self.low[part], self.high[part]
            return stripes(keys, low, high) if start else recolour(keys, base, low, high, side)
        origin = self.origin[part]
        delta = tiles(keys, origin.shape) if start else move_mass(keys, base.double() - origin, side, self.epsilon)
        return self._onto_sphere(origin, delta)

    def _onto_sphere(self, origin: Tensor, delta: Tensor) -> Tensor:
        """origin + delta at length epsilon, clipped to the box; float32, within the ball after its rounding."""
        length = l2(delta).clamp(min=1e-10)
        scale = (self.epsilon * (1 - 1e-6) / length).view(-1, 1, 1, 1)
        return self.problem.domain.inward(origin, self.problem.domain.clip(origin + delta * scale, origin))
