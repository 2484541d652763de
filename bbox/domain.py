"""The domain of inputs: bounds, distance, validity. Every query and every result obeys it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

__all__ = ["NORMS", "ROUNDING", "Box", "Domain", "Norm", "l2", "row_sum"]

Norm = Literal["l2", "linf", "names"]  # names: identifiers that have another name (``bbox.code.domain``)
NORMS: tuple[Norm, ...] = get_args(Norm)

# Pixels are float32 in [0, 1], so a difference of two is known to 6e-8. Without this allowance an image at 8-bit
# distance 8/255 would lie outside the ball of radius 8/255.
ROUNDING = 1e-7

_WHOLE = 1 << 14  # torch may split a lone sum of twice this length over its threads


class Domain(Protocol):
    """What the books need to know of a domain."""

    def fault(self, rows: Any) -> str | None:
        """What is wrong with these rows, ``None`` if nothing is."""

    def distance(self, originals: Any, rows: Any) -> Tensor:
        """Distances (m,) float64, inf for a row that is no valid result."""

    def rough_distance(self, originals: Any, rows: Any) -> Tensor:
        """Distances (m,) for screening, at most 1e-4 above the exact ones; may overwrite ``rows``."""


@dataclass(frozen=True)
class Box:
    """Images: every value in [low, high], and the norm of their differences that distances are measured in.

    Attributes:
        norm: ``"l2"``, or ``"linf"`` (largest absolute difference of a value).
        levels: steps from 0 to 1 of the grid that the target rounds rows to (255 for 8 bits); 0 for none.
    """

    low: float = 0.0
    high: float = 1.0
    norm: Norm = "l2"
    levels: int = 0

    @property
    def width(self) -> float:
        """How far a value can move."""
        return self.high - self.low

    def clip(self, rows: Tensor, originals: Tensor) -> Tensor:
        """Project rows onto the box, in place; it is the same around every original."""
        del originals
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
        """Distance in float64. Shapes: originals, rows (m, *shape); returns (m,)."""
        difference = rows.double() - originals.double()
        return difference.abs().flatten(1).amax(1) if self.norm == "linf" else l2(difference)

    def rough_distance(self, originals: Tensor, rows: Tensor) -> Tensor:
        """Distance in float32, for screening; overwrites ``rows``. Shapes as ``distance``."""
        order = torch.inf if self.norm == "linf" else 2
        norm: Tensor = torch.linalg.vector_norm(rows.sub_(originals).flatten(1), ord=order, dim=1)
        return norm

    def linf_ball(self, originals: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """The lowest and the highest rows, float32, within ``epsilon`` of each value and in the box.

        Rounded inwards: no float64 difference to the originals exceeds ``epsilon`` (on a grid: by 6e-8 at most).
        """
        exact = originals.double()
        corners = []
        for sign in (-1, 1):
            edge = self.clip(exact + sign * epsilon, exact).float()
            beyond = (edge.double() - exact).abs() > epsilon
            corners.append(self.inward(originals, torch.where(beyond, edge.nextafter(originals), edge)))
        return corners[0], corners[1]

    def pull(self, originals: Tensor, rows: Tensor, radius: float) -> Tensor:
        """Rows in the box, each pulled into the ball of this radius around its original. Shapes: (m, *shape)."""
        if self.norm == "linf":
            low, high = self.linf_ball(originals, radius)
            return torch.minimum(torch.maximum(rows, low), high)
        # A hair inside, so that rounding to float32 does not put it back outside.
        part = (radius * (1 - 1e-6) / self.distance(originals, rows)).clamp(max=1.0).float()
        return torch.lerp(originals, rows, part.view(-1, *[1] * (rows.ndim - 1)))

    def inward(self, originals: Tensor, rows: Tensor) -> Tensor:
        """Rows on the target's grid, float32, each value rounded towards the original's. Shapes: (m, *shape)."""
        if not self.levels:
            return rows.float()
        steps = rows.double() * self.levels
        slack = ROUNDING * self.levels
        steps = torch.where(rows > originals, (steps + slack).floor(), (steps - slack).ceil())
        return (steps + 0.0).float() / float(self.levels)  # + 0.0: no negative zero


def l2(rows: Tensor) -> Tensor:
    """The l2 norm of each row: (m, *shape) -> (m,). The same for a row alone and in any batch: summed in two steps, so
    that torch never splits one row's sum over threads."""
    return rows.flatten(1, -2).square().sum(-1).sum(-1).sqrt() if rows.ndim > 2 else row_sum(rows.square()).sqrt()


def row_sum(rows: Tensor) -> Tensor:
    """Sum each row, (m, dim) -> (m,): like ``l2``, the same for a row alone and in any batch."""
    if rows.shape[1] <= _WHOLE:
        return rows.sum(1)
    return torch.stack([part.sum(1) for part in torch.split(rows, _WHOLE, dim=1)], 1).sum(1)
