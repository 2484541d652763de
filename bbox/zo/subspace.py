"""Subspaces in which directions are drawn: the full space, or the low frequencies of the DCT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import scipy.fft
import torch
from torch import Tensor

__all__ = ["DCTSubspace", "FullSpace", "Subspace"]


class Subspace(ABC):
    """An orthonormal basis of ``dim`` vectors in the space of rows of ``shape``.

    Directions are drawn, weighed and summed as coefficients; only what is asked of a target is lifted to rows.
    """

    shape: tuple[int, ...]
    dim: int

    @abstractmethod
    def lift(self, coefficients: Tensor) -> Tensor:
        """Shapes: coefficients (m, dim); returns (m, *shape)."""

    @abstractmethod
    def project(self, rows: Tensor) -> Tensor:
        """The coefficients of the orthogonal projection. Shapes: rows (m, *shape); returns (m, dim)."""


class FullSpace(Subspace):
    """Every coordinate of its own: dim = the number of values in a row."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.dim = prod(self.shape)

    def lift(self, coefficients: Tensor) -> Tensor:
        return coefficients.reshape(len(coefficients), *self.shape)

    def project(self, rows: Tensor) -> Tensor:
        return rows.reshape(len(rows), self.dim)


class DCTSubspace(Subspace):
    """The top-left block of each channel's orthonormal 2-D DCT-II: low frequencies, as CGBA draws them.

    A block of (int(H / factor), int(W / factor)) coefficients a channel, at least one each way; dim = channels x
    block. ``factor=1`` spans the full space, in the DCT basis. The transform is two products with small matrices.

    Shapes:
        shape: (channels, height, width), any of them.

    Raises:
        ValueError: the shape is not of three sizes, or the factor is below 1.
    """

    def __init__(self, shape: Sequence[int], factor: float, device: torch.device | str = "cpu") -> None:
        if len(shape) != 3:
            raise ValueError(f"a DCT subspace needs (channels, height, width), got {tuple(shape)}")
        if factor < 1:
            raise ValueError(f"the subspace factor is {factor:g}, expected at least 1")
        self.shape = tuple(shape)
        channels, height, width = self.shape
        self.block = (channels, max(1, int(height / factor)), max(1, int(width / factor)))
        self.dim = prod(self.block)
        self._rows = _dct_basis(height, self.block[1]).to(device)
        self._columns = _dct_basis(width, self.block[2]).to(device)

    def lift(self, coefficients: Tensor) -> Tensor:
        rows, columns = self._basis(coefficients)
        # Two flat products, (m c h, w) x (w, W) and (m c W, h) x (h, H): a batched product of small matrices is slower.
        half = coefficients.reshape(-1, *self.block) @ columns
        return (half.transpose(-1, -2) @ rows).transpose(-1, -2)

    def project(self, rows: Tensor) -> Tensor:
        row_basis, columns = self._basis(rows)
        half = rows @ columns.T
        return (half.transpose(-1, -2) @ row_basis.T).transpose(-1, -2).reshape(len(rows), self.dim)

    def _basis(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self._rows.to(like.dtype), self._columns.to(like.dtype)


def _dct_basis(size: int, count: int) -> Tensor:
    """The first ``count`` orthonormal DCT-II vectors of length ``size``, in float64: (count, size)."""
    identity = torch.eye(size, dtype=torch.float64)[:count].numpy()
    return torch.from_numpy(scipy.fft.idct(identity, norm="ortho", axis=1))
