"""Random input noise: each query is answered for a noisy copy of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bbox.defenses.base import Defense, need_scores
from bbox.defenses.randomness import Randomized
from bbox.defenses.ranges import between
from bbox.defenses.scores import confidence
from bbox.targets.base import Target
from bbox.zo import gaussian

__all__ = ["RandomNoise", "noisy"]


@dataclass(frozen=True)
class RandomNoise(Defense):
    """RND: the target sees clip(x + sigma z) with fresh Gaussian z each time a query comes (Qin, Fan, Zha, Wu, "Random
    Noise Defense against Query-Based Black-Box Attacks", NeurIPS 2021).

    With a gate, only queries whose clean answer has a confidence below it get noise (Zimmer, Andreina, Marson, Karame,
    "Closing the Gap", AAAI 2024, which tries gates of 0.97 to 0.99); confident ones get the clean answer. A query below
    the gate is two to whatever lies inside: put detectors outside of it.

    Args:
        sigma: standard deviation of the noise, in units of the input's range [0, 1].
        gate: confidence from 0 to 1 below which noise is added; 0: every query gets noise. Needs scores.
        seed: of the noise; secret in service.

    Queries: one forward row each; with a gate a second one for each row below it (``rows_per_query`` says 2, the most).
    """

    sigma: float = 0.02
    gate: float = 0.0
    seed: int = 0

    summary: ClassVar[str] = "fresh Gaussian noise on each query (NeurIPS 2021), on unconfident ones only with a gate"
    cost: ClassVar[str] = "no extra forward, with a gate one for each unconfident row; accuracy under sigma"
    weakness: ClassVar[str] = "averaging over repeats, and steps that are larger than the noise (Qin et al. 2021)"
    adaptations: ClassVar[tuple[str, ...]] = ("average", "large-steps")

    def __post_init__(self) -> None:
        between("sigma", self.sigma, 0, 10, above=True)
        between("gate", self.gate, 0, 1)

    def wrap(self, target: Target) -> Target:
        if self.gate:
            need_scores(target, "noise with a gate")
        return _Noisy(target, self)


class _Noisy(Randomized):
    def __init__(self, inner: Target, defense: RandomNoise) -> None:
        super().__init__(inner, defense, name="noise", seed=defense.seed)
        self.sigma, self.gate = defense.sigma, defense.gate
        if self.gate:
            self.rows_per_query *= 2

    def __call__(self, rows: Tensor) -> Tensor:
        keys = self.keys(rows)
        if not self.gate:
            return self.inner(noisy(rows, keys, self.sigma))
        answers = self.inner(rows)
        unsure = (confidence(answers) < self.gate).nonzero()[:, 0]
        if len(unsure) == 0:
            return answers
        return answers.index_copy(0, unsure, self.inner(noisy(rows[unsure], keys[unsure], self.sigma)))


def noisy(rows: Tensor, keys: Tensor, sigma: float, *, clip: bool = True) -> Tensor:
    """rows + sigma z, clipped to [0, 1] where asked. Shapes: rows (n, *shape), keys (n,) int64; returns (n, *shape)."""
    z = gaussian(keys, rows.shape[1:].numel()).view(rows.shape).mul_(sigma).add_(rows)
    return z.clamp_(0, 1) if clip else z
