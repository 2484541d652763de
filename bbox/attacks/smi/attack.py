"""SMI gradient: the hard no-box attack on skeleton action recognition (Lu et al., ICCV 2023; arXiv 2308.05681).

No victim, no victim's training data, no labels, no query: an encoder learned from unlabelled motion says which change
of a motion changes what it looks like (``bbox.motion.objective``), and the gradient is the total derivative through
the motion's own dynamics (``bbox.motion.filters``), so that what is added moves as a body does. That is the preset
``paper``; the default takes the encoder and the filter that transferred best (docs/smi.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from bbox.attacks.base import Attack, Problem, Run
from bbox.attacks.smi.baselines import perturb
from bbox.attacks.smi.surrogate import Report, Surrogate, check_encoder, learn, surrogate_of
from bbox.attacks.smi.updates import ANYWHERE, Ascent, Update
from bbox.data.base import MotionSet
from bbox.errors import InputError, UsageError
from bbox.motion.augment import Views
from bbox.motion.bones import project_bones
from bbox.motion.domain import Tube
from bbox.motion.filters import check_filter, make_filter
from bbox.motion.objective import Objective
from bbox.motion.skeleton import Skeleton
from bbox.zo import fold, uniform

__all__ = ["SMI", "Goal"]

_START_STREAM, _VIEW_STREAM = -12, -13  # of a motion's key
_VIEWS = Views(crop=0.8, rotate=0.15, scale=0.1)


class Goal(Protocol):
    """What is climbed: J of each row (``bbox.motion.objective``)."""

    def value(self, rows: Tensor, index: Tensor) -> Tensor:
        """Shapes: rows (n, *shape), index (n,) int64, which motions the rows are variants of; returns (n,)."""


@dataclass(frozen=True)
class SMI(Attack):
    """SMI gradient: no-box, along the total derivative through the motion's dynamics, or another temporal filter.

    Args:
        epsilon: size of the budget in metres: how far a coordinate may move (linf), or the root mean square
            displacement of a joint (l2).
        iterations: steps.
        step: length of a step in metres; 0 = 4 epsilon / iterations, as published (400 steps of 1e-4 at 0.01).
        update: ifgsm, mifgsm, nifgsm or pgd: what is done with the gradient.
        start: where it begins: clean, random (pgd always does), or drift, an offset of the full size towards the mean
            pose of another motion at hand (``bbox.attacks.smi.baselines.drift``).
        decay: mu, how much momentum is kept from step to step.
        gradient: the temporal filter: smi1, smi2 (SMI gradients of first and second order, eq. 5 to 10), adjoint (the
            whole recursion), none (the plain attack), or a plain low-pass (``bbox.motion.filters``); constant, one
            offset a joint, fooled most of those measured and adds no acceleration (docs/smi.md).
        bandwidth: of the fit of the dynamics, as a share of the motion; 0 = leave-one-out for each coordinate, as
            published.
        views: take each gradient at a random view of the motion: a part of it in time, turned and scaled a little.
        rigid: bring every step back to the original bone lengths (and the baselines, once).
        encoder: what features are: graph (AGCN), sequence (GRU), both, a folder that holds an encoder, or
            torch:PACKAGE.MODULE:FACTORY, any module from motions to features.
        recipe: how an encoder learns: small or paper (``bbox.motion.recipes.RECIPES``).
        epochs: passes of its training over the data; 0 = the recipe's.
        positive: climb away from the motion's own features.
        negatives: climb towards centres (all far clusters, as published), farthest, clip, or none.
        clusters: of k-means over the features of the data at hand.
        nearest: centres nearest to the motion that are no negatives.
        temperature: tau of the objective.

    Queries: none.
    """

    epsilon: float = 0.03
    iterations: int = 100
    step: float = 0.0
    update: Update = "mifgsm"
    start: Literal["clean", "random", "drift"] = "clean"
    decay: float = 1.0
    gradient: str = "constant"
    bandwidth: float = 0.2
    views: bool = False
    rigid: bool = False
    encoder: str = "both"
    recipe: str = "small"
    epochs: int = 0
    positive: bool = True
    negatives: Literal["centres", "farthest", "clip", "none"] = "centres"
    clusters: int = 120
    nearest: int = 10
    temperature: float = 1.0

    takes: ClassVar[Any] = "motion"
    access: ClassVar[Any] = "none"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    summary: ClassVar[str] = "no-box, skeleton motion: total derivative through the dynamics (ICCV 2023)"
    # The published code: graph encoder, second order, 400 steps of 1e-4, 0.01 m.
    presets: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {
            "epsilon": 0.01,
            "iterations": 400,
            "gradient": "smi2",
            "bandwidth": 0.0,
            "start": "clean",
            "encoder": "graph",
            "recipe": "paper",
            "negatives": "centres",
        }
    }

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UsageError(f"iterations is {self.iterations}, expected at least 1")
        if not 0 < self.epsilon < 10:
            raise UsageError(f"epsilon is {self.epsilon:g}, expected metres, more than 0 and less than 10")
        for option in ("step", "decay", "bandwidth"):
            if not 0 <= getattr(self, option) < math.inf:
                raise UsageError(f"{option} is {getattr(self, option):g}, expected 0 or more")
        if self.update not in get_args(Update):
            raise UsageError(f"update is {self.update!r}, expected {', '.join(get_args(Update))}")
        if self.start not in ("clean", "random", "drift"):
            raise UsageError(f"start is {self.start!r}, expected clean, random or drift")
        if self.epochs < 0:
            raise UsageError(f"epochs is {self.epochs}, expected 0 (the recipe's) or more")
        check_filter(self.gradient)
        check_encoder(self.encoder, self.recipe)
        self.objective  # noqa: B018  (its own checks)

    @property
    def objective(self) -> Objective:
        """What is climbed."""
        return Objective(self.positive, self.negatives, self.clusters, self.nearest, self.temperature)

    def learn(
        self,
        data: MotionSet,
        *,
        device: torch.device,
        seed: int = 0,
        folder: Path | None = None,
        report: Report | None = None,
    ) -> Surrogate:
        """The encoder, learned from this data without its labels (or loaded), and the objective of its motions.

        Args:
            folder: where the encoder and a checkpoint are kept; a killed training goes on there.
        """
        encoder, facts = learn(
            self.encoder,
            data,
            recipe=self.recipe,
            epochs=self.epochs,
            device=device,
            seed=seed,
            folder=folder,
            report=report or (lambda what, done, total: None),
        )
        return surrogate_of(encoder, facts, data, self.objective, device=device, seed=seed)

    def run(self, problem: Problem) -> Run:
        raise UsageError("smi asks no target, so there is nothing to drive; see bbox.craft")

    def craft(
        self,
        motions: Tensor,
        goal: Goal,
        skeleton: Skeleton,
        keys: Tensor,
        *,
        norm: Literal["linf", "l2"] = "linf",
        index: Tensor | None = None,
        pool: Tensor | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Adversarial motions.

        Shapes:
            motions: (n, 3, frames, joints, bodies); keys: (n,) int64 (``bbox.zo.root_keys``); index: (n,) int64, the
            goal's number of each motion (default: in order); pool: (p, ...), motions to drift to (default: the same).
            returns: like motions, within epsilon of them.

        Raises:
            InputError: the encoder passes no gradient, or one that is not finite.
        """
        index = torch.arange(len(motions), device=motions.device) if index is None else index
        smooth = make_filter(self.gradient, motions, bandwidth=self.bandwidth or "loo")
        ascent = Ascent(
            motions,
            epsilon=self.epsilon,
            norm=norm,
            update=self.update,
            step=self.step or 4 * self.epsilon / self.iterations,
            decay=self.decay,
            axes=skeleton.axes,
        )
        if self.update == "pgd" or self.start == "random":
            draw = uniform(fold(keys, _START_STREAM), motions[0].numel()).view_as(motions).to(motions.dtype)
            ascent.move((2 * draw - 1) * self.epsilon)
        elif self.start == "drift":
            others = motions if pool is None else pool
            ascent.keep(
                perturb("drift", motions, keys, epsilon=self.epsilon, norm=norm, axes=skeleton.axes, pool=others)
            )
        finite = torch.ones((), dtype=torch.bool, device=motions.device)
        for number in range(self.iterations):
            rows = ascent.probe().detach().requires_grad_()
            seen = self._view(rows, keys, number) if self.views else rows
            gradient = _gradient(goal.value(seen, index).sum(), rows)
            finite &= gradient.isfinite().all()
            # G is linear, so to scale before it is the paper's order, and to mask after it keeps padding out.
            ascent.climb(smooth(ascent.normalised(gradient)))
            if self.rigid:
                ascent.keep(self.kept(ascent.point, motions, skeleton, norm))
            if on_step is not None:
                on_step(number + 1)
        if not bool(finite):
            raise InputError("the gradient of the encoder is not finite; give another encoder")
        return ascent.point.detach()

    def kept(self, changed: Tensor, motions: Tensor, skeleton: Skeleton, norm: str) -> Tensor:
        """Changed motions with the original bone lengths, where ``rigid`` asks for them. Shapes: as ``motions``."""
        if not self.rigid:
            return changed
        if norm == "linf":
            return project_bones(changed, motions, skeleton, epsilon=self.epsilon)
        # Back into the l2 ball on the straight line to the original: that leaves the lengths nearly as they are.
        made = project_bones(changed, motions, skeleton)
        return Tube(norm="l2", radius=ANYWHERE, axes=skeleton.axes).pull(motions, made, self.epsilon)

    @staticmethod
    def _view(rows: Tensor, keys: Tensor, step: int) -> Tensor:
        """One random view of each motion, drawn from its own key, so that it is the same in any batch."""
        drawn: list[dict[str, Tensor]] = []
        for row, key in zip(torch.split(rows.detach(), 1), fold(fold(keys, _VIEW_STREAM), step).tolist(), strict=True):
            drawn.append(_VIEWS.draw(row, torch.Generator().manual_seed(key)))
        return _VIEWS.apply(rows, {name: torch.cat([numbers[name] for numbers in drawn]) for name in drawn[0]})

    def plain(self) -> SMI:
        """The same attack without dynamics, low-passed: the control."""
        return replace(self, gradient="gaussian:3", start="clean")


def _gradient(value: Tensor, rows: Tensor) -> Tensor:
    try:
        return torch.autograd.grad(value, rows)[0]
    except RuntimeError as error:
        if value.requires_grad:
            raise
        raise InputError("the encoder passes no gradient to its input; give one that is differentiable") from error
