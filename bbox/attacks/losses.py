"""Losses that score-based attacks minimise: each is below zero where the goal is met."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Loss", "are_probabilities", "as_logits", "margin", "reflected", "scale_free"]

Loss = Literal["margin", "scale-free", "reverse"]


def are_probabilities(scores: Tensor) -> Tensor:
    """Which rows are probabilities: none negative, and a sum within 0.02 of 1 (some targets round them).

    Shapes: scores (m, classes); returns (m,) bool.
    """
    return (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < 0.02)


def as_logits(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Scores in float64, and the logs of those that are probabilities: logits up to a shift of the row.

    A saturated softmax (1.0 and nothing else to see in float32) then still tells its small entries apart.

    Shapes: scores (m, classes), probabilities (m,) bool; returns (m, classes).
    """
    scores = scores.double()
    return torch.where(probabilities[:, None], scores.clamp(min=1e-45).log(), scores)


def margin(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Square Attack, section 3: score of the label less the best other one; with ``targeted``, its negative.

    Shapes: logits (m, classes), labels (m,) int64; returns (m,).
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return other - own if targeted else own - other


def scale_free(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """The margin over the standard deviation of the row's (finite) logits: the same for a logits' row times any
    positive factor plus any shift. With two classes only its sign is left."""
    finite = torch.isfinite(logits)
    count = finite.sum(1).clamp(min=1)
    centred = logits.masked_fill(~finite, 0.0)
    centred = (centred - (centred.sum(1) / count)[:, None]).masked_fill(~finite, 0.0)
    spread = (centred.square().sum(1) / count).sqrt()
    return margin(logits, labels, targeted) / spread.clamp(min=1e-300)


def reflected(margins: Tensor, period: float) -> Tensor:
    """Each margin mirrored at the middle of its interval [k period, (k + 1) period): undoes a reversal in intervals."""
    middle = (torch.floor(margins / period) + 0.5) * period
    return 2 * middle - margins
