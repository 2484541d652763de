"""Reading scores: some targets answer logits, some probabilities, and defenses on scores must serve both."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.targets.base import REFUSED

__all__ = ["are_probabilities", "confidence", "labels_of", "logits", "probabilities"]

_TOLERANCE = 1e-3  # of a sum of probabilities: room for half precision


def are_probabilities(scores: Tensor) -> Tensor:
    """Which rows are probabilities: not negative, and they sum to 1. Shapes: (n, classes) -> (n,) bool."""
    return (scores >= 0).all(1) & ((scores.double().sum(1) - 1).abs() <= _TOLERANCE)


def probabilities(scores: Tensor) -> Tensor:
    """Rows of probabilities as they are, the softmax of all others. Shapes: (n, classes), float64 returned."""
    exact = scores.double()
    return torch.where(are_probabilities(scores)[:, None], exact, exact.softmax(1))


def logits(scores: Tensor) -> Tensor:
    """The logarithm of rows of probabilities, all others as they are. Shapes: (n, classes), float64 returned."""
    exact = scores.double()
    return torch.where(are_probabilities(scores)[:, None], exact.clamp(min=0).log(), exact)


def confidence(scores: Tensor) -> Tensor:
    """The largest probability; NaN where a score is. Shapes: (n, classes) -> (n,) float64."""
    return probabilities(scores).amax(1)


def labels_of(answers: Tensor, *, scores: bool, refuses: bool) -> Tensor:
    """The label that the oracle would read: -1 for an unusable answer, ``REFUSED`` for a refusal.

    Args:
        scores: whether the answers are scores, (n, classes), or labels already, (n,).
        refuses: ``Target.refuses`` of the target that gave them.
    """
    if not scores:
        return answers.to(torch.int64)
    labels = answers.argmax(1).masked_fill(~torch.isfinite(answers.amax(1)), -1)
    return labels.masked_fill(answers.isnan().all(1), REFUSED) if refuses else labels
