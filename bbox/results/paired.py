"""Two runs on the same examples: exact tests of whether a figure fell by more than a tolerance, and intervals.

Everything is paired by example. ``lost`` counts examples for which now is worse than before, ``gained`` those for which
it is better; examples on which both agree say nothing about the direction. Exchanging before and now has no effect on
the chance of what is seen where nothing changed but the seed, so every p-value here holds at any number of examples.

Sources: McNemar, Psychometrika 1947; Tango, Statistics in Medicine 1998 (score statistic and interval); Hsueh, Liu and
Chen, Biometrics 2001 and Lloyd and Moldovan, Statistics in Medicine 2008 (exact unconditional test of a difference);
Holm, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

__all__ = [
    "Paired",
    "compare_distances",
    "compare_rates",
    "difference_interval",
    "difference_p",
    "holm",
    "paired_ratios",
    "ratio_interval",
    "region_chance",
    "score_region",
    "sign_p",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_GRID = 201  # points of the nuisance parameter, closer together near 0, where the chance changes fastest
_TIES = 1e-9  # two statistics this close are the same one


@dataclass(frozen=True)
class Paired:
    """One figure before and now, over the examples that both have.

    Attributes:
        before, now: the figure itself; ``None`` where it is infinite or there is no example.
        effect: rates: now - before; distances: the median of the ratios now / before. ``None`` without examples or
            where infinite.
        interval: 95%, of the effect; ``None`` where it has no end (an infinite ratio, too few examples).
        p: of the hypothesis that the figure fell by no more than the tolerance; 1 without examples.
        n: pairs; lost, gained: pairs that are worse, better now (beyond the tolerance, for distances).
        tolerance: rates: difference of proportions; distances: relative.
        method: how p was computed.
    """

    before: float | None
    now: float | None
    effect: float | None
    interval: tuple[float | None, float | None]
    p: float
    n: int
    lost: int
    gained: int
    tolerance: float
    method: str


def compare_rates(before: Flags, now: Flags, tolerance: float = 0.0) -> Paired:
    """Whether a proportion (robust accuracy, clean accuracy) fell by more than a tolerance.

    Args:
        tolerance: a difference of proportions, at least 0 and below 1.

    Shapes:
        before, now: (n,) bool, the same examples in the same order.
    """
    n = len(before)
    lost, gained = int((before & ~now).sum()), int((~before & now).sum())
    if tolerance > 0:
        p, method = difference_p(lost, gained, n, tolerance), "exact unconditional test of a paired difference"
    else:
        p, method = sign_p(lost, gained), "exact McNemar test"
    rates = (float(before.mean()), float(now.mean())) if n else (None, None)
    return Paired(
        before=rates[0],
        now=rates[1],
        effect=(gained - lost) / n if n else None,
        interval=difference_interval(lost, gained, n),
        p=p,
        n=n,
        lost=lost,
        gained=gained,
        tolerance=tolerance,
        method=method,
    )


def compare_distances(before: Floats, now: Floats, tolerance: float = 0.0) -> Paired:
    """Whether distances fell by more than a part of themselves: a sign test on the ratios now / before.

    A distance may be infinite (nothing was found). A ratio that is exactly 1 - tolerance is a tie and left out.

    Args:
        tolerance: relative, at least 0 and below 1.

    Shapes:
        before, now: (n,) float64, the same examples in the same order.
    """
    n, ratios = len(before), paired_ratios(before, now)
    lost, gained = int((ratios < 1 - tolerance - _TIES).sum()), int((ratios > 1 - tolerance + _TIES).sum())
    middle = [float(np.median(values)) if n else math.inf for values in (before, now, ratios)]
    return Paired(
        before=_finite(middle[0]),
        now=_finite(middle[1]),
        effect=_finite(middle[2]),
        interval=ratio_interval(ratios),
        p=sign_p(lost, gained),
        n=n,
        lost=lost,
        gained=gained,
        tolerance=tolerance,
        method="exact sign test",
    )


def paired_ratios(before: Floats, now: Floats) -> Floats:
    """now / before, 1 where both are infinite (or both 0). Shapes: (n,) each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before == now, 1.0, now / before)


def sign_p(lost: int, gained: int, *, two_sided: bool = False) -> float:
    """The chance of at least so many lost among the pairs that differ, where losing is no more likely than gaining.

    For proportions it is the exact McNemar test.

    Example:
        >>> sign_p(5, 0), sign_p(5, 0, two_sided=True)
        (0.03125, 0.0625)
    """
    if lost + gained == 0:
        return 1.0
    return float(stats.binomtest(lost, lost + gained, alternative="two-sided" if two_sided else "greater").pvalue)


def difference_p(lost: int, gained: int, n: int, tolerance: float) -> float:
    """Exact p of the hypothesis P(lost) - P(gained) <= tolerance, for n pairs; tolerance is more than 0.

    It is unconditional: the chance, at the worst nuisance parameter, of a score statistic (Tango's, with restricted
    maximum likelihood) at least as large as the one seen. The region of such outcomes grows with ``lost`` and shrinks
    with ``gained``, so the worst case of the hypothesis lies on its edge P(lost) = P(gained) + tolerance.

    Example:
        >>> round(difference_p(8, 0, 32, 0.05), 4)
        0.0078
    """
    seen = float(_score(np.array(lost), np.array(gained), n, tolerance))
    first = score_region(n, tolerance, seen)
    top = (1 - tolerance) / 2
    grid = top * np.linspace(0, 1, _GRID) ** 2
    best = 0.0
    for _ in range(3):  # the whole range, then twice closer around the worst case
        chance = region_chance(first, n, grid + tolerance, grid)
        best, worst = max(best, float(chance.max())), int(chance.argmax())
        grid = np.linspace(grid[max(worst - 1, 0)], grid[min(worst + 1, len(grid) - 1)], 41)
    return min(best, 1.0)


def score_region(n: int, tolerance: float, at_least: float) -> Ints:
    """The outcomes whose score statistic reaches a value: for each number gained, the fewest lost that do.

    Shapes:
        returns: (n + 1,) int64; n + 1 - gained where none does.
    """
    gained = np.arange(n + 1)
    low, high = np.zeros(n + 1, np.int64), n + 1 - gained  # bisection: the statistic grows with the number lost
    while bool((low < high).any()):
        middle = (low + high) // 2
        reaches = _score(middle, gained, n, tolerance) >= at_least - _TIES
        low, high = np.where(reaches | (low >= high), low, middle + 1), np.where(reaches, middle, high)
    return low


def region_chance(first: Ints, n: int, lost: Floats, gained: Floats) -> Floats:
    """The chance of a region such as ``score_region`` gives, for n pairs.

    Shapes:
        first: (n + 1,); lost, gained: (k,), chances that a pair is lost, gained; returns (k,).
    """
    count, lost, gained = np.arange(n + 1), lost[:, None], gained[:, None]
    among = np.clip(lost / np.maximum(1 - gained, 1e-300), 0, 1)  # of the pairs that are not gained
    within = stats.binom.sf(first - 1, n - count, among)
    total: Floats = (stats.binom.pmf(count, n, gained) * within).sum(1)
    return total


def difference_interval(lost: int, gained: int, n: int, level: float = 0.95) -> tuple[float | None, float | None]:
    """Tango's score interval of the paired difference of proportions, now - before."""
    if n == 0:
        return None, None
    bound = float(stats.norm.isf((1 - level) / 2))
    fall = (lost - gained) / n

    def crossing(side: int) -> float:
        edge = side * (1 - 1e-9)

        def beyond(difference: float) -> float:
            return float(_score(np.array(lost), np.array(gained), n, difference)) + side * bound

        if abs(fall) == 1 and fall * side > 0:
            return float(side)
        return float(optimize.brentq(beyond, fall, edge))

    return -crossing(1), -crossing(-1)


def ratio_interval(ratios: Floats, level: float = 0.95) -> tuple[float | None, float | None]:
    """Interval of the median from order statistics, exact whatever the distribution; (None, None) below 6 values."""
    n, ordered = len(ratios), np.sort(ratios)
    place = int(stats.binom.ppf((1 - level) / 2, n, 0.5)) if n else 0  # the most values that may lie outside, each side
    if n == 0 or stats.binom.cdf(place, n, 0.5) > (1 - level) / 2:
        place -= 1
    if place < 0:
        return None, None
    return _finite(float(ordered[place])), _finite(float(ordered[n - 1 - place]))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: those at most alpha are rejected, and the chance of any false rejection is at most alpha.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [1.0] * len(p), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = highest
    return adjusted


def _score(lost: NDArray[np.generic], gained: NDArray[np.generic], n: int, difference: float) -> Floats:
    """Tango's statistic of P(lost) - P(gained) = difference; 0 where the variance is (nothing differs)."""
    b, c = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    linear = (2 * n - b + c) * difference - b - c
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * difference * (1 - difference), 0.0))
    gain = np.maximum((root - linear) / (4 * n), 0.0)  # restricted maximum likelihood of P(gained)
    variance = n * (2 * gain + difference * (1 - difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        score: Floats = np.where(variance > 0, (b - c - n * difference) / np.sqrt(variance), 0.0)
    return score


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
