"""What a paired test can see: the smallest fall that n examples show, and how many examples a fall needs.

Exact powers of the tests in ``bbox.results.paired``, at the noise seen: the chance that an example gains although
nothing changed is taken to be what was seen, and a fall adds to the chance that one is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from bbox.results.paired import Floats, Ints, Paired, region_chance, score_region

__all__ = ["POWER", "detectable_distance", "detectable_rate", "examples_for_distance", "examples_for_rate"]

POWER = 0.8
_MOST = 4096  # examples up to which powers are exact; above, Connor's normal approximation (Biometrics 1987)


def detectable_rate(seen: Paired, level: float) -> float | None:
    """The smallest fall of a proportion that these pairs would show to be beyond the tolerance, with power 80%.

    With a tolerance, the edge of the test is the score statistic's normal one.

    Args:
        level: of the test of this one figure.

    Returns: a difference of proportions, ``None`` where no fall would be seen, not even one to 0.
    """
    n, tolerance = seen.n, seen.tolerance
    if n == 0 or seen.before is None:
        return None
    edge = float(stats.norm.isf(level))
    region = score_region(n, tolerance, edge) if tolerance > 0 else _sign_region(n, level)
    noise = seen.gained / n
    most = min(seen.before, 1 - 2 * noise)  # no proportion falls by more than itself
    return _first(lambda fall: _chance(region, n, noise + fall, noise) >= POWER, tolerance, most)


def examples_for_rate(seen: Paired, level: float) -> int | None:
    """How many examples a fall by the tolerance needs to be told from none, with power 80%; ``None`` at tolerance 0."""
    if seen.n == 0 or seen.tolerance == 0 or 2 * seen.gained / seen.n + seen.tolerance > 1:
        return None
    noise = seen.gained / seen.n
    return _examples(noise + seen.tolerance, noise, level)


def detectable_distance(ratios: Floats, tolerance: float, level: float) -> float | None:
    """The smallest fall of all distances by one factor that these pairs would show to be beyond the tolerance.

    Shapes:
        ratios: (n,), now / before as seen; their scatter around their median is taken to be the noise.

    Returns: relative, ``None`` where no fall would be seen with power 80%.
    """
    n, noise = len(ratios), _noise(ratios)
    if noise is None:
        return None
    region = _sign_region(n, level)
    share = _first(lambda share: _chance(region, n, share, 1 - share) >= POWER, 0.5, 1.0)
    if share is None:
        return None
    highest = float(np.sort(noise)[min(math.ceil(share * n), n) - 1])
    return 1 - (1 - tolerance) / highest if math.isfinite(highest) else None


def examples_for_distance(ratios: Floats, tolerance: float, level: float) -> int | None:
    """How many examples a fall of all distances by the tolerance needs to be told from none, with power 80%.

    ``None`` at tolerance 0, or where the noise hides it at any number.
    """
    noise = _noise(ratios)
    if noise is None or tolerance == 0:
        return None
    share = float((noise * (1 - tolerance) < 1 - 1e-9).mean())
    return _examples(share, 1 - share, level) if share > 0.5 else None


def _noise(ratios: Floats) -> Floats | None:
    """The ratios around their median; ``None`` where that is 0 or infinite."""
    middle = float(np.median(ratios)) if len(ratios) else 0.0
    return ratios / middle if 0 < middle < math.inf else None


def _sign_region(n: int, level: float) -> Ints:
    """For each number gained, the fewest lost at which the sign test (exact McNemar) rejects. Shapes: (n + 1,)."""
    gained = np.arange(n + 1)
    low, high = np.zeros(n + 1, np.int64), n + 1 - gained
    while bool((low < high).any()):
        middle = (low + high) // 2
        rejects = stats.binom.sf(middle - 1, middle + gained, 0.5) <= level
        low, high = np.where(rejects | (low >= high), low, middle + 1), np.where(rejects, middle, high)
    return low


def _chance(region: Ints, n: int, lost: float, gained: float) -> float:
    return float(region_chance(region, n, np.array([lost]), np.array([gained]))[0])


def _examples(lost: float, gained: float, level: float) -> int:
    """The number of pairs at which the sign test has its power, by doubling and bisection."""

    def enough(n: int) -> bool:
        return _chance(_sign_region(n, level), n, lost, gained) >= POWER

    high = 1
    while high <= _MOST and not enough(high):
        high *= 2
    if high > _MOST:
        differ, fall = lost + gained, lost - gained
        wide, narrow = math.sqrt(differ), math.sqrt(max(differ - fall**2, 0.0))
        edge, power = float(stats.norm.isf(level)), float(stats.norm.isf(1 - POWER))
        return math.ceil(((edge * wide + power * narrow) / fall) ** 2)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _first(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest value at which a monotone condition holds, to 1e-4; ``None`` where it does not at the largest."""
    if high <= low or not holds(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
