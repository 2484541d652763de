"""Linear filters in time for the gradient of a motion: SMI's total derivative, and the smoothers it must beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bbox.errors import UsageError
from bbox.motion.dynamics import Dynamics, fit_dynamics
from bbox.motion.local_linear import Kernel
from bbox.motion.presence import present

__all__ = ["FILTERS", "Filter", "check_filter", "make_filter", "stabilised"]

Filter = Callable[[Tensor], Tensor]  # gradients (n, 3, frames, joints, bodies) to the same shape

FILTERS = {
    "none": "the gradient as it is",
    "smi1": "SMI gradient of order 1: one frame ahead, by the motion's dynamics",
    "smi2": "SMI gradient of order 2: two frames ahead",
    "adjoint1": "the whole recursion of order 1, to the end; adjoint1:stable bounds the coefficients",
    "adjoint": "the whole recursion of order 2; adjoint:stable bounds the coefficients",
    "gaussian": "gaussian:FRAMES, a Gaussian mean of this standard deviation, out to four of them",
    "box": "box:FRAMES, the mean over this odd number of frames",
    "dct": "dct:COUNT, the lowest temporal frequencies of each body's frames",
    "constant": "the mean over each body's frames: one offset a joint",
}


def make_filter(
    spec: str,
    motions: Tensor,
    *,
    bandwidth: float | Literal["loo"] = 0.2,
    kernel: Kernel = "triweight",
    intercept: bool = False,
) -> Filter:
    """A filter for gradients with respect to these motions, or to steps from them; frames that are absent get 0.

    With g_t the gradient and C, D the coefficients of lags 1 and 2 (``fit_dynamics``, of the clean motions), the total
    derivative through x_t = C_t x_(t-1) + D_t x_(t-2) is G_t = g_t + C_(t+1) G_(t+1) + D_(t+2) G_(t+2), here
    ``adjoint``. Lu et al., "Hard No-Box Adversarial Attack on Skeleton-Based Human Action Recognition with
    Skeleton-Motion-Informed Gradient", ICCV 2023, equations 5 to 10, cut it after one or two frames: ``smi1`` is
    g_t + C_(t+1) g_(t+1), ``smi2`` adds (D_(t+2) + C_(t+2) C_(t+1)) g_(t+2) to it.
    Terms beyond an end or a gap are 0. ``gaussian`` and ``box`` are weighted means over the frames that are there.

    Args:
        spec: one of ``FILTERS``, with its number behind a colon.
        motions: (n, 3, frames, joints, bodies), clean.
        bandwidth, kernel, intercept: of the dynamics, where the filter has any (``fit_dynamics``).

    Raises:
        UsageError: no such filter, or its number is missing or out of range.

    Example:
        >>> smooth = make_filter("box:3", torch.ones(1, 3, 4, 2, 1))
        >>> smooth(torch.eye(4)[1].view(1, 1, 4, 1, 1).expand(1, 3, 4, 2, 1))[0, 0, :, 0, 0]
        tensor([0.5000, 0.3333, 0.3333, 0.0000])
    """
    name, _, text = spec.partition(":")
    there = present(motions)
    if spec in ("smi1", "smi2", "adjoint1", "adjoint1:stable", "adjoint", "adjoint:stable"):
        order = 1 if name.endswith("1") else 2
        dynamics = fit_dynamics(motions, order=order, bandwidth=bandwidth, kernel=kernel, intercept=intercept)
        if name.startswith("smi"):
            return _ahead(dynamics, there)
        return _Adjoint(there, (stabilised(dynamics) if text else dynamics).coefficients.movedim(3, 0).contiguous())
    if spec == "none":
        return _Ahead(there, ())
    if spec == "constant":
        return _lowest(1, there, motions.dtype)
    number = _number(text)
    if name == "gaussian" and number > 0:
        lags = range(min(math.ceil(4 * number) + 1, motions.shape[2]))
        return _mean([math.exp(-0.5 * (lag / number) ** 2) for lag in lags], there, motions.dtype)
    if name == "box" and number % 2 == 1:
        return _mean([1.0] * min(int(number) // 2 + 1, motions.shape[2]), there, motions.dtype)
    if name == "dct" and number == int(number) > 0:
        return _lowest(int(number), there, motions.dtype)
    known = ", ".join(f"{known} ({what})" for known, what in FILTERS.items())
    raise UsageError(f"filter is {spec!r}, expected one of: {known}")


def check_filter(spec: str) -> None:
    """Refuse a filter that is none, before there is a motion.

    Raises:
        UsageError: no such filter, or its number is missing or out of range.
    """
    make_filter(spec, torch.ones(1, 3, 1, 1, 1))


def stabilised(dynamics: Dynamics) -> Dynamics:
    """Coefficients pulled into the region where a constant model is stable: |D| <= 1 and |C| <= 1 - D.

    Box and Jenkins, "Time Series Analysis", section 3.2.4. Fits of real motion leave it: in the recursion of order 2
    over 48 frames of motion capture, white noise of size 1 grew beyond 265 in a tenth of 6,600 coordinates and to
    2.4e9 in the worst; with coefficients held in the region, to 188 at most (order 1: 2,300, and 31).
    """
    first = dynamics.coefficients[:, 0]
    if dynamics.order == 1:
        return Dynamics(first.clamp(-1, 1)[:, None], dynamics.bandwidth, dynamics.intercepts)
    second = dynamics.coefficients[:, 1].clamp(-1, 1)
    held = torch.minimum(torch.maximum(first, second - 1), 1 - second)
    return Dynamics(torch.stack([held, second], 1), dynamics.bandwidth, dynamics.intercepts)


@dataclass(frozen=True)
class _Ahead:
    """G_t = g_t + taps[0]_t g_(t+1) + taps[1]_t g_(t+2): a tap has as many frames as have one so far ahead."""

    there: Tensor
    taps: tuple[Tensor, ...]

    def __call__(self, gradient: Tensor) -> Tensor:
        found = gradient * self.there
        for lag, tap in enumerate(self.taps, 1):
            found[:, :, :-lag].addcmul_(tap, gradient[:, :, lag:])
        return found


def _ahead(dynamics: Dynamics, there: Tensor) -> _Ahead:
    first = dynamics.coefficients[:, 0]
    if dynamics.order == 1:
        return _Ahead(there, (first[:, :, 1:],))
    second = dynamics.coefficients[:, 1, :, 2:] + first[:, :, 2:] * first[:, :, 1:-1]
    return _Ahead(there, (first[:, :, 1:], second))


@dataclass(frozen=True)
class _Adjoint:
    """The whole recursion, frame by frame from the end. Shapes: coefficients (frames, n, order, 3, joints, bodies)."""

    there: Tensor
    coefficients: Tensor

    def __call__(self, gradient: Tensor) -> Tensor:
        found = (gradient * self.there).movedim(2, 0).contiguous()
        for frame in reversed(range(len(found))):
            for lag in range(1, 1 + min(self.coefficients.shape[2], len(found) - 1 - frame)):
                found[frame].addcmul_(self.coefficients[frame + lag][:, lag - 1], found[frame + lag])
        return found.movedim(0, 2).contiguous()


@dataclass(frozen=True)
class _Mean:
    """A weighted mean over the frames that are there, by shifts: a matrix product rounds differently in each batch.

    Shapes: weights: of each distance in frames; there, total as ``present``.
    """

    weights: Sequence[float]
    there: Tensor
    total: Tensor

    def __call__(self, gradient: Tensor) -> Tensor:
        return _spread(gradient * self.there, self.weights) / self.total * self.there


def _mean(weights: Sequence[float], there: Tensor, dtype: torch.dtype) -> _Mean:
    return _Mean(weights, there, torch.where(there, _spread(there.to(dtype), weights), 1.0))


def _spread(values: Tensor, weights: Sequence[float]) -> Tensor:
    found = values * weights[0]
    for lag, weight in enumerate(weights[1:], 1):
        found[:, :, lag:].add_(values[:, :, :-lag], alpha=weight)
        found[:, :, :-lag].add_(values[:, :, lag:], alpha=weight)
    return found


@dataclass(frozen=True)
class _Projection:
    """Projection on orthonormal vectors of each body's frames. Shapes: each as ``present``."""

    basis: tuple[Tensor, ...]

    def __call__(self, gradient: Tensor) -> Tensor:
        found = torch.zeros_like(gradient)
        for vector in self.basis:
            found.addcmul_(vector, (gradient * vector).sum(2, keepdim=True))
        return found


def _lowest(count: int, there: Tensor, dtype: torch.dtype) -> _Projection:
    """The first ``count`` vectors of the discrete cosine transform (type II) over the frames that are there."""
    length = there.sum(2, keepdim=True).clamp(min=1).double()
    place = (there.cumsum(2) - 0.5) / length
    waves = [
        (math.pi * order * place).cos() * ((2 if order else 1) / length).sqrt()
        for order in range(min(count, there.shape[2]))
    ]
    kept = [torch.where(there & (order < length), wave, 0.0) for order, wave in enumerate(waves)]
    return _Projection(tuple(wave.to(dtype) for wave in kept))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
