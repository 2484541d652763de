"""Training a prompter by queries: SPSA-GC and its relatives, with a guard, under an exact budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypedDict

import torch
from torch import Tensor

from bbox.defenses.blackvip.objective import Objective
from bbox.defenses.blackvip.prompters import Prompter
from bbox.errors import InputError, UsageError
from bbox.oracle import Purpose
from bbox.zo import SPSA, Adam, Descent, Gains, GradientCorrection, clip_estimate

__all__ = [
    "Course",
    "Evaluator",
    "Fused",
    "Labelled",
    "Optimizer",
    "Schedule",
    "Trained",
    "batch_sizes",
    "calls_of",
    "train",
]

Optimizer = Literal["spsa-gc", "spsa", "adam", "cma-es"]
_PATIENCE = 10  # steps that the running loss is averaged over


@dataclass(frozen=True)
class Labelled:
    """Images, their labels, and what the prompter needs to know of each, computed once.

    Shapes:
        images: (n, channels, height, width) in [0, 1]; labels: (n,) int64; context: (n, features).
    """

    images: Tensor
    labels: Tensor
    context: Tensor

    def __len__(self) -> int:
        return len(self.images)


class Evaluator(Protocol):
    """Where the losses of a step come from: one process, or workers that share the seed."""

    def values(self, step: int, weights: Tensor, batch: Tensor, width: float) -> Tensor:
        """The mean loss at each point of the step: (evaluations,) float64, NaN for what was lost.

        Shapes:
            weights: (dim,); batch: (n,) int64 rows of the training data, on the CPU.
        """

    def calls(self, evaluations: int, batch: int) -> int:
        """Calls that so many points of a batch of this size take."""


@dataclass(frozen=True)
class Schedule:
    """How a prompter is trained; see ``bbox.defenses.blackvip.BlackVIP`` for what each means."""

    spsa: SPSA
    gains: Gains
    batch: int
    optimizer: Optimizer = "spsa-gc"
    momentum: float = 0.9
    clip: bool = True
    scale: float = 1.0
    averaging: float = 0.9
    guard: float = 2.0

    def descent(self) -> Descent:
        """A fresh optimiser."""
        if self.optimizer == "adam":
            return Adam(self.momentum)
        return GradientCorrection(self.momentum if self.optimizer == "spsa-gc" else 0.0)


class Fused:
    """Evaluates all points of a step in as few calls as the oracle's batch allows."""

    def __init__(
        self, prompter: Prompter, data: Labelled, objective: Objective, spsa: SPSA, seed: int, purpose: Purpose
    ) -> None:
        self.prompter, self.data, self.objective = prompter, data, objective
        self.spsa, self.seed, self.purpose = spsa, seed, purpose

    def values(self, step: int, weights: Tensor, batch: Tensor, width: float) -> Tensor:
        return self.at(self.points(step, weights, width), batch)

    def points(self, step: int, weights: Tensor, width: float) -> Tensor:
        """Where a step asks: (evaluations, dim)."""
        directions = self.spsa.directions(self.seed, step, len(weights), device=weights.device)
        return self.spsa.points(weights, directions, width)

    def at(self, points: Tensor, batch: Tensor, purpose: Purpose | None = None) -> Tensor:
        """The mean loss of a batch at any points. Shapes: points (m, dim), batch (n,); returns (m,) float64."""
        data, place = self.data, batch.to(self.data.images.device)
        images, context, labels = data.images[place], data.context[place], data.labels[place]
        together = max(1, self.objective.books.oracle.max_batch // len(batch))
        parts = []
        for some in torch.split(points, together):
            rows = self.prompter.rows(some, images, context).flatten(0, 1)
            losses = self.objective.losses(rows, labels.repeat(len(some)), purpose or self.purpose)
            parts.append(losses.cpu().double().view(len(some), -1).nanmean(1))
        return torch.cat(parts)

    def calls(self, evaluations: int, batch: int) -> int:
        """See ``Evaluator.calls``."""
        return calls_of(evaluations, batch, self.objective.books.oracle.max_batch)


class Course(TypedDict):
    """The arguments of ``train`` that settle what it does with the values, for replicas in other processes."""

    schedule: Schedule
    sizes: list[int]
    start: Tensor
    count: int
    seed: int
    reference: float


@dataclass
class Trained:
    """What a training has come to.

    Attributes:
        weights: the last ones, averaged where the schedule says so.
        steps: taken; losses: the running loss after each; rollbacks: how often the guard went back.
        coefficients: of the estimates, a row a step: with the seed they replay the run without a query.
    """

    weights: Tensor
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    rollbacks: int = 0
    coefficients: list[list[float]] = field(default_factory=list)


def calls_of(evaluations: int, batch: int, most: int) -> int:
    """Calls of at most ``most`` rows that so many points of a batch take, where whole points are asked together.

    >>> calls_of(5, 10, 25)  # two points a call
    3
    """
    together = max(1, most // batch)
    full, rest = divmod(evaluations, together)
    return full * math.ceil(together * batch / most) + math.ceil(rest * batch / most)


def batch_sizes(queries: int, evaluations: int, batch: int, most: int) -> list[int]:
    """Spread a budget evenly over steps: the images of each step, which differ by one at most.

    >>> batch_sizes(1000, 6, 32, 160)  # 996 queries in five steps; the other 4 do not make an image more
    [34, 33, 33, 33, 33]
    """
    images = queries // evaluations
    steps = max(1, round(images / batch)) if images else 0
    steps = max(steps, math.ceil(images / most)) if images else 0
    base, more = divmod(images, steps) if steps else (0, 0)
    return [base + 1] * more + [base] * (steps - more)


def train(
    prompter: Prompter,
    evaluator: Evaluator,
    schedule: Schedule,
    sizes: list[int],
    *,
    start: Tensor,
    count: int,
    seed: int,
    reference: float,
    affords: Callable[[int], bool] = lambda _: True,
    checkpoint: Callable[[int, Tensor], None] = lambda *_: None,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Trained:
    """Lower the loss by estimates from whole losses alone (Oh et al. 2023, algorithm 1).

    Queries: ``evaluations`` * sum(sizes).

    Args:
        sizes: images of each step.
        count: training images there are.
        reference: the zero-shot loss, which the guard compares the running loss to.
        affords: whether a step with so many images is still within the budget of calls.
        checkpoint: called with (step, weights) four times on the way and at the end.

    Raises:
        InputError: none of a step's answers can be used.
    """
    if schedule.optimizer == "cma-es":
        return _evolve(evaluator, schedule, sizes, start, count, seed, affords, checkpoint, report)
    spsa, gains, descent = schedule.spsa, schedule.gains, schedule.descent()
    generator = torch.Generator().manual_seed(seed)
    weights, mean = start, start
    found = Trained(start)
    running, best, best_loss, slower = reference, start, math.inf, 1.0
    marks = _marks(len(sizes))
    for step, size in enumerate(sizes, 1):
        if not affords(size):
            break
        batch = torch.randperm(count, generator=generator)[:size]
        width = gains.width(step)
        values = evaluator.values(step, weights, batch, width)
        coefficients = spsa.coefficients(values, width)
        usable = coefficients.isfinite()
        if not bool(usable.any()):
            raise InputError(f"none of the answers in step {step} can be used (not finite, or no class)")
        directions = spsa.directions(seed, step, len(weights), device=weights.device)
        # A direction whose answers were lost is left out, not counted as flat.
        estimate = schedule.scale * spsa.gradient(coefficients[usable], directions[usable.to(weights.device)])
        estimate = clip_estimate(estimate) if schedule.clip else estimate
        weights = descent.step(weights, estimate, slower * gains.rate(step))
        judged = mean  # the loss is that of the weights before this step
        keep = min(schedule.averaging, step / (step + 1))
        mean = keep * mean + (1 - keep) * weights
        loss = float((values[:1] if spsa.sides == 1 else values).nanmean())
        if step == 1 and not prompter.starts_clean:
            reference = max(reference, loss)  # a random start is worse than no prompt, and is no divergence
        running += (loss - running) / min(step, _PATIENCE) if math.isfinite(loss) else 0.0
        found.coefficients.append(coefficients.tolist())
        found.losses.append(running)
        found.steps = step
        if running < best_loss:
            best, best_loss = judged, running
        if schedule.guard and step >= _PATIENCE and running > schedule.guard * reference + 0.1:
            weights = mean = best
            running, slower = min(best_loss, reference), slower / 2
            found.rollbacks += 1
            descent.forget()
        report(step, len(sizes))
        if step in marks:
            checkpoint(step, mean)
    found.weights = mean
    return found


def _marks(steps: int) -> set[int]:
    """Steps after which weights are judged: the quarters and the end."""
    return {math.ceil(steps * part / 4) for part in (1, 2, 3, 4)}


def _evolve(
    evaluator: Evaluator,
    schedule: Schedule,
    sizes: list[int],
    start: Tensor,
    count: int,
    seed: int,
    affords: Callable[[int], bool],
    checkpoint: Callable[[int, Tensor], None],
    report: Callable[[int, int], None],
) -> Trained:
    """CMA-ES (Hansen 2016) with as many points a generation as SPSA has evaluations, for comparison."""
    from bbox.zo.evolution import Evolution

    if not isinstance(evaluator, Fused):
        raise UsageError("cma-es runs in one process; leave out workers")
    generator = torch.Generator().manual_seed(seed)
    search = Evolution(start.cpu(), schedule.gains.c, schedule.spsa.evaluations, seed)
    found, marks = Trained(start), _marks(len(sizes))
    for step, size in enumerate(sizes, 1):
        if not affords(size):
            break
        batch = torch.randperm(count, generator=generator)[:size]
        values = evaluator.at(search.ask().to(start), batch)
        search.tell(values.nan_to_num(nan=math.inf))
        found.weights, found.steps = search.mean.to(start), step
        found.losses.append(float(values.nanmean()))
        report(step, len(sizes))
        if step in marks:
            checkpoint(step, found.weights)
    return found
