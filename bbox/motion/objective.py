"""The adversarial loss of a motion with no label and no victim: how far its features have moved.

Lu et al., ICCV 2023 (SMI), section 3.2 and their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.errors import UsageError
from bbox.motion.clusters import kmeans
from bbox.motion.encoders import MotionEncoder, features

__all__ = ["Objective", "PreparedObjective"]

_PUBLISHED = 120  # clusters; the nearest ones that are dropped shrink with them


@dataclass(frozen=True)
class Objective:
    """J = -s_0 + log(e^{s_0} + sum_j e^{s_j}), s = cosine / temperature; an attack maximises it.

    s_0 compares the features of the perturbed motion with those of the clean one (the positive), s_j with the
    negatives: centres of clusters of the clips at hand that are not among the nearest. The published code also takes
    the other clips of the mini-batch as negatives, which makes a result depend on its batch; we never do.

    Args:
        positive: leave the clean features; without it, J = log(sum_j e^{s_j}).
        negatives: ``centres`` (all far ones, as published), ``farthest`` (only the farthest one), ``clip`` (the
            features of one clip, drawn by seed, of the clip's farther half of the clusters), or ``none``: J = -s_0,
            whose gradient is zero at the clean motion itself, so that an attack must start beside it.
        clusters: of k-means; at most half the clips, and at least 2, are made of fewer clips.
        nearest: centres that are no negatives because they are nearest to the clean features; of fewer clusters than
            asked it is the same fraction, and at least 1, the clip's own.
        temperature: tau; 1 as published.
    """

    positive: bool = True
    negatives: Literal["centres", "farthest", "clip", "none"] = "centres"
    clusters: int = _PUBLISHED
    nearest: int = 10
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.positive and self.negatives == "none":
            raise UsageError("positive is false and negatives is none: nothing is left to maximise")
        if self.clusters < 2 or not 1 <= self.nearest < self.clusters:
            raise UsageError(f"clusters {self.clusters}, nearest {self.nearest}: expected 1 <= nearest < clusters")
        if not self.temperature > 0:
            raise UsageError(f"temperature is {self.temperature:g}, expected above 0")

    def prepare(
        self, encoders: Sequence[nn.Module] | nn.Module, motions: Tensor, *, seed: int, pool: Tensor | None = None
    ) -> PreparedObjective:
        """Features, clusters and negatives of the clips to be attacked.

        Args:
            encoders: modules from motions to features, or one; a ``MotionEncoder`` of several parts is taken apart, and
                J is the mean over all. They are put in evaluation mode and their weights frozen.
            seed: of k-means and of the drawn clips.
            pool: the clips that are clustered; the attacked ones themselves, as published, where not given. A clip's J
                depends on the pool, never on the batch in which it is asked.

        Shapes:
            motions: (n, 3, frames, joints, bodies); pool: (p, 3, frames, joints, bodies).

        Raises:
            UsageError: negatives from a pool of fewer than two clips.
        """
        given = [encoders] if isinstance(encoders, nn.Module) else list(encoders)
        parts = [p for e in given for p in (e.parts.values() if isinstance(e, MotionEncoder) else [e])]
        terms = []
        for part in parts:
            own = functional.normalize(features(part, motions), dim=1)
            others = own if pool is None else functional.normalize(features(part, pool), dim=1)
            _freeze(part)
            terms.append(_Term(part, own, *self._negatives(own, others, seed)))
        return PreparedObjective(self, tuple(terms))

    def _negatives(self, own: Tensor, pool: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What can be a negative, l2-normalised, (c, d); and which are one of each clip, (n, k) rows of it."""
        if self.negatives == "none":
            return own[:0], torch.zeros(len(own), 0, dtype=torch.int64, device=own.device)
        if len(pool) < 2:
            raise UsageError("1 clip has no far clusters; give more clips, or negatives=none")
        count = min(self.clusters, max(2, len(pool) // 2))
        centres = kmeans(pool, count, seed=seed)
        order = torch.cdist(own, centres).argsort(1)
        if self.negatives == "clip":
            return pool, self._one_clip(torch.cdist(pool, centres).argmin(1), order.argsort(1), seed)
        dropped = count - 1 if self.negatives == "farthest" else max(1, round(self.nearest * count / self.clusters))
        return functional.normalize(centres, dim=1), order[:, dropped:]

    @staticmethod
    def _one_clip(clusters: Tensor, rank: Tensor, seed: int) -> Tensor:
        """For each clip, one drawn clip of the pool whose cluster is in the farther half: (n, 1) rows of the pool."""
        drawn = torch.rand(len(clusters), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        of_pool = rank[:, clusters]
        # Where clusters are empty or equal, the farthest one that holds a clip will do.
        least = torch.minimum(of_pool.amax(1, keepdim=True), torch.full_like(of_pool[:, :1], rank.shape[1] // 2))
        return torch.where(of_pool >= least, drawn.to(rank.device), -1.0).argmax(1, keepdim=True)


@dataclass(frozen=True)
class _Term:
    """One encoder, the clean features (n, d), the candidates (c, d), and which are a clip's negatives (n, k)."""

    encoder: nn.Module
    clean: Tensor
    candidates: Tensor
    negatives: Tensor


@dataclass(frozen=True)
class PreparedObjective:
    """The loss of the clips that it was prepared for."""

    objective: Objective
    terms: tuple[_Term, ...]

    def value(self, motions: Tensor, index: Tensor) -> Tensor:
        """J of each motion, to be maximised; differentiable in the motions.

        Shapes:
            motions: (n, 3, frames, joints, bodies); index: (n,) int64, which of the prepared clips each one is, a clip
                as often as wished (views).
            returns: (n,).
        """
        return torch.stack([self._value(term, motions, index) for term in self.terms]).mean(0)

    def _value(self, term: _Term, motions: Tensor, index: Tensor) -> Tensor:
        found = functional.normalize(term.encoder(motions), dim=1)
        # Products and sums row by row: a matrix product rounds otherwise in another batch.
        near = (found[:, None] * term.candidates[term.negatives[index]]).sum(2) / self.objective.temperature
        if not self.objective.positive:
            return near.logsumexp(1)
        own = (found * term.clean[index]).sum(1) / self.objective.temperature
        if self.objective.negatives == "none":
            return -own
        return torch.cat([own[:, None], near], 1).logsumexp(1) - own


def _freeze(encoder: nn.Module) -> None:
    encoder.eval().requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.RNNBase) and module.dropout == 0:
            module.train()  # cuDNN gives no gradient in evaluation mode; without dropout the two modes are the same
