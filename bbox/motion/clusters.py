"""k-means, small and seeded: the pseudo-classes of features that have no label."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kmeans"]


def kmeans(points: Tensor, clusters: int, *, seed: int, rounds: int = 50) -> Tensor:
    """Centres by Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii, SODA 2007).

    Args:
        clusters: how many, at most the number of points; equal points may leave some centres equal.
        rounds: Lloyd steps at most; it ends where no point changes its centre.

    Shapes:
        points: (n, d); returns: (clusters, d).

    Example:
        >>> sorted(kmeans(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), 2, seed=0).flatten().tolist())
        [0.5, 10.5]
    """
    clusters = min(clusters, len(points))
    generator = torch.Generator().manual_seed(seed)
    picks = torch.rand(clusters, generator=generator, dtype=torch.float64)
    centres = points[int(picks[0] * len(points))][None]
    squared = torch.cdist(points, centres).flatten().double() ** 2
    for pick in picks[1:].tolist():
        reach = squared.cumsum(0)
        chosen = int(torch.searchsorted(reach, reach[-1] * pick, right=True).clamp(max=len(points) - 1))
        centres = torch.cat([centres, points[chosen][None]])
        squared = torch.minimum(squared, torch.cdist(points, points[chosen][None]).flatten().double() ** 2)
    owners = points.new_full((len(points),), -1, dtype=torch.int64)
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        if bool((nearest == owners).all()):
            break
        owners = nearest
        counts = owners.bincount(minlength=clusters)[:, None].to(points.dtype)
        sums = torch.zeros_like(centres).index_add_(0, owners, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)  # an empty cluster stays where it was
    return centres
