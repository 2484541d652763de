"""Time-varying autoregression of motion: how each coordinate follows from the frames before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bbox.errors import UsageError
from bbox.motion.local_linear import Kernel, local_linear
from bbox.motion.presence import present

__all__ = ["Dynamics", "fit_dynamics"]

_SHORTEST = 5  # frames, the least bandwidth; tvReg's bound too
_GRID = 8  # bandwidths that leave-one-out chooses among
_WIDEST = 2.0  # in rescaled time; with the triweight, the farthest observation then has 0.42 of the nearest's weight
_CHUNK = 1 << 22  # float64 numbers held at a time


@dataclass(frozen=True)
class Dynamics:
    """A TV-AR model of each coordinate: x_t = coefficient_1,t x_(t-1) + ... + intercept_t.

    Shapes:
        coefficients: (n, order, 3, frames, joints, bodies); zero at a frame whose predecessors are not all there.
        bandwidth: (n, 3, joints, bodies), in rescaled time, float64; of order 2 where there is one.
        intercepts: (n, 3, frames, joints, bodies) or ``None``.
    """

    coefficients: Tensor
    bandwidth: Tensor
    intercepts: Tensor | None = None

    @property
    def order(self) -> int:
        return self.coefficients.shape[1]

    def to(self, device: torch.device | str) -> Dynamics:
        """The same on another device."""
        there = None if self.intercepts is None else self.intercepts.to(device)
        return Dynamics(self.coefficients.to(device), self.bandwidth.to(device), there)

    def take(self, rows: Sequence[int] | Tensor) -> Dynamics:
        """The models of these motions, in this order."""
        rows = torch.as_tensor(rows, device=self.coefficients.device)
        there = None if self.intercepts is None else self.intercepts[rows]
        return Dynamics(self.coefficients[rows], self.bandwidth[rows], there)


def fit_dynamics(
    motions: Tensor,
    *,
    order: int = 2,
    bandwidth: float | Literal["loo"] = 0.2,
    kernel: Kernel = "triweight",
    intercept: bool = False,
) -> Dynamics:
    """Fit TV-AR(order) to every coordinate of every joint by kernel-weighted local-linear least squares.

    Lu et al., "Hard No-Box Adversarial Attack on Skeleton-Based Human Action Recognition with Skeleton-Motion-Informed
    Gradient", ICCV 2023, equations 7 and 8; the estimator is that of tvReg's ``tvAR(est="ll")`` (Casas and
    Fernandez-Casal), which the published code calls with no intercept.

    A frame is an observation if its ``order`` predecessors are there too: frames beside a gap, and the first ones, are
    not. Time is the frame's number over the count of observations, so a gap counts as time. With order 2, a frame with
    one predecessor has the coefficient of the first-order fit, as published.
    A coordinate that does not move (by float32's rounding) or has fewer observations than unknowns has coefficients 0.
    Where a window holds too little to tell the unknowns apart, the later ones are left out: slopes in time first, then
    lag 2; a coordinate at rest in a window then stays where it is, with the coefficient 1.

    Args:
        motions: (n, 3, frames, joints, bodies), metres.
        order: 1 or 2.
        bandwidth: of the kernel, a share of the observations; at least 5 frames (7 with order 2 and an intercept),
            which a window at an end of the series needs. ``"loo"`` chooses for each coordinate by leave-one-out
            cross-validation, as published, among 8 bandwidths from this least to twice the series, each a
            constant factor above the one before; it costs 8 times as much.
        kernel: weight of an observation by its distance in time over the bandwidth.
        intercept: equations 7 and 8 have one; the published code has none.

    Raises:
        UsageError: an option is out of its range.
    """
    if order not in (1, 2):
        raise UsageError(f"order of the dynamics is {order}, expected 1 or 2")
    if kernel not in get_args(Kernel):
        raise UsageError(f"kernel is {kernel!r}, expected {', '.join(get_args(Kernel))}")
    if bandwidth != "loo" and not (isinstance(bandwidth, int | float) and 0 < bandwidth < float("inf")):
        raise UsageError(f"bandwidth is {bandwidth!r}, expected a positive number, or loo")
    width = None if bandwidth == "loo" else float(bandwidth)
    count, axes, frames, joints, bodies = motions.shape
    series = motions.permute(0, 4, 2, 1, 3).reshape(count * bodies, frames, axes * joints)
    there = present(motions)[:, 0, :, 0].mT.reshape(count * bodies, frames)
    step = max(1, _CHUNK // (frames * (4 * frames + 40 * axes * joints)))
    fits = []
    for part, mask in zip(torch.split(series, step), torch.split(there, step), strict=True):
        fit, chosen = _fit(part.double(), mask, order, width, kernel, intercept)
        if order == 2:  # at the second frame of a run
            first, _ = _fit(part.double(), mask, 1, width, kernel, intercept)
            first *= ~_followed(mask, 2)[:, None, :, None]
            fit[:, 0] += first[:, 0]
            fit[:, 2:] += first[:, 1:]
        fits.append((fit.to(motions.dtype), chosen))
    fitted = torch.cat([fit for fit, _ in fits]).view(count, bodies, -1, frames, axes, joints).permute(0, 2, 4, 3, 5, 1)
    widths = torch.cat([chosen for _, chosen in fits]).view(count, bodies, axes, joints).permute(0, 2, 3, 1)
    return Dynamics(fitted[:, :order].contiguous(), widths.contiguous(), fitted[:, order] if intercept else None)


def _followed(there: Tensor, order: int) -> Tensor:
    """Frames that are there with their predecessors. Shapes: (p, frames) -> (p, frames)."""
    whole = there.clone()
    for lag in range(1, order + 1):
        whole[:, lag:] &= there[:, :-lag]
        whole[:, :lag] = False
    return whole


def _fit(
    series: Tensor, there: Tensor, order: int, width: float | None, kernel: Kernel, intercept: bool
) -> tuple[Tensor, Tensor]:
    """Coefficients, and behind them the intercept if asked for, and the bandwidth of each series.

    What is fitted is the step x_t - x_(t-1) on the place x_(t-1) and the step before it: the same least squares as
    on x_(t-1) and x_(t-2), of which at 30 frames a second one is nearly the other and the normal equations would lose
    half of float64's digits.

    Shapes:
        series: (p, frames, s) float64; there: (p, frames).
        returns: (p, order or order + 1, frames, s), (p, s).
    """
    mask = there[..., None]
    highest = series.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    lowest = series.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    rounding = 4 * torch.finfo(torch.float32).eps * torch.maximum(highest.abs(), lowest.abs())
    middle = torch.where(mask.any(1, keepdim=True), (highest + lowest) / 2, 0.0) if intercept else series.new_zeros(())
    moved = (series - middle) * mask
    last, before = (torch.nn.functional.pad(moved, (0, 0, lag, 0))[:, : series.shape[1]] for lag in (1, 2))
    regressors = [last, last - before][:order] + ([torch.ones_like(last)] if intercept else [])
    whole = _followed(there, order)
    observed = whole.sum(1)
    unknowns = 2 * len(regressors)
    known = whole[..., None] & (highest - lowest > rounding) & (observed >= unknowns)[:, None, None]

    target = moved - last
    best = series.new_zeros(len(series), len(regressors), *series.shape[1:])
    chosen = series.new_zeros(len(series), series.shape[2])
    least = torch.full_like(chosen, torch.inf)
    for reach in _reaches(observed, width, max(_SHORTEST, unknowns + 1)):
        fit, own = local_linear(regressors, target, whole, reach, kernel, leverage=width is None)
        missed = target - sum(fit[:, i] * r for i, r in enumerate(regressors))
        error = torch.where(known, (missed / (1 - own).clamp(min=1e-9)).square(), 0.0).sum(1)
        better = error < least
        least = torch.where(better, error, least)
        chosen = torch.where(better, (reach / observed.clamp(min=1))[:, None], chosen)
        best = torch.where((better[:, None] & known)[:, None], fit, best)

    step = best[:, 1:2] if order == 2 else torch.zeros_like(best[:, :1])
    lags = torch.cat([(1 + best[:, :1] + step) * known[:, None], -step], 1)[:, :order]
    if intercept:
        constant = best[:, order:] + (1 - lags.sum(1, keepdim=True)) * middle[:, None]
        lags = torch.cat([lags, constant * known[:, None]], 1)
    return lags, chosen


def _reaches(observed: Tensor, width: float | None, shortest: int) -> list[Tensor]:
    """Bandwidths to try, in frames, each (p,)."""
    if width is not None:
        return [(width * observed).clamp(min=shortest)]
    factor = (_WIDEST * observed / shortest).clamp(min=1.0).double() ** (1 / (_GRID - 1))
    return [shortest * factor**step for step in range(_GRID)]
