"""Classifiers of pseudo-classes: encoders that learn to name the clusters of their own first features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.motion.clusters import kmeans

__all__ = ["PseudoClasses", "calibrate", "pseudo_classes"]


class PseudoClasses(nn.Module):
    """Each encoder with a linear layer that names the pseudo-class of a noisy view (Caron et al., ECCV 2018).

    Victims are classifiers that see through noise; so are these, with classes that need no label.

    Args:
        encoders: modules from (n, 3, frames, joints, bodies) to features (n, d).
        widths: d of each.
        classes: (clips,) int64, the pseudo-class of each.
    """

    needs = 1  # views a step

    def __init__(self, encoders: Sequence[nn.Module], widths: Sequence[int], classes: Tensor) -> None:
        super().__init__()
        count = int(classes.max()) + 1
        self.networks = nn.ModuleList(
            nn.Sequential(encoder, nn.Linear(width, count)) for encoder, width in zip(encoders, widths, strict=True)
        )
        self.classes: Tensor
        self.register_buffer("classes", classes)

    def forward(self, views: Sequence[Tensor], clips: Tensor) -> Tensor:
        """The cross-entropy of a batch, summed over the encoders.

        Shapes:
            views: one, (n, 3, frames, joints, bodies); clips: (n,) their numbers.
        """
        classes = self.classes[clips]
        losses = [functional.cross_entropy(net(views[0]), classes, label_smoothing=0.05) for net in self.networks]
        return torch.stack(losses).sum()

    def follow(self) -> None:
        """Nothing follows: there is no twin."""

    def encoder(self, i: int) -> nn.Module:
        """The i-th encoder, without its last layer."""
        return cast(nn.Sequential, self.networks[i])[0]


def calibrate(module: nn.Module, batches: Sequence[Tensor]) -> None:
    """Give batch normalisations the mean statistics of these batches; an untrained one has none."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    was = module.training
    module.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for rows in batches:
            module(rows)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.train(was)


def pseudo_classes(features: Tensor, clusters: int, *, seed: int) -> Tensor:
    """The cluster of each clip, (n,): of k-means over its l2-normalised features, at most one for every 4 clips."""
    points = functional.normalize(features, dim=1)
    centres = kmeans(points, min(clusters, max(2, len(points) // 4)), seed=seed)
    return torch.cdist(points, centres).argmin(1)
