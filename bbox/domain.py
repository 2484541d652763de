"""The domain of inputs: bounds, distance, validity. Every query and every result obeys it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Box", "l2", "row_sum"]

_WHOLE = 1 << 14  # torch may split a lone sum of twice this length over its threads


@dataclass(frozen=True)
class Box:
    """Images: every value in [low, high], l2 distance."""

    low: float = 0.0
    high: float = 1.0

    def clip(self, rows: Tensor) -> Tensor:
        """Project rows onto the box, in place."""
        return rows.clamp_(self.low, self.high)

    def fault(self, rows: Tensor) -> str | None:
        """What is wrong with these rows, ``None`` if nothing is."""
        if rows.numel() == 0:
            return None
        low, high = (float(v) for v in torch.stack(torch.aminmax(rows)).cpu())
        if self.low <= low and high <= self.high:
            return None
        return f"values reach from {low:g} to {high:g}, the box is [{self.low:g}, {self.high:g}]"

    def distance(self, originals: Tensor, rows: Tensor) -> Tensor:
        """l2 distance in float64. Shapes: originals, rows (m, *shape); returns (m,)."""
        return l2(rows.double() - originals.double())

    def rough_distance(self, originals: Tensor, rows: Tensor) -> Tensor:
        """l2 distance in float32, for screening; overwrites ``rows``. Shapes as ``distance``."""
        norm: Tensor = torch.linalg.vector_norm(rows.sub_(originals).flatten(1), dim=1)
        return norm


def l2(rows: Tensor) -> Tensor:
    """The l2 norm of each row: (m, *shape) -> (m,). The same for a row alone and in any batch: summed in two steps, so
    that torch never splits one row's sum over threads."""
    return rows.flatten(1, -2).square().sum(-1).sum(-1).sqrt() if rows.ndim > 2 else row_sum(rows.square()).sqrt()


def row_sum(rows: Tensor) -> Tensor:
    """Sum each row, (m, dim) -> (m,): like ``l2``, the same for a row alone and in any batch."""
    if rows.shape[1] <= _WHOLE:
        return rows.sum(1)
    return torch.stack([part.sum(1) for part in torch.split(rows, _WHOLE, dim=1)], 1).sum(1)
