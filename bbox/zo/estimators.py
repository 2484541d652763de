"""Zeroth-order gradient estimators, batched over (point, direction).

An estimator works in two steps, so that whoever holds the oracle does the asking: ``plan`` names the rows to be asked,
``Probes.gradient`` turns their answers into estimates. ``estimate`` joins the two for a plain function.

======================  =========================  ====================================================================
estimator               queries a point            estimate of the gradient of l at x
======================  =========================  ====================================================================
``RGE("forward")``      q + 1                      scale/(mu q) * sum_j [l(x + mu u_j) - l(x)] u_j
``RGE("central")``      2 q                        scale/(2 mu q) * sum_j [l(x + mu u_j) - l(x - mu u_j)] u_j
``CGE("forward")``      dim + 1                    sum_k [l(x + mu e_k) - l(x)]/mu e_k
``CGE("central")``      2 dim                      sum_k [l(x + mu e_k) - l(x - mu e_k)]/(2 mu) e_k
``DecisionMonteCarlo``  q                          1/q * sum_j (s_j - mean s) z_j, a direction, not a length
======================  =========================  ====================================================================

``scale`` is dim for unit directions (sphere, orthogonal) and 1 for gaussian and rademacher ones, so that each RGE is
unbiased for the gradient of the smoothed function (Nesterov & Spokoiny 2017). The cosine between an RGE and the true
gradient is about sqrt(q / (q + dim + 1)) for independent directions, sqrt(q / dim) for orthogonal ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bbox.zo.directions import Directions, Law
from bbox.zo.subspace import FullSpace, Subspace

__all__ = ["CGE", "RGE", "DecisionMonteCarlo", "Estimator", "Probes"]

Side = Literal["forward", "central"]


@dataclass(frozen=True)
class Probes:
    """The rows that an estimate needs, by number; ``rows`` makes any of them when they are asked.

    For each point, in this order: its base row where the differences need one (``base``), then one row a direction
    (``signs == (1,)``) or two (``signs == (1, -1)``).

    Shapes:
        points: (n, *shape); step: (n,), the distance mu (or sigma) along a direction.
        owner: (m,) int64 on the CPU, the point that each row belongs to.
    """

    points: Tensor
    step: Tensor
    subspace: Subspace
    directions: Directions
    signs: tuple[int, ...]
    base: bool
    scale: float

    @property
    def per_point(self) -> int:
        """Rows (queries) a point."""
        return self.directions.q * len(self.signs) + self.base

    @property
    def owner(self) -> Tensor:
        return torch.arange(len(self.points)).repeat_interleave(self.per_point)

    def rows(self, index: Tensor) -> Tensor:
        """Make the rows with these numbers. Shapes: index (k,) int64; returns (k, *shape)."""
        index = index.to(self.points.device)
        point, number = index // self.per_point, index % self.per_point - int(self.base)
        is_base = number < 0
        number = number.clamp(min=0)
        flat = point * self.directions.q + number // len(self.signs)
        side = torch.tensor(self.signs, dtype=self.points.dtype, device=self.points.device)
        length = (side[number % len(self.signs)] * self.step[point]).masked_fill(is_base, 0.0)
        lifted = self.subspace.lift(self.directions.at(flat))
        ones = [1] * len(self.subspace.shape)
        return self.points[point] + length.view(-1, *ones) * lifted

    def gradient(self, values: Tensor) -> Tensor:
        """Estimate each point's gradient from its rows' values.

        Shapes:
            values: (m,) float, in the order of the rows.
            returns: (n, dim) float32 coefficients in the subspace; lift them for rows.
        """
        table = values.view(len(self.points), self.per_point)
        base = table[:, :1] if self.base else torch.zeros_like(table[:, :1])
        table = table[:, int(self.base) :].reshape(len(self.points), self.directions.q, len(self.signs))
        difference = table[..., 0] - (table[..., 1] if len(self.signs) == 2 else base)
        span = self.step[:, None].to(difference) * len(self.signs)
        return self.directions.weighted_sum((difference / span).float()) * self.scale


class Estimator(ABC):
    """Plans the rows of an estimate; ``queries(dim)`` is the cost a point."""

    @abstractmethod
    def plan(self, points: Tensor, keys: Tensor, step: Tensor, subspace: Subspace | None = None) -> Probes:
        """Name the rows to ask.

        Shapes:
            points: (n, *shape) float; keys: (n,) int64, a key a point; step: (n,), mu > 0 in the rows' unit.
        """

    @abstractmethod
    def queries(self, dim: int) -> int:
        """Queries that one point's estimate costs in ``dim`` dimensions."""

    def estimate(
        self,
        function: Callable[[Tensor], Tensor],
        points: Tensor,
        keys: Tensor,
        step: float,
        subspace: Subspace | None = None,
        *,
        chunk: int = 4096,
    ) -> Tensor:
        """Plan, ask ``function`` in chunks of rows, and estimate: (n, *shape) gradients.

        >>> import torch
        >>> from bbox.zo import CGE, root_keys
        >>> x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
        >>> square = lambda rows: rows.square().sum(1)
        >>> CGE("central").estimate(square, x, root_keys(0, torch.arange(1)), step=1e-3).round(decimals=4)
        tensor([[ 2., -4.]])
        """
        subspace = subspace or FullSpace(points.shape[1:])
        probes = self.plan(points, keys, torch.full_like(keys, 1, dtype=points.dtype) * step, subspace)
        index = torch.arange(len(points) * probes.per_point)
        values = torch.cat([function(probes.rows(part)) for part in torch.split(index, chunk)])
        return subspace.lift(probes.gradient(values))


@dataclass(frozen=True)
class RGE(Estimator):
    """Randomised gradient estimate along ``q`` random directions."""

    q: int
    side: Side = "forward"
    law: Law = "sphere"

    def plan(self, points: Tensor, keys: Tensor, step: Tensor, subspace: Subspace | None = None) -> Probes:
        subspace = subspace or FullSpace(points.shape[1:])
        directions = Directions(keys, self.q, subspace.dim, self.law)
        scale = (subspace.dim if self.law in ("sphere", "orthogonal") else 1) / self.q
        signs = (1,) if self.side == "forward" else (1, -1)
        return Probes(points, step, subspace, directions, signs, self.side == "forward", scale)

    def queries(self, dim: int) -> int:
        return self.q + 1 if self.side == "forward" else 2 * self.q


@dataclass(frozen=True)
class CGE(Estimator):
    """Coordinate-wise gradient estimate: one difference a coordinate of the subspace."""

    side: Side = "forward"

    def plan(self, points: Tensor, keys: Tensor, step: Tensor, subspace: Subspace | None = None) -> Probes:
        subspace = subspace or FullSpace(points.shape[1:])
        directions = Directions(keys, subspace.dim, subspace.dim, "coordinate")
        signs = (1,) if self.side == "forward" else (1, -1)
        return Probes(points, step, subspace, directions, signs, self.side == "forward", 1.0)

    def queries(self, dim: int) -> int:
        return dim + 1 if self.side == "forward" else 2 * dim


@dataclass(frozen=True)
class DecisionMonteCarlo:
    """The boundary's normal from signs alone: s_j = +1 where x + sigma z_j is adversarial, -1 where it is not.

    The mean sign is subtracted, the baseline of HopSkipJump (Chen, Jordan, Wainwright 2020), which matters where signs
    are unbalanced; the public CGBA code uses the plain sum (``center=False``). The cosine to the true normal is
    about sqrt(2 q / (pi dim)) while the boundary is flat at the scale of sigma.

    Queries: q a point.
    """

    center: bool = True

    def normal(self, directions: Directions, signs: Tensor) -> Tensor:
        """Sum signed directions.

        Shapes:
            signs: (n, q) of -1, 1, and 0 for a direction that was not answered.
            returns: (n, dim) float64. Exact sums of gaussian directions, so the same in any batch.
        """
        signs = signs.to(directions.keys.device, torch.float32)
        total = directions.weighted_sum(signs).double()
        if self.center:
            answered = signs.abs()
            mean = signs.double().sum(1) / answered.double().sum(1).clamp(min=1)
            total -= mean[:, None] * directions.weighted_sum(answered).double()
        return total
