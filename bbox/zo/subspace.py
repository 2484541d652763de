"""Subspaces in which directions are drawn: the full space, or the low frequencies of the DCT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from math import prod

import scipy.fft
import torch
from torch import Tensor

__all__ = ["DCTSubspace", "FullSpace", "Subspace", "TemporalSubspace"]


# Float64 sums of products of multiples of 2**-22 are exact while they stay below 512, in any order: the same bits in
# any batch and on any device. BLAS promises that of no other product: its kernels, and so its rounding, depend on the
# batch.
_TO_GRID = 1.5 * 2**30  # adding it to a smaller float64 leaves no bit below 2**-22


class Subspace(ABC):
    """An orthonormal basis of ``dim`` vectors in the space of rows of ``shape``.

    Directions are drawn, weighed and summed as coefficients; only what is asked of a target is lifted to rows.

    With ``exact``, vectors and basis are rounded to multiples of 2**-22, and the float64 result is the same bits for a
    vector alone and in any batch; for vectors whose length in a row or column of the image stays below 512.
    """

    shape: tuple[int, ...]
    dim: int

    @abstractmethod
    def lift(self, coefficients: Tensor, *, exact: bool = False) -> Tensor:
        """Shapes: coefficients (m, dim); returns (m, *shape)."""

    @abstractmethod
    def project(self, rows: Tensor, *, exact: bool = False) -> Tensor:
        """The coefficients of the orthogonal projection. Shapes: rows (m, *shape); returns (m, dim)."""


class FullSpace(Subspace):
    """Every coordinate of its own: dim = the number of values in a row."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.dim = prod(self.shape)

    def lift(self, coefficients: Tensor, *, exact: bool = False) -> Tensor:
        return _on_grid(coefficients, exact).reshape(len(coefficients), *self.shape)

    def project(self, rows: Tensor, *, exact: bool = False) -> Tensor:
        return _on_grid(rows, exact).reshape(len(rows), self.dim)


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
        self._bases = {
            exact: tuple(
                _on_grid(_dct_basis(size, count), exact).to(device)
                for size, count in zip(self.shape[1:], self.block[1:], strict=True)
            )
            for exact in (False, True)
        }

    def lift(self, coefficients: Tensor, *, exact: bool = False) -> Tensor:
        coefficients = _on_grid(coefficients, exact)
        rows, columns = self._basis(coefficients, exact)
        # Two flat products, (m c h, w) x (w, W) and (m c W, h) x (h, H): a batched product of small matrices is slower.
        half = _on_grid(coefficients.reshape(-1, *self.block) @ columns, exact)
        return (half.transpose(-1, -2) @ rows).transpose(-1, -2)

    def project(self, rows: Tensor, *, exact: bool = False) -> Tensor:
        rows = _on_grid(rows, exact)
        row_basis, columns = self._basis(rows, exact)
        half = _on_grid(rows @ columns.T, exact)
        return (half.transpose(-1, -2) @ row_basis.T).transpose(-1, -2).reshape(len(rows), self.dim)

    def _basis(self, like: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
        rows, columns = self._bases[exact]
        return rows.to(like.dtype), columns.to(like.dtype)


class TemporalSubspace(Subspace):
    """The lowest frequencies over time of every coordinate of a motion: ``DCTSubspace`` along the frames alone.

    ``factor`` = frames leaves the mean of each coordinate: an offset that is the same in every frame.

    Shapes:
        shape: (axes, frames, joints, bodies).
    """

    def __init__(self, shape: Sequence[int], factor: float, device: torch.device | str = "cpu") -> None:
        self.shape = tuple(shape)
        axes, frames, joints, bodies = self.shape
        self._dct = DCTSubspace((axes * joints * bodies, frames, 1), factor, device)
        self.dim = self._dct.dim

    def lift(self, coefficients: Tensor, *, exact: bool = False) -> Tensor:
        axes, frames, joints, bodies = self.shape
        series = self._dct.lift(coefficients, exact=exact).view(-1, axes, joints, bodies, frames)
        return series.permute(0, 1, 4, 2, 3).contiguous()

    def project(self, rows: Tensor, *, exact: bool = False) -> Tensor:
        series = rows.permute(0, 1, 3, 4, 2).reshape(len(rows), *self._dct.shape)
        return self._dct.project(series, exact=exact)


def _on_grid(values: Tensor, exact: bool) -> Tensor:
    return (values.double() + _TO_GRID).sub_(_TO_GRID) if exact else values


@lru_cache(maxsize=64)
def _dct_basis(size: int, count: int) -> Tensor:
    """The first ``count`` orthonormal DCT-II vectors of length ``size``, in float64: (count, size)."""
    identity = torch.eye(size, dtype=torch.float64)[:count].numpy()
    return torch.from_numpy(scipy.fft.idct(identity, norm="ortho", axis=1))
