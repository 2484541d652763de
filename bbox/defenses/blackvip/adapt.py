"""Adapting one prompter to a black box: probe, train, choose on held-out images. BlackVIP, VP and BAR go this way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bbox.defenses.blackvip.decoder import Statistics
from bbox.defenses.blackvip.gains import DIRECTIONS, WIDTHS, probe_gains
from bbox.defenses.blackvip.objective import Objective
from bbox.defenses.blackvip.prompters import Prompter
from bbox.defenses.blackvip.train import Course, Evaluator, Fused, Labelled, Schedule, batch_sizes, train
from bbox.defenses.label_mapping import LabelMapping
from bbox.errors import UsageError

__all__ = ["CHECKPOINTS", "Adapted", "Plan", "Report", "adapt", "prompted"]

CHECKPOINTS = 4
PROBE_IMAGES = 16

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """How the budget of a prompt is spent: exact limits, set before the first query.

    Attributes:
        probe: queries of the probe; select: of the held-out images at each checkpoint; fit: of the training.
    """

    probe: int
    select: int
    fit: int

    @classmethod
    def of(cls, budget: int, schedule: Schedule, train: int, held: int, *, remap: bool = False) -> Plan:
        """Split a budget, of which a first look at all images takes one query an image.

        Args:
            train, held: images that train and that choose.
            remap: whether the mapping is made anew at each checkpoint but the last.

        Raises:
            UsageError: too little for a single step.
        """
        known = train + held
        widths = 1 if schedule.gains.c else len(WIDTHS)
        needed = not schedule.gains.c or (schedule.clip and schedule.optimizer != "cma-es")
        probe = 2 * DIRECTIONS * widths * min(PROBE_IMAGES, train) if needed else 0
        select = CHECKPOINTS * held
        fit = budget - known - probe - select - (train * (CHECKPOINTS - 1) if remap else 0)
        if fit < schedule.spsa.evaluations:
            raise UsageError(
                f"budget {budget} is too little: {known} queries for a first look at {known} images, {probe} for the "
                f"probe and {select} to choose among checkpoints leave {max(0, fit)}, and a step takes at least "
                f"{schedule.spsa.evaluations}; give more, or fewer images (--shots)"
            )
        return cls(probe, select, fit)


@dataclass
class Adapted:
    """A prompter's weights, chosen on held-out images.

    Attributes:
        identity: whether no checkpoint was better than no prompt; then the weights are not used.
        figures: JSON-able account of the training.
    """

    weights: Tensor
    statistics: Statistics | None
    mapping: LabelMapping | None
    identity: bool
    figures: dict[str, Any]


def prompted(
    prompter: Prompter, weights: Tensor, images: Tensor, context: Tensor, statistics: Statistics | None
) -> Tensor:
    """Images under one weight vector: (n, *shape). Shapes: weights (dim,)."""
    return prompter.rows(weights[None], images, context, statistics)[0]


def adapt(
    prompter: Prompter,
    training: Labelled,
    held: Labelled,
    objective: Objective,
    schedule: Schedule,
    plan: Plan,
    *,
    zero_shot: tuple[float, float],
    seed: int,
    remap: Callable[[Tensor], LabelMapping] | None = None,
    evaluator: Callable[[Fused, Course], Evaluator] = lambda fused, _: fused,
    report: Report = lambda *_: None,
) -> Adapted:
    """Train a prompter within the plan, and keep its last weights, or an earlier checkpoint, or none.

    Args:
        zero_shot: mean losses of the training and of the held-out images without a prompt.
        remap: a new label mapping from answers to the training images.
        evaluator: what computes a step's losses, from the one that does it here and from what ``train`` is given.
    """
    device, books, before = training.images.device, objective.books, objective.mapping
    start = prompter.start(seed).to(device)
    fused = Fused(prompter, training, objective, schedule.spsa, seed, "fit")
    agreement: tuple[float, ...] = ()
    if plan.probe:
        batch = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))[:PROBE_IMAGES]
        probed = probe_gains(
            lambda points: fused.at(points, batch, "probe"),
            start,
            seed=seed,
            c=schedule.gains.c,
        )
        scale = probed.scale if schedule.clip else 1.0
        schedule = replace(schedule, scale=scale, gains=replace(schedule.gains, c=probed.c))
        agreement = probed.agreement
    sizes = batch_sizes(plan.fit, schedule.spsa.evaluations, schedule.batch, len(training))
    kept: dict[int, tuple[Tensor, Statistics | None, LabelMapping | None]] = {}
    losses: dict[int, float] = {}
    course = Course(schedule=schedule, sizes=sizes, start=start, count=len(training), seed=seed, reference=zero_shot[0])
    shared = evaluator(fused, course)

    def keep_back() -> None:
        """Budget for the checkpoints that are to come; the last one makes no mapping."""
        coming = CHECKPOINTS - len(kept)
        maps = 0 if remap is None else max(0, coming - 1)
        held_calls, map_calls = (-(-len(part) // books.oracle.max_batch) for part in (held, training))
        books.kept_rows["fit"] = maps * len(training)
        books.kept_calls = coming * held_calls + maps * map_calls

    def checkpoint(step: int, weights: Tensor) -> None:
        if remap is not None and step < len(sizes) and len(kept) < CHECKPOINTS - 1:
            rows = prompted(prompter, weights, training.images, training.context, None)
            objective.mapping = remap(objective.answers(rows, "fit"))
        statistics = prompter.statistics(weights, training.images, training.context)
        rows = prompted(prompter, weights, held.images, held.context, statistics)
        losses[step] = float(objective.losses(rows, held.labels, "select").double().nanmean())
        kept[step] = (weights.clone(), statistics, objective.mapping)
        keep_back()

    def affords(size: int) -> bool:
        evaluations = schedule.spsa.evaluations
        return books.affords(evaluations * size, shared.calls(evaluations, size), "fit")

    keep_back()
    found = train(
        prompter,
        shared,
        **course,
        affords=affords,
        checkpoint=checkpoint,
        report=lambda done, total: report("train", done, total),
    )
    if found.steps and found.steps not in kept:
        checkpoint(found.steps, found.weights)  # the budget of calls has ended the training
    # The last weights, unless the held-out images say that they are worse than no prompt: a few dozen images can tell
    # that, and cannot rank checkpoints that are close to each other.
    good = [step for step in sorted(losses) if losses[step] < zero_shot[1]]
    step = 0
    if good:
        step = good[-1] if good[-1] == max(losses) else min(good, key=losses.__getitem__)
    weights, statistics, mapping = kept[step] if good else (start, None, before)
    objective.mapping = mapping
    figures: dict[str, Any] = {
        "parameters": prompter.dim,
        "steps": found.steps,
        "images_a_step": max(sizes, default=0),
        "evaluations_a_step": schedule.spsa.evaluations,
        "c": schedule.gains.c,
        "loss_scale": round(schedule.scale, 4),
        "slopes_agree": [round(value, 3) for value in agreement],
        "running_loss": [round(value, 4) for value in found.losses],
        "rollbacks": found.rollbacks,
        "held_out_loss": {"0": round(zero_shot[1], 4), **{str(k): round(v, 4) for k, v in losses.items()}},
        "chosen_step": step,
    }
    return Adapted(weights, statistics, mapping, not good, figures)
