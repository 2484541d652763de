"""Recipes of encoder pre-training: the published one, and one for small data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bbox.errors import UsageError
from bbox.motion.augment import Views

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to pre-train.

    Args:
        objective: ``clusters`` names the k-means clusters of the untrained features (``bbox.motion.pseudo``);
            ``contrast`` is momentum contrast (``bbox.motion.contrastive``), as published.
        clusters: pseudo-classes, at most one for every 4 motions.
        epochs: passes over the motions.
        steps: at least so many steps, by more epochs where the motions are few.
        batch: clips a step.
        queue: past keys that serve as negatives, at most; it shrinks to a multiple of the batch that is at most the
            number of clips less one batch (one batch at least), so that on small data it holds each clip about once.
        temperature: tau of InfoNCE.
        momentum: of the slow twins.
        optimizer: ``adam`` (AdamW) or ``sgd`` (momentum 0.9).
        rate: learning rate; its highest value under cosine.
        weight_decay: of the optimizer.
        drops: epochs at which the rate falls to a tenth; none: a warm-up over a tenth of the steps, then cosine to 0.
        views: what the augmentations are.
    """

    objective: Literal["clusters", "contrast"] = "clusters"
    clusters: int = 60
    epochs: int = 12
    steps: int = 400
    batch: int = 32
    queue: int = 1024
    temperature: float = 0.2
    momentum: float = 0.99
    optimizer: Literal["adam", "sgd"] = "adam"
    rate: float = 3e-3
    weight_decay: float = 1e-4
    drops: tuple[int, ...] = ()
    views: Views = field(default_factory=lambda: Views(crop=0.7, rotate=0.15, noise=0.04, drift=0.03))

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "queue", "temperature", "rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected above 0")
        if self.clusters < 2:
            raise UsageError(f"clusters is {self.clusters}, expected at least 2")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum is {self.momentum}, expected at least 0 and below 1")


RECIPES: dict[str, Recipe] = {
    "small": Recipe(),
    # Lu et al., ICCV 2023, and the options file of their code.
    "paper": Recipe(
        objective="contrast",
        batch=64,
        epochs=451,
        steps=0,
        queue=16384,
        temperature=0.07,
        momentum=0.999,
        optimizer="sgd",
        rate=0.01,
        drops=(160, 351),
        views=Views(crop=0.1, shear=1.0, corrupt=0.6),
    ),
}
