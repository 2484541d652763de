"""What an attack found, saved, read back, asked again and measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbox.batch import Batch
from bbox.code.domain import Renaming
from bbox.data.base import MotionSet
from bbox.domain import Box, Domain
from bbox.motion.domain import Tube
from bbox.oracle import Oracle, Purpose
from bbox.problem import Done
from bbox.results.plan import TUBE, Plan
from bbox.results.records import Example
from bbox.results.saved import saved_for
from bbox.results.store import RunFolder
from bbox.votes import vote

__all__ = ["ask_labels", "domain", "finish", "functions", "goal_labels", "score", "true_labels"]

_COPIES = 11  # of a clean image or a saved file, for a target that answers at random: an odd number, so that votes end


def ask_labels(oracle: Oracle, rows: Batch, purpose: Purpose) -> tuple[Tensor, Tensor | None]:
    """Labels of each row (m, copies), and its mean scores (m, classes) where there are scores.

    It is asked once, of a target that answers at random ``_COPIES`` times: the copies one after another and not side by
    side, so that no detector sees a row twice (``fresh``).
    """
    times = range(1 if oracle.target.deterministic else _COPIES)
    given = [oracle.ask(rows, purpose) for _ in times]
    scores = [answers.scores for answers in given if answers.scores is not None]
    return torch.stack([answers.labels for answers in given], 1), torch.stack(scores).mean(0) if scores else None


def true_labels(plan: Plan, predicted: Tensor) -> Tensor:
    """The true labels; for data without labels, what the target says."""
    return predicted if plan.data.labels is None else plan.data.labels


def goal_labels(plan: Plan, predicted: Tensor) -> Tensor:
    """The class of each example to leave, or to reach."""
    return true_labels(plan, predicted) if plan.goals is None else plan.goals


def domain(plan: Plan) -> Domain:
    """Where the run's rows lie, and how their distances are measured."""
    if plan.attack.takes == "code":
        return Renaming(functions(plan))
    norm: Any = plan.config.norm
    if isinstance(plan.data, MotionSet):
        return Tube(norm=norm, radius=plan.config.tube or TUBE, axes=plan.data.skeleton.axes)
    return Box(norm=norm, levels=255 if plan.config.quantize == "8bit" else 0)


def functions(plan: Plan) -> bool:
    """Whether an attack on code may rename functions as well."""
    return bool(getattr(plan.attack, "functions", False))


def score(scores: Tensor | None, row: int, label: int) -> float | None:
    """A row's finite score of a class, ``None`` where there is none."""
    if scores is None or not 0 <= label < scores.shape[1]:
        return None
    value = float(scores[row, label])
    return value if math.isfinite(value) else None


def finish(plan: Plan, folder: RunFolder, job: Done, predicted: Tensor, scores: Tensor | None) -> dict[int, Example]:
    """Save a finished group's adversarial examples, read them back, ask again, and measure what was read."""
    data, accounts, saved = plan.data, job.accounts, saved_for(plan.data, folder, functions=functions(plan))
    truth, traces = true_labels(plan, predicted), accounts.traces()
    found = torch.isfinite(accounts.distance).nonzero()[:, 0].tolist()
    position = job.examples.tolist()
    indices = data.indices[job.examples].tolist()
    files: dict[int, _Verified] = {}
    eights: dict[int, _Verified] = {}
    for row in set(range(len(accounts))) - set(found):
        saved.keep(indices[row], accounts.originals[row])
    if found:
        for row in found:
            saved.write(indices[row], accounts.originals[row], accounts.best[row])
        names = [indices[row] for row in found]
        originals, pictures = saved.read("originals", names), saved.pictures(names)
        files = _verify(plan, job, found, originals, saved.read("adversarial", names))
        eights = {} if pictures is None else _verify(plan, job, found, originals, pictures)
    examples = {}
    for row, place in enumerate(position):
        file, picture = files.get(row, _Verified()), eights.get(row)
        goal_label = int(accounts.goal.labels[row])
        examples[place] = Example(
            index=indices[row],
            id=data.ids[place],
            label=int(truth[place]),
            predicted=int(predicted[place]),
            goal_label=goal_label,
            stop_reason=accounts.stopped[row] or "interrupted",
            queries=int(accounts.spent[row]),
            success=file.success,
            adversarial_label=file.label,
            distance=file.distance,
            png_success=None if picture is None else picture.success,
            png_distance=None if picture is None else picture.distance,
            trace=tuple(zip(traces[row][0].tolist(), traces[row][1].tolist(), strict=True)),
            first_refused=folder.first_refused(place),
            first_adversarial=int(accounts.first[row]) or None,
            repeats=int(accounts.repeats[row]),
            score=score(scores, place, goal_label),
            adversarial_score=file.score,
        )
    return examples


@dataclass(frozen=True)
class _Verified:
    """What the target says of a saved file: its label, whether that meets the goal, the score of the goal's class."""

    label: int | None = None
    success: bool = False
    distance: float | None = None
    score: float | None = None


def _verify(plan: Plan, job: Done, found: Sequence[int], originals: Batch, files: Batch) -> dict[int, _Verified]:
    """Ask files as they were read (``verify`` ledger), and measure them in float64. A file outside the domain, which
    has no finite distance, is no success."""
    rows = plan.oracle.admissible(files)
    rows = rows.cpu() if isinstance(rows, Tensor) else rows
    copies, scores = ask_labels(plan.oracle, rows, "verify")
    owner, goal = torch.tensor(found), job.accounts.goal
    labels = vote(copies, owner, goal)
    distance = job.accounts.domain.distance(originals, rows)
    met = goal.met(labels, owner) & (labels >= 0) & torch.isfinite(distance)
    return {
        row: _Verified(
            label=int(labels[i]),
            success=bool(met[i]),
            distance=float(distance[i]) if math.isfinite(float(distance[i])) else None,
            score=score(scores, i, int(goal.labels[row])),
        )
        for i, row in enumerate(found)
    }
