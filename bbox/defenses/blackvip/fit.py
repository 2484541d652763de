"""One fit: a first look at the labelled images, then the coordinator is adapted within the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bbox.defenses.blackvip import encoders
from bbox.defenses.blackvip.adapt import CHECKPOINTS, PROBE_IMAGES, Adapted, Plan, Report, adapt
from bbox.defenses.blackvip.objective import AnswerKind, Objective
from bbox.defenses.blackvip.prompt import Prompt
from bbox.defenses.blackvip.prompters import Prompter, standardise
from bbox.defenses.blackvip.train import Course, Evaluator, Fused, Labelled, Schedule, batch_sizes, calls_of
from bbox.defenses.blackvip.workers import Workers, threads
from bbox.defenses.books import Books
from bbox.defenses.label_mapping import LabelMapping
from bbox.errors import InputError, UsageError
from bbox.oracle import Purpose

if TYPE_CHECKING:
    from bbox.defenses.blackvip import BlackVIP

__all__ = ["LEAST", "Split", "adapt_prompter", "fit_prompt", "look"]

_HELD = 500  # held-out images at most: each checkpoint pays for all of them
LEAST = 10


class Split:
    """Labelled images, cut by the seed into those that train and those that choose among checkpoints."""

    def __init__(self, images: Tensor, labels: Tensor, selection: float, seed: int) -> None:
        if len(images) < LEAST:
            raise UsageError(f"{len(images)} labelled images are too few to learn from; give at least {LEAST}")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
        self.held_count = min(_HELD, len(images) - 2, max(2, round(selection * len(images))))
        self.images, self.labels = images[order], labels.to(images.device)[order]
        self.classes = int(labels.max()) + 1

    def __len__(self) -> int:
        return len(self.images)

    def parts(self, context: Tensor) -> tuple[Labelled, Labelled]:
        """(training, held out), with what the prompter knows of each image: (n, features)."""
        cut = self.held_count
        parts = [Labelled(self.images[s], self.labels[s], context[s]) for s in (slice(cut, None), slice(0, cut))]
        return parts[0], parts[1]


def look(options: BlackVIP, objective: Objective, split: Split, purposes: tuple[Purpose, Purpose]) -> Tensor:
    """Ask every labelled image as it is: what kind of answers there are, and the mapping from the model's classes.

    Queries: one an image, the held-out ones under the second purpose.

    Returns the answers: (n, classes) scores, or (n,) labels.

    Raises:
        InputError: the answers are of fewer classes than the labels.
        UsageError: a mapping is wished, and the model answers labels without saying how many classes it has.
    """
    cut = split.held_count
    held = objective.answers(split.images[:cut], purposes[1])
    answers = torch.cat([held, objective.answers(split.images[cut:], purposes[0])])
    usable = answers[answers.amax(1).isfinite()] if answers.ndim == 2 else answers[answers >= 0]
    if not len(usable):
        raise InputError(f"{objective.books.oracle.target.name} gave no usable answer to {len(answers)} images")
    objective.kind = AnswerKind.of(usable if answers.ndim == 2 else None)
    source = usable.shape[1] if answers.ndim == 2 else objective.books.oracle.target.num_classes
    if source is not None and source < split.classes:
        raise InputError(f"the labels reach {split.classes - 1}, and the model has {source} classes")
    if options.mapping != "identity":
        objective.mapping = mapping_from(objective, answers, split.labels, split.classes)
    return answers


def mapping_from(objective: Objective, answers: Tensor, labels: Tensor, classes: int) -> LabelMapping:
    """The frequency mapping of these answers."""
    source = answers.shape[1] if answers.ndim == 2 else objective.books.oracle.target.num_classes
    if source is None:
        name = objective.books.oracle.target.name
        raise UsageError(f"{name} answers labels and does not say how many classes it has, so none can be mapped")
    shown = answers if answers.ndim == 2 else answers.long()
    return LabelMapping.frequency(shown.cpu(), labels.cpu(), classes, source)


def adapt_prompter(
    options: BlackVIP,
    prompter: Prompter,
    schedule: Schedule,
    books: Books,
    split: Split,
    budget: int,
    seed: int,
    report: Report,
    context: Tensor | None = None,
) -> tuple[Adapted, Objective]:
    """Look, probe, train and choose, all within the budget, which is set aside here before the first query.

    Args:
        context: the prompter's, of the split's images, where it is at hand.

    Raises:
        UsageError: the budget, of images or of calls, is too small.
    """
    train = len(split) - split.held_count
    remap = options.mapping == "iterative"
    plan = Plan.of(budget, schedule, train, split.held_count, remap=remap)
    books.limits = {"probe": plan.probe, "select": plan.select + split.held_count}
    books.limits["fit"] = budget - sum(books.limits.values())
    _check_calls(books, plan, split, schedule, remap=remap, apart=options.workers > 0)
    objective = Objective(books)
    answers = look(options, objective, split, ("fit", "select"))
    losses = objective.loss(answers.cpu(), split.labels.cpu())
    cut = split.held_count
    zero_shot = float(losses[cut:].nanmean()), float(losses[:cut].nanmean())
    training, held = split.parts(prompter.context(split.images) if context is None else context)

    def again(shown: Tensor) -> LabelMapping:
        return mapping_from(objective, shown, training.labels, split.classes)

    with ExitStack() as ending:

        def share(fused: Fused, course: Course) -> Evaluator:
            del course  # replicas in other processes need it
            return ending.enter_context(Workers(fused, threads(fused, options.workers))) if options.workers else fused

        found = adapt(
            prompter,
            training,
            held,
            objective,
            schedule,
            plan,
            zero_shot=zero_shot,
            seed=seed,
            remap=again if remap else None,
            evaluator=share,
            report=report,
        )
    found.figures |= {
        "answers": str(objective.kind),
        "images": {"training": train, "held_out": cut},
        "queries": {purpose: count for purpose, count in books.spent.items() if count},
        "calls": books.calls,
    }
    return found, objective


def _check_calls(books: Books, plan: Plan, split: Split, schedule: Schedule, *, remap: bool, apart: bool) -> None:
    if books.max_calls is None:
        return
    most, cut, train = books.oracle.max_batch, split.held_count, len(split) - split.held_count
    evaluations, probed = schedule.spsa.evaluations, min(PROBE_IMAGES, train)
    first = batch_sizes(plan.fit, evaluations, schedule.batch, train)[0]
    # Workers ask each point of a step apart.
    step = evaluations * math.ceil(first / most) if apart else calls_of(evaluations, first, most)
    maps = CHECKPOINTS - 1 if remap else 0
    least = (1 + CHECKPOINTS) * math.ceil(cut / most) + (1 + maps) * math.ceil(train / most)
    least += calls_of(plan.probe // probed, probed, most) + step
    if books.max_calls < least:
        raise UsageError(
            f"max_calls is {books.max_calls}, and looking, probing, choosing and one step take {least} calls of "
            f"{most} rows; give more, or a larger --max-batch"
        )


def fit_prompt(
    options: BlackVIP,
    books: Books,
    images: Tensor,
    labels: Tensor,
    budget: int,
    seed: int,
    report: Callable[[str, int, int], None],
) -> tuple[Prompt, dict[str, Any]]:
    """Adapt a coordinator. See ``BlackVIP.fit``.

    Shapes:
        images: (n, channels, height, width) in [0, 1]; labels: (n,) int64.
    """
    device = books.oracle.device
    split = Split(images.to(device), labels, options.selection, seed)
    encoder = encoders.make_encoder(options.encoder, split.images[split.held_count :], device=device)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    features = encoder(split.images)
    # As published the coordinator takes features as they come.
    statistics = {} if options.norm == "batch" else standardise(features[split.held_count :])
    coordinator = options.make_coordinator(encoder, shape, **statistics)
    found, _ = adapt_prompter(
        options,
        coordinator,
        options.schedule(),
        books,
        split,
        budget,
        seed,
        report,
        coordinator.standardised(features),
    )
    notes = []
    if found.identity:
        notes.append(
            "no checkpoint had a smaller loss than no prompt on the held-out images, so the prompt is the identity: "
            "the adapted model answers as the model does"
        )
    if found.figures["rollbacks"]:
        notes.append(
            f"the running loss rose above {options.guard:g} times the zero-shot loss {found.figures['rollbacks']} "
            "times, and the training went back each time with half the step; a smaller --a may do better"
        )
    if str(found.figures["answers"]) == "labels":
        notes.append("the model answers labels alone: the loss is the share of wrong answers, and estimates are coarse")
    cost = sum(books.spent.values()), books.calls
    prompt = Prompt(coordinator, found.weights, found.statistics, found.mapping, found.identity, shape, cost)
    return prompt, {**found.figures, "identity": found.identity, "notes": notes}
