"""Output coarsening: answers say less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.defenses.base import Defense, Wrapped, need_scores
from bbox.defenses.ranges import between
from bbox.defenses.scores import labels_of, probabilities
from bbox.errors import UsageError
from bbox.targets.base import Target

__all__ = ["Coarsen"]


@dataclass(frozen=True)
class Coarsen(Defense):
    """Answer rounded probabilities, those of the best classes only, or the best class alone.

    With ``top=1`` the target answers labels: score-based attacks have nothing left. Otherwise it answers probabilities
    (the softmax of logits), rounded to ``digits``, 0 for classes below the ``top`` best. The label never changes: where
    rounding makes a class before it its equal, its probability is raised by one unit of the last digit.

    Args:
        top: how many classes are answered; 0 for all, 1 for the label alone.
        digits: decimal digits of a probability, 1 to 6; 0 for all digits.

    Queries: one forward row each.

    Raises:
        UsageError: neither is set.
    """

    top: int = 0
    digits: int = 2

    summary: ClassVar[str] = "rounded probabilities, the best few, or the label alone"
    needs: ClassVar[tuple[str, ...]] = ("scores",)
    cost: ClassVar[str] = "no forward and no label; honest users lose the digits too"
    weakness: ClassVar[str] = "attacks on labels, such as cgba, lose nothing"
    adaptations: ClassVar[tuple[str, ...]] = ("scale-free",)

    def __post_init__(self) -> None:
        between("top", self.top, 0, 1_000_000)
        between("digits", self.digits, 0, 6)
        if self.top == 0 and self.digits == 0:
            raise UsageError("top and digits are both 0, which coarsens nothing; set one of them")

    def wrap(self, target: Target) -> Target:
        need_scores(target, "coarsen")
        return _TopOne(target, self, name="coarsen") if self.top == 1 else _Coarse(target, self, name="coarsen")


class _TopOne(Wrapped):
    def __init__(self, inner: Target, defense: Defense, *, name: str) -> None:
        super().__init__(inner, defense, name=name)
        self.access = "labels"

    def __call__(self, rows: Tensor) -> Tensor:
        return labels_of(self.inner(rows), scores=True, refuses=self.refuses)


class _Coarse(Wrapped):
    defense: Coarsen

    def __call__(self, rows: Tensor) -> Tensor:
        scores = self.inner(rows)
        label = scores.argmax(1, keepdim=True)
        kept = probabilities(scores)
        top, unit = self.defense.top, 10.0**-self.defense.digits
        if 0 < top < kept.shape[1]:
            # By the scores, whose ties have the label first as argmax does; probabilities may have more ties.
            below = torch.argsort(scores, dim=1, descending=True, stable=True)[:, top:]
            kept = kept.scatter(1, below, 0.0)
        if self.defense.digits:
            kept = (kept / unit).round() * unit
        kept = kept.to(torch.float32)
        best = kept.amax(1, keepdim=True)
        # Without rounding too: probabilities that differ may be one number in float32.
        raised = best + unit if self.defense.digits else torch.nextafter(best, best.new_tensor(torch.inf))
        moved = kept.argmax(1, keepdim=True) != label
        answer = torch.where(moved, kept.scatter(1, label, raised), kept)
        return answer.masked_fill(scores.isnan().any(1, keepdim=True), torch.nan)  # a refusal stays one
