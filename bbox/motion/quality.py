"""How good an encoder's features are, with no label needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.motion.augment import Views
from bbox.motion.encoders import features

__all__ = ["QUALITY_VIEWS", "EncoderQuality", "encoder_quality"]

# What a good encoder sees through.
QUALITY_VIEWS = Views(crop=0.5, rotate=0.3, scale=0.15, noise=0.03, drift=0.03)


@dataclass(frozen=True)
class EncoderQuality:
    """Figures in [0, 1], higher is better.

    Attributes:
        instance: how often, of two random views of each clip, the second is nearest to the first among all clips'.
        neighbour: how often the other clip that is nearest to a random view of a clip has its label; ``None`` without
            labels. Of the clean clip instead, raw coordinates and random features do well on windows of few recordings.
        clips: among how many clips.
    """

    instance: float
    neighbour: float | None
    clips: int

    def worse_than(self, before: EncoderQuality) -> str | None:
        """A warning where one of the figures fell, else ``None``."""
        fallen = []
        if self.instance < before.instance:
            fallen.append(f"instance discrimination fell from {before.instance:.2f} to {self.instance:.2f}")
        if self.neighbour is not None and before.neighbour is not None and self.neighbour < before.neighbour:
            fallen.append(f"nearest-neighbour agreement fell from {before.neighbour:.2f} to {self.neighbour:.2f}")
        return "training made the encoder worse: " + " and ".join(fallen) if fallen else None


def encoder_quality(
    encoder: nn.Module, motions: Tensor, *, labels: Tensor | None = None, seed: int = 0, views: Views = QUALITY_VIEWS
) -> EncoderQuality:
    """Instance discrimination between random views, and agreement of nearest neighbours where labels are at hand.

    Args:
        labels: (n,), for reporting alone.
        views: changes that a good encoder sees through: crops, turns, sizes, sensor noise and drift.

    Shapes:
        motions: (n, 3, frames, joints, bodies).
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = (features(encoder, views(motions, generator)) for _ in range(2))
    instance = (_similarity(first, second).argmax(1) == torch.arange(len(motions), device=motions.device)).float()
    neighbour = None
    if labels is not None and len(motions) > 1:
        nearest = _similarity(first, features(encoder, motions)).fill_diagonal_(-2).argmax(1).to(labels.device)
        neighbour = float((labels[nearest] == labels).float().mean())
    return EncoderQuality(float(instance.mean()), neighbour, len(motions))


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    return functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T
