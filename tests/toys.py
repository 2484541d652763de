"""Toy targets that meter themselves, and short ways to run an attack on them.

Every toy is a ``Target`` of its own that counts and hashes the rows it is given: a meter that shares no line with the
oracle. ``Quadratic`` computes in int64, so that each row's answer is exact and cannot depend on the batch around it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbox.attacks import ATTACKS, Attack, make_attack
from bbox.attacks.options import takes
from bbox.defenses.randomness import RowKeys
from bbox.domain import Box
from bbox.engine import Job, Pool, drive, make_jobs
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.problem import ABSENT
from bbox.targets import Target
from bbox.targets.base import REFUSED
from bbox.zo import gaussian, root_keys

CLASSES = 4
IMAGE_ATTACKS = tuple(name for name in ATTACKS.names() if takes(name) == "images")


class Toy(Target):
    """Counts and hashes rows, then answers by ``answer``."""

    def __init__(self, shape: Sequence[int] = (1, 8, 8), classes: int | None = CLASSES, access: str = "scores") -> None:
        self.name = type(self).__name__
        self.input_shape = tuple(shape)
        self.num_classes = classes
        self.access = access
        self.rows = 0
        self.batches: list[int] = []
        self.seen: list[bytes] = []
        self._alone = threading.Lock()

    def __call__(self, rows: Tensor) -> Tensor:
        if not self._alone.acquire(blocking=False):
            raise RuntimeError("two forwards at once")
        try:
            self.rows += len(rows)
            self.batches.append(len(rows))
            self.seen.extend(row_hash(row) for row in rows)
            scores = self.answer(rows)
        finally:
            self._alone.release()
        return scores.argmax(1) if self.access == "labels" else scores

    def answer(self, rows: Tensor) -> Tensor:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return self.name

    def counts(self) -> Counter[bytes]:
        return Counter(self.seen)


def row_hash(row: Tensor) -> bytes:
    return hashlib.blake2b(row.contiguous().numpy().tobytes(), digest_size=8).digest()


class Quadratic(Toy):
    """Class k scores b_k - a_k ||x - p_k||^2, in integers: curved boundaries, exact answers."""

    def __init__(self, shape: Sequence[int] = (1, 8, 8), classes: int = CLASSES, access: str = "scores") -> None:
        super().__init__(shape, classes, access)
        generator = torch.Generator().manual_seed(len(self.input_shape) + sum(self.input_shape))
        self.centres = 0.2 + 0.6 * torch.rand(classes, *shape, generator=generator)
        self._centres = self._integers(self.centres).flatten(1)
        self._weights = 4 + torch.arange(classes) % 2

    @staticmethod
    def _integers(rows: Tensor) -> Tensor:
        return (rows.double() * (1 << 20)).round().long()

    def answer(self, rows: Tensor) -> Tensor:
        gaps = self._integers(rows).flatten(1)[:, None] - self._centres
        scores = -self._weights * gaps.square().sum(2)
        return (scores - scores.amax(1, keepdim=True)).float()  # the best is exactly 0, so float32 makes no ties


class Constant(Toy):
    """Always class 0."""

    def answer(self, rows: Tensor) -> Tensor:
        return torch.eye(CLASSES)[:1].repeat(len(rows), 1)


class Random(Toy):
    """Random scores, another draw for every row it is given."""

    def __init__(self, shape: Sequence[int] = (1, 8, 8), seed: int = 0, access: str = "scores") -> None:
        super().__init__(shape, CLASSES, access)
        self._generator = torch.Generator().manual_seed(seed)

    def answer(self, rows: Tensor) -> Tensor:
        return torch.rand(len(rows), CLASSES, generator=self._generator)


class NaNAfter(Quadratic):
    """Answers NaN once it has answered ``good`` rows."""

    def __init__(self, shape: Sequence[int] = (1, 8, 8), good: int = 0) -> None:
        super().__init__(shape)
        self.good = good

    def answer(self, rows: Tensor) -> Tensor:
        scores = super().answer(rows)
        number = torch.arange(self.rows - len(rows), self.rows)
        return scores.masked_fill(number[:, None] >= self.good, torch.nan)


class RaisesAfter(Quadratic):
    """Raises once it has answered ``good`` rows."""

    def __init__(self, shape: Sequence[int] = (1, 8, 8), good: int = 0) -> None:
        super().__init__(shape)
        self.good = good

    def answer(self, rows: Tensor) -> Tensor:
        if self.rows > self.good:
            raise RuntimeError("the service has gone\nwith a second line")
        return super().answer(rows)


class Answers(Toy):
    """Answers whatever ``make`` makes of the rows."""

    def __init__(self, make: Callable[[Tensor], Any], access: str = "scores", classes: int | None = CLASSES) -> None:
        super().__init__(access=access, classes=classes)
        self._make = make

    def __call__(self, rows: Tensor) -> Any:
        self.rows += len(rows)
        return self._make(rows)


class SmallMemory(Quadratic):
    """Runs out of CUDA memory above ``fits`` rows; only delivered rows are metered."""

    def __init__(self, shape: Sequence[int] = (1, 8, 8), fits: int = 5) -> None:
        super().__init__(shape)
        self.fits = fits
        self.refused = 0

    def __call__(self, rows: Tensor) -> Tensor:
        if len(rows) > self.fits:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (simulated)")
        return super().__call__(rows)


class Noisy(Quadratic):
    """Answers for a noisy copy of each row, another one each time it is asked, whatever else is in the batch."""

    deterministic = False

    def __init__(self, shape: Sequence[int] = (1, 8, 8), sigma: float = 0.1, seed: int = 0) -> None:
        super().__init__(shape)
        self.sigma = sigma
        self._keys = RowKeys(seed)

    def answer(self, rows: Tensor) -> Tensor:
        return super().answer(rows + self.sigma * gaussian(self._keys(rows), rows[0].numel()).view_as(rows))


class Refusing(Quadratic):
    """Refuses rows, by their numbers within all that were asked: ``refuse(numbers) -> bool``."""

    refuses = True

    def __init__(self, refuse: Callable[[Tensor], Tensor], access: str = "scores") -> None:
        super().__init__(access=access)
        self._refuse = refuse

    def __call__(self, rows: Tensor) -> Tensor:
        answers = super().__call__(rows)
        refused = self._refuse(torch.arange(self.rows - len(rows), self.rows))
        blank = REFUSED if self.access == "labels" else torch.nan
        return answers.masked_fill(refused.view(-1, *[1] * (answers.ndim - 1)), blank)


class NearDuplicates(Refusing):
    """Refuses a row that lies within ``radius`` (l2) of one that it has answered: a stateful detector."""

    def __init__(self, radius: float = 0.5) -> None:
        super().__init__(lambda number: number < 0)
        self.radius = radius
        self.answered = torch.empty(0, 64)

    def __call__(self, rows: Tensor) -> Tensor:
        answers = super().__call__(rows)
        for i, row in enumerate(rows.flatten(1)):
            if bool(((self.answered - row).norm(dim=1) < self.radius).any()):
                answers[i] = torch.nan
            else:
                self.answered = torch.cat([self.answered, row[None]])
        return answers

    def fresh(self) -> Target:
        return NearDuplicates(self.radius)


@dataclass(frozen=True)
class Examples:
    """Shapes: inputs (n, *shape), labels (n,) and other classes to reach, others (n,)."""

    inputs: Tensor
    labels: Tensor

    @property
    def others(self) -> Tensor:
        return (self.labels + 1) % CLASSES

    def __len__(self) -> int:
        return len(self.inputs)


def examples_of(target: Quadratic, count: int, seed: int = 0) -> Examples:
    """Noisy class centres, labelled by the target itself (unmetered)."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(count) % len(target.centres)
    noise = torch.randn(count, *target.input_shape, generator=generator)
    inputs = (target.centres[kind] + 0.1 * noise).clamp(0, 1)
    return Examples(inputs, target.answer(inputs).argmax(1))


@dataclass(frozen=True)
class Outcome:
    """What a run says of one example."""

    best: Tensor
    distance: float
    trace: tuple[tuple[int, float], ...]
    spent: int
    stopped: str | None
    label: int

    def bits(self) -> tuple[Any, ...]:
        """Everything, in a form that compares bit for bit."""
        return (
            row_hash(self.best),
            self.distance.hex(),
            [(q, d.hex()) for q, d in self.trace],
            self.spent,
            self.stopped,
            self.label,
        )


def outcomes(job: Job) -> dict[int, Outcome]:
    accounts = job.accounts
    traces = accounts.traces()
    return {
        int(job.examples[row]): Outcome(
            best=accounts.best[row].clone(),
            distance=float(accounts.distance[row]),
            trace=tuple(zip(traces[row][0].tolist(), traces[row][1].tolist(), strict=True)),
            spent=int(accounts.spent[row]),
            stopped=accounts.stopped[row],
            label=int(accounts.best_label[row]),
        )
        for row in range(len(accounts))
    }


def attack(
    name: str | Attack,
    target: Target,
    examples: Examples,
    budget: int,
    *,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    max_batch: int = 16,
    group: int = 16,
    limit: int | None = None,
    targeted: bool = False,
    quantize: Any = None,
    pool: bool = False,
    starts: Tensor | None = None,
    options: dict[str, object] | None = None,
    oracle: Oracle | None = None,
    stop_at: float | None = None,
    domain: Box | None = None,
    **drive_options: Any,
) -> dict[int, Outcome]:
    """Attack these examples (by index, in this order); what came out, by index."""
    method = make_attack(name, options) if isinstance(name, str) else name
    chosen = torch.as_tensor(range(len(examples)) if indices is None else indices, dtype=torch.int64)
    goals = examples.others if targeted else examples.labels
    oracle = oracle or Oracle(target, max_batch=max_batch, limit=limit, quantize=quantize)
    jobs = make_jobs(
        examples.inputs[chosen],
        Goal(goals[chosen], targeted=targeted),
        root_keys(seed, chosen),
        budget,
        device=target.device,
        examples=chosen,
        group=group,
        pool=Pool(examples.inputs, examples.labels) if pool or targeted else None,
        starts=None if starts is None else starts[chosen],
        stop_at=stop_at,
        domain=domain,
    )
    found: dict[int, Outcome] = {}
    for job in drive(method, oracle, jobs, **drive_options):
        found |= outcomes(job)
    return found


class Recorder:
    """A journal in memory, which can be cut to what an earlier moment held."""

    def __init__(self, forwards: Sequence[tuple[Tensor, Tensor, Tensor, Tensor | None]] = ()) -> None:
        self.forwards = list(forwards)

    def append(self, examples: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        self.forwards.append((examples.clone(), numbers.clone(), labels.clone(), scores))

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        known: dict[int, tuple[Tensor, Tensor | None]] = {}
        for examples, numbers, given, table in self.forwards:
            for row in (examples == example).nonzero()[:, 0].tolist():
                assert int(numbers[row]) not in known, "a query is on record twice"
                known[int(numbers[row])] = given[row], None if table is None else table[row]
        labels = torch.full((max(known, default=0),), ABSENT, dtype=torch.int64)
        kept = [scores for _, scores in known.values() if scores is not None]
        table = torch.full((len(labels), len(kept[0])), torch.nan) if kept else None
        for number, (label, scores) in known.items():
            labels[number - 1] = label
            if table is not None and scores is not None:
                table[number - 1] = scores
        return labels, table

    def rows(self) -> int:
        return sum(len(labels) for _, _, labels, _ in self.forwards)
