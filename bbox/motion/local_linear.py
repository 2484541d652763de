"""Kernel-weighted local-linear least squares of many series at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Kernel", "local_linear"]

Kernel = Literal["triweight", "epanechnikov", "gaussian"]

_RANK = 1e-10


def local_linear(
    regressors: Sequence[Tensor], target: Tensor, observed: Tensor, reach: Tensor, kernel: Kernel, *, leverage: bool
) -> tuple[Tensor, Tensor]:
    """Coefficients at every frame of the target on the regressors, each a line in time near that frame.

    The unknowns are k levels and then k slopes in time, so the normal equations are moments of products of two
    regressors with the kernel times 1, time and time squared: three matrix products for all series of a body. They are
    scaled to a unit diagonal and solved by Cholesky, written out over all of them at once; an unknown whose pivot is
    below 1e-10 is left out.

    Shapes:
        regressors: k of (p, frames, s); target: (p, frames, s); zero or any finite number where not observed.
        observed: (p, frames) bool, the frames that count.
        reach: (p,) bandwidth in frames.
        returns: (p, k, frames, s), and what each frame's observation weighs in the fit at that frame (its leverage),
            (p, frames, s), zero unless asked for.
    """
    k = len(regressors)
    pairs = [(i, j) for i in range(k) for j in range(i + 1)]
    products = torch.stack([regressors[i] * regressors[j] for i, j in pairs] + [r * target for r in regressors], 2)
    count, frames, kinds, series = products.shape
    place = torch.arange(frames, device=products.device, dtype=products.dtype)
    time = (place - place[:, None]) / reach[:, None, None]  # rows: the frame of the fit
    weights = _weigh(kernel, time) * observed[:, None]
    flat = products.flatten(2)
    zeroth = (weights @ flat).view(products.shape)
    first = ((weights * time) @ flat).view(products.shape)
    squares = flat[..., : (kinds - k) * series]
    second = ((weights * time * time) @ squares).view(count, frames, kinds - k, series)
    moments = (zeroth, first, second)

    def entry(row: int, column: int) -> Tensor:
        high, low = max(row % k, column % k), min(row % k, column % k)
        return moments[row // k + column // k][:, :, high * (high + 1) // 2 + low]

    size = 2 * k
    scale = [torch.where(entry(i, i) > 0, entry(i, i), torch.inf).rsqrt() for i in range(size)]
    lower: list[list[Tensor]] = [[] for _ in range(size)]  # of the equations scaled to a unit diagonal
    inverse = []
    for column in range(size):
        rest = (scale[column] > 0).to(products.dtype)
        for value in lower[column]:
            rest = rest - value * value
        inverse.append(torch.where(rest > _RANK, rest, torch.inf).rsqrt())
        for row in range(column + 1, size):
            value = entry(row, column) * scale[row] * scale[column]
            for left, right in zip(lower[row], lower[column], strict=False):
                value = value - left * right
            lower[row].append(value * inverse[column])

    def forward(rights: Sequence[Tensor | float]) -> list[Tensor]:
        found: list[Tensor] = []
        for row in range(size):
            value = rights[row] * scale[row]
            for left, right in zip(lower[row], found, strict=False):
                value = value - left * right
            found.append(value * inverse[row])
        return found

    solved = forward([moments[i // k][:, :, kinds - k + i % k] for i in range(size)])
    for row in reversed(range(size)):
        for below in range(row + 1, size):
            solved[row] = solved[row] - lower[below][row] * solved[below]
        solved[row] = solved[row] * inverse[row]
    fit = torch.stack([solved[i] * scale[i] for i in range(k)], 1)
    if not leverage:
        return fit, fit.new_zeros(())
    parts = forward([*regressors, *[0.0] * k])
    return fit, sum(part.square() for part in parts) * weights.diagonal(dim1=1, dim2=2)[..., None]


def _weigh(kernel: Kernel, time: Tensor) -> Tensor:
    if kernel == "gaussian":
        return (-0.5 * time.square()).exp()
    inside = (1 - time.square()).clamp(min=0)
    return inside if kernel == "epanechnikov" else inside**3
