"""Smoothing vote: the answer is how noisy copies of the query vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.defenses.base import Defense
from bbox.defenses.noise import noisy
from bbox.defenses.randomness import Randomized
from bbox.defenses.ranges import between
from bbox.defenses.scores import labels_of
from bbox.errors import UsageError
from bbox.targets.base import Target
from bbox.zo import fold

__all__ = ["SmoothingVote"]

_CHUNK = 512  # rows a forward of the inner target, so that memory does not grow with rows x n


@dataclass(frozen=True)
class SmoothingVote(Defense):
    """Ask n noisy copies, count their labels (Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via
    Randomized Smoothing", ICML 2019, PREDICT; without its abstention). It certifies nothing: ``bbox certify`` does.

    The answer is the share of votes of each class, as scores: also around a target that answers labels only, since the
    shares are what a voting service has. Put ``coarsen`` with ``top=1`` around it to give the label alone. Copies
    whose answer is unusable or refused do not vote; a row without a vote is NaN.

    Args:
        sigma: standard deviation of the noise, in units of the input's range [0, 1].
        n: copies a query.
        clip: whether copies are clipped to [0, 1], as a service that takes images must. Smoothing does not clip, and on
            images with a black or white ground clipping moves the mean: at sigma 0.25 one noisy copy of zoo:digits is
            classified with 94% accuracy, with 31% when clipped.
        seed: of the noise; secret in service.

    Queries: n forward rows each, in forwards of 512.

    Raises (from ``wrap``):
        UsageError: the target answers labels and does not say how many classes there are.
    """

    sigma: float = 0.2
    n: int = 32
    clip: bool = False
    seed: int = 0

    summary: ClassVar[str] = "vote shares of noisy copies (smoothing's PREDICT, ICML 2019)"
    cost: ClassVar[str] = "n forwards; accuracy under sigma"
    weakness: ClassVar[str] = "a smooth boundary: decision-based attacks walk it with larger steps"
    adaptations: ClassVar[tuple[str, ...]] = ("average", "large-steps")

    def __post_init__(self) -> None:
        between("sigma", self.sigma, 0, 10, above=True)
        between("n", self.n, 1, 1_000_000)

    def wrap(self, target: Target) -> Target:
        if target.access == "labels" and target.num_classes is None:
            raise UsageError(f"vote counts classes, and {target.name} answers labels without saying how many there are")
        return _Vote(target, self)


class _Vote(Randomized):
    def __init__(self, inner: Target, defense: SmoothingVote) -> None:
        super().__init__(inner, defense, name="vote", seed=defense.seed)
        self.sigma, self.n, self.clip = defense.sigma, defense.n, defense.clip
        self.access = "scores"
        self.rows_per_query *= defense.n

    def __call__(self, rows: Tensor) -> Tensor:
        keys = self.keys(rows)
        classes = self.num_classes
        labels = []
        # An empty batch still asks once, for the number of classes.
        for copy in torch.split(torch.arange(len(rows) * self.n, device=rows.device), _CHUNK):
            row = copy // self.n
            copies = noisy(rows[row], fold(keys[row], copy % self.n), self.sigma, clip=self.clip)
            answers = self.inner(copies)
            if self.inner.access == "scores":
                classes = answers.shape[1]
            labels.append(labels_of(answers, scores=self.inner.access == "scores", refuses=self.inner.refuses))
        flat = torch.cat(labels)
        width = classes or 0
        valid = (flat >= 0) & (flat < width)
        owner = torch.arange(len(rows), device=flat.device).repeat_interleave(self.n)
        votes = torch.bincount(owner[valid] * width + flat[valid], minlength=len(rows) * width).view(len(rows), width)
        total = votes.sum(1, keepdim=True)
        return (votes / total).masked_fill(total == 0, torch.nan)
