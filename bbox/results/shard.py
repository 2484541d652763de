"""A part of a run's examples with all that an attack on them needs, so that it can be attacked in another process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bbox.batch import Batch, pick
from bbox.domain import Domain
from bbox.engine import Job, Pool, make_jobs
from bbox.goal import Goal
from bbox.results.outcome import domain, goal_labels
from bbox.results.plan import Plan
from bbox.zo import root_keys

__all__ = ["Shard"]


@dataclass(frozen=True)
class Shard:
    """Some examples of a run.

    Shapes (n examples):
        positions: (n,) int64, their places in the run; inputs: (n, *shape), or n programs; keys: (n,) int64;
        starts: (n, *shape) or ``None``.
    """

    positions: Tensor
    inputs: Batch
    goal: Goal
    keys: Tensor
    starts: Tensor | None
    domain: Domain
    budget: int
    stop_at: float | None

    @classmethod
    def of(cls, plan: Plan, predicted: Tensor, positions: Tensor) -> Shard:
        """These examples of a run. Shapes: predicted (examples,) int64, positions (n,) int64."""
        inputs: Any = plan.data.inputs
        return cls(
            positions=positions,
            inputs=pick(inputs, positions),
            goal=Goal(goal_labels(plan, predicted)[positions], targeted=plan.goals is not None),
            keys=root_keys(plan.config.seed, plan.data.indices[positions]),
            starts=None if plan.starts is None else plan.starts[positions],
            domain=domain(plan),
            budget=plan.config.budget,
            stop_at=plan.config.stop_at,
        )

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: Tensor) -> Shard:
        """A part of the part. Shapes: rows (k,) int64."""
        return replace(
            self,
            positions=self.positions[rows],
            inputs=pick(self.inputs, rows),
            goal=self.goal.take(rows),
            keys=self.keys[rows],
            starts=None if self.starts is None else self.starts[rows],
        )

    def jobs(self, device: torch.device, pool: Pool | None) -> Iterator[Job]:
        """What the engine drives; nothing for no examples."""
        if len(self) == 0:
            return iter(())
        return make_jobs(
            self.inputs,
            self.goal,
            self.keys,
            self.budget,
            device=device,
            examples=self.positions,
            starts=self.starts,
            pool=pool,
            domain=self.domain,
            stop_at=self.stop_at,
        )
