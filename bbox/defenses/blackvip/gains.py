"""The sizes of SPSA's perturbation and step, from a probe of the black box at the first weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bbox.zo import SPSA

__all__ = ["DIRECTIONS", "WIDTHS", "Probed", "probe_gains"]

WIDTHS = (0.01, 0.03, 0.1)  # perturbations that are tried, in units of a parameter
DIRECTIONS = 8
_AGREE = 0.7  # correlation from which the differences at two widths measure the same slope


@dataclass(frozen=True)
class Probed:
    """What a probe has found.

    Attributes:
        c: the perturbation's size.
        scale: what a loss is multiplied with, so that a first estimate along one direction has RMS 1 a coordinate or
            more: a flat loss (hard labels, a model with a low temperature) then moves as far as a steep one.
        agreement: correlation of the slopes along the same directions at each width with those at the next.
    """

    c: float
    scale: float
    agreement: tuple[float, ...] = ()


def probe_gains(
    values: Callable[[Tensor], Tensor], weights: Tensor, *, seed: int, c: float = 0.0, directions: int = DIRECTIONS
) -> Probed:
    """Find the smallest width at which differences measure slopes and not the rounding of the answers.

    Two-sided differences along the same directions at each of ``WIDTHS``: where the answers are rounded or labels,
    small widths give noise, which does not agree with the next width; where the loss bends, large ones do not.

    Evaluations: 2 * directions * 3, or 2 * directions where ``c`` is given.

    Args:
        values: the mean loss at each of (m, dim) points, on one fixed batch: (m,).
        c: a width to keep; 0 chooses one.
    """
    spsa = SPSA(directions)
    u = spsa.directions(seed, 0, len(weights), device=weights.device)
    widths = (c,) if c else WIDTHS
    points = torch.cat([spsa.points(weights, u, width) for width in widths])
    tables = torch.chunk(torch.nan_to_num(values(points)), len(widths))
    slopes = [spsa.coefficients(table, width) for table, width in zip(tables, widths, strict=True)]
    agreement = tuple(_correlation(small, large) for small, large in pairwise(slopes))
    good = [i for i, value in enumerate(agreement) if value >= _AGREE]
    # Where nothing agrees the middle is the safe choice: the largest moves the prompt too far for a derivative. The
    # largest is taken where the middle does not move the answers at all.
    chosen = 0 if c else good[0] if good else 1 if bool(slopes[1].any()) else 2
    size = float(slopes[chosen].square().mean().sqrt())
    return Probed(widths[chosen], max(1.0, 1 / size) if size > 1e-12 else 1.0, agreement)


def _correlation(a: Tensor, b: Tensor) -> float:
    """Without the mean: slopes along random directions have none."""
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-30))
