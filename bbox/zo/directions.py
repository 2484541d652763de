"""Random directions as keys: drawn when they are asked for, drawn again when they are summed, never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bbox.zo.random import fold, gaussian, rademacher

__all__ = ["Directions", "Law"]

Law = Literal["gaussian", "rademacher", "sphere", "orthogonal", "coordinate"]


@dataclass(frozen=True)
class Directions:
    """``q`` directions for each of n points; direction j of point i has the flat number i * q + j.

    Laws:
        gaussian: independent N(0, 1) coefficients.
        rademacher: independent signs.
        sphere: uniform on the unit sphere.
        orthogonal: uniform on the unit sphere, the q of a point orthogonal to each other (needs q <= dim).
        coordinate: the q = dim unit vectors.

    Shapes:
        keys: (n,) int64, one key a point (see ``bbox.zo.random``).
    """

    keys: Tensor
    q: int
    dim: int
    law: Law = "gaussian"

    def __post_init__(self) -> None:
        if self.q < 1:
            raise ValueError(f"{self.q} directions asked for, expected at least 1")
        if self.law == "orthogonal" and self.q > self.dim:
            raise ValueError(f"{self.q} orthogonal directions do not exist in {self.dim} dimensions")
        if self.law == "coordinate" and self.q != self.dim:
            raise ValueError(f"coordinate directions are {self.dim} in {self.dim} dimensions, not {self.q}")

    def __len__(self) -> int:
        return len(self.keys) * self.q

    def at(self, index: Tensor) -> Tensor:
        """The directions with these flat numbers. Shapes: index (k,) int64; returns (k, dim) float32."""
        point, number = index // self.q, index % self.q
        if self.law == "coordinate":
            rows = torch.zeros(len(index), self.dim, device=self.keys.device)
            return rows.scatter_(1, number[:, None], 1.0)
        if self.law == "orthogonal":
            points, place = torch.unique(point, return_inverse=True)
            return self._frames(points)[place, number]
        key = fold(self.keys[point], number)
        if self.law == "rademacher":
            return rademacher(key, self.dim)
        rows = gaussian(key, self.dim)
        if self.law == "sphere":
            rows = rows / rows.double().square().sum(1, keepdim=True).sqrt().float()
        return rows

    def weighted_sum(self, weights: Tensor, *, chunk: int = 1 << 22) -> Tensor:
        """Sum the directions of each point with these weights, drawing at most ``chunk`` numbers at a time.

        With gaussian directions and weights of -1, 0 and 1 the sum is exact in float32 (see ``bbox.zo.random``).

        Shapes:
            weights: (n, q) float32.
            returns: (n, dim) float32.
        """
        n = len(self.keys)
        total = torch.zeros(n, self.dim, device=self.keys.device)
        points = torch.arange(n, device=self.keys.device)
        # Whole points where they fit, slices of the q directions where one point alone is too many.
        step = max(1, min(self.q, chunk // self.dim))
        rows = max(1, chunk // (step * self.dim))
        for i in range(0, n, rows):
            for j in range(0, self.q, step):
                number = torch.arange(j, min(j + step, self.q), device=self.keys.device)
                flat = (points[i : i + rows, None] * self.q + number).reshape(-1)
                drawn = self.at(flat).view(-1, len(number), self.dim)
                total[i : i + rows] += torch.bmm(weights[i : i + rows, None, number], drawn)[:, 0]
        return total

    def _frames(self, points: Tensor) -> Tensor:
        """Orthonormal frames by QR of Gaussian matrices: (points, q, dim), Haar-distributed.

        In float64, since LAPACK's last bits depend on where a matrix lies in memory; float32 does not show them.
        """
        number = torch.arange(self.q, device=self.keys.device)
        key = fold(self.keys[points][:, None], number).reshape(-1)
        drawn = gaussian(key, self.dim).double().view(len(points), self.q, self.dim)
        frame, triangle = torch.linalg.qr(drawn.transpose(1, 2))
        signs = triangle.diagonal(dim1=1, dim2=2).sign()
        frames: Tensor = (frame * signs[:, None]).transpose(1, 2).float()
        return frames
