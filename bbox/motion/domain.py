"""The domain of attacks on motion: the epsilon tube around the original, in place of the box of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bbox.domain import Box, l2
from bbox.motion.presence import movable, present

__all__ = ["Tube", "between", "joints_there"]


@dataclass(frozen=True)
class Tube(Box):
    """Motions whose every coordinate stays within ``radius`` of the original's; padding and absent bodies stay zero.

    Attributes:
        radius: metres.
        axes: channels, from the first, that are coordinates (``bbox.motion.skeleton.Skeleton``).
        norm: ``"l2"``, the root of the mean square displacement of a joint (over frames, joints and bodies that are
            there), or ``"linf"``, the largest displacement of a coordinate; both in metres.

    A motion that leaves the tube has no finite distance, so it is never a result.
    """

    radius: float = 0.1
    axes: int = 3

    @property
    def width(self) -> float:
        return 2 * self.radius

    def clip(self, rows: Tensor, originals: Tensor) -> Tensor:
        """The nearest rows in the tubes of their originals. Shapes: both (m, 3, frames, joints, bodies)."""
        return between(rows, *self.linf_ball(originals, self.radius))

    def fault(self, rows: Tensor) -> str | None:
        """What is wrong with these rows, ``None`` if nothing is; whether they lie in a tube, the distance says."""
        return None if bool(torch.isfinite(rows).all()) else "a coordinate is not finite"

    def distance(self, originals: Tensor, rows: Tensor) -> Tensor:
        """Distance in float64, inf outside the tube. Shapes: originals, rows (m, *shape); returns (m,)."""
        difference = rows.double() - originals.double()
        there = movable(originals, self.axes)
        largest = difference.abs().flatten(1).amax(1)
        beyond = (largest > self.radius) | (difference.masked_fill(there, 0.0) != 0).flatten(1).any(1)
        size = largest if self.norm == "linf" else _root_mean_square(difference, originals)
        return size.masked_fill(beyond, torch.inf)

    def rough_distance(self, originals: Tensor, rows: Tensor) -> Tensor:
        """Distance in float32, for screening; a row outside the tube is caught by ``distance``."""
        rows.sub_(originals)
        if self.norm == "linf":
            return rows.abs().flatten(1).amax(1)
        return _root_mean_square(rows, originals).float()

    def linf_ball(self, originals: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """The lowest and the highest rows, float32, within ``epsilon`` of each coordinate and in the tube."""
        there = movable(originals, self.axes)
        exact, reach = originals.double(), min(epsilon, self.radius)
        corners = []
        for sign in (-1, 1):
            corners.append(torch.where(there, _rounded(exact + sign * reach, originals), originals))
        return corners[0], corners[1]

    def pull(self, originals: Tensor, rows: Tensor, radius: float) -> Tensor:
        """Rows in the tube, each pulled into the ball of this radius around its original. Shapes: (m, *shape).

        No distance in float64 is beyond the radius: metres are not known as well as the pixels of ``Box``, so each
        coordinate is rounded towards the original's.
        """
        if self.norm == "linf":
            return between(rows, *self.linf_ball(originals, radius))
        exact = originals.double()
        difference = rows.double() - exact
        part = radius * (1 - 1e-9) / _root_mean_square(difference, originals).view(-1, 1, 1, 1, 1)
        return torch.where(part < 1, _rounded(exact + part.clamp(max=1.0) * difference, originals), rows)


def between(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Rows no lower and no higher than these, with no negative zeros: which zero torch gives depends on the batch."""
    return torch.minimum(torch.maximum(rows, low), high).add_(0.0)


def joints_there(motions: Tensor) -> Tensor:
    """How many joints of how many frames and bodies are there. Shapes: (m,) float64, at least 1."""
    frames: Tensor = present(motions).double().flatten(1).sum(1)
    counted: Tensor = frames.clamp(min=1) * motions.shape[3]
    return counted


def _root_mean_square(difference: Tensor, originals: Tensor) -> Tensor:
    """Root of the mean square length of the joints that are there: (m,)."""
    return l2(difference) / joints_there(originals).sqrt()


def _rounded(exact: Tensor, originals: Tensor) -> Tensor:
    """Float32 numbers that are no farther from the originals than these float64 ones."""
    found, origin = exact.float(), originals.double()
    beyond = (found.double() - origin).abs() > (exact - origin).abs()
    return torch.where(beyond, found.nextafter(originals), found)
