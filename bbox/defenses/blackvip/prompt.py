"""A fitted prompt: what a bundle holds of BlackVIP."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bbox.defenses.blackvip.adapt import prompted
from bbox.defenses.blackvip.decoder import Statistics
from bbox.defenses.blackvip.prompters import Coordinator
from bbox.defenses.label_mapping import LabelMapping

__all__ = ["Prompt"]


@dataclass(frozen=True)
class Prompt:
    """What a fit has made.

    Attributes:
        coordinator: encoder and decoder; weights: theirs, (dim,).
        statistics: of batch norms, to serve with.
        mapping: from the model's classes to the data's, ``None`` where they are the same.
        identity: no prompt was better on held-out images, so images go through as they are.
        shape: (channels, height, width) of an image.
        cost: queries and calls of the fit.
    """

    coordinator: Coordinator
    weights: Tensor
    statistics: Statistics | None
    mapping: LabelMapping | None
    identity: bool
    shape: tuple[int, int, int]
    cost: tuple[int, int] = (0, 0)

    def to(self, device: torch.device) -> Prompt:
        """The same prompt on a device."""
        statistics = self.statistics
        if statistics is not None:
            statistics = [(mean.to(device), variance.to(device)) for mean, variance in statistics]
        return replace(self, weights=self.weights.to(device), statistics=statistics)

    def __call__(self, images: Tensor) -> Tensor:
        """Prompted images, (n, *shape) in [0, 1]."""
        if self.identity:
            return images
        context = self.coordinator.context(images)
        return prompted(self.coordinator, self.weights, images, context, self.statistics)
