"""Boundary noise: noise on the scores of unconfident answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.defenses.base import Defense, need_scores
from bbox.defenses.randomness import Randomized
from bbox.defenses.ranges import between
from bbox.defenses.scores import are_probabilities, confidence, logits
from bbox.targets.base import Target
from bbox.zo import gaussian

__all__ = ["BoundaryNoise"]


@dataclass(frozen=True)
class BoundaryNoise(Defense):
    """Fresh Gaussian noise on the logits of answers whose confidence is below a threshold, so that queries near the
    boundary get noisy scores and noisy labels (Aithal, Li, "Boundary Defense Against Black-box Adversarial Attacks",
    arXiv 2201.13444; sigma 0.1 and threshold 0.3 are its ImageNet setting).

    A target that answers probabilities gets the noise on their logarithms, and answers probabilities again.

    Args:
        sigma: standard deviation of the noise on a logit.
        threshold: confidence from 0 to 1 below which noise is added. With c classes it must exceed 1 / c to act at all;
            with two classes no answer is below 0.5.
        seed: of the noise; secret in service.

    Queries: one forward row each.
    """

    sigma: float = 0.1
    threshold: float = 0.5
    seed: int = 0

    summary: ClassVar[str] = "noise on the logits of unconfident answers (arXiv 2201.13444)"
    needs: ClassVar[tuple[str, ...]] = ("scores",)
    cost: ClassVar[str] = "no forward; labels of answers near the boundary"
    weakness: ClassVar[str] = "averaging over repeats; attacks that stay in the confident region"
    adaptations: ClassVar[tuple[str, ...]] = ("average", "large-steps")

    def __post_init__(self) -> None:
        between("sigma", self.sigma, 0, 1000, above=True)
        between("threshold", self.threshold, 0, 1, above=True)

    def wrap(self, target: Target) -> Target:
        need_scores(target, "boundary-noise")
        return _Boundary(target, self)


class _Boundary(Randomized):
    def __init__(self, inner: Target, defense: BoundaryNoise) -> None:
        super().__init__(inner, defense, name="boundary-noise", seed=defense.seed)
        self.sigma, self.threshold = defense.sigma, defense.threshold

    def __call__(self, rows: Tensor) -> Tensor:
        scores = self.inner(rows)
        if len(rows) == 0:
            return scores
        near = logits(scores) + self.sigma * gaussian(self.keys(rows), scores.shape[1])
        near = torch.where(are_probabilities(scores)[:, None], near.softmax(1), near)
        return torch.where((confidence(scores) < self.threshold)[:, None], near.float(), scores.float())
