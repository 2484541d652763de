"""When an image has been sampled enough: the rule that certification follows, and that its simulations test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bbox.defenses.bounds import Method, clopper_pearson_upper, looks, lower_bound, needed_count, needed_probability

__all__ = ["StoppingRule"]

_STRIDE = 1000  # samples between two saves of an image whose next look is far


@dataclass(frozen=True)
class StoppingRule:
    """Which samples are looked at, what they prove, and which radii are still open.

    An image stops when each radius is certified or futile: its class is so rare that, seen from an upper bound on p
    (Clopper and Pearson, at level alpha), n samples would hardly certify. Futility spends nothing of alpha. It is an
    abstention and says nothing against robustness. ``fixed`` never stops early, and so is the yardstick of the others.

    Args:
        radii: l2 radii to decide, or ``None`` to sample all n and report the radius that comes out.
    """

    method: Method
    n: int
    alpha: float
    sigma: float
    radii: Sequence[float] | None

    @cached_property
    def stops(self) -> NDArray[np.int64]:
        """Sample numbers at which counts are read off, rising to n."""
        return np.union1d(looks(self.method, self.n), np.arange(_STRIDE, self.n, _STRIDE))

    def next_stop(self, samples: int) -> int:
        """The first stop after so many samples."""
        return int(self.stops[np.searchsorted(self.stops, samples, side="right")])

    def bound(self, hits: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """Lower bound on p that these counts prove; the largest over an image's looks counts. Shapes: (m,)."""
        hits, samples, place = _distinct(hits, samples)
        return lower_bound(self.method, hits, samples, self.n, self.alpha)[place]

    def undecided(
        self, lower: NDArray[np.float64], hits: NDArray[np.int64], samples: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which images have a radius that is neither certified nor futile. Shapes: (m,), returns (m,)."""
        unfinished = samples < self.n
        if self.radii is None or self.method == "fixed":
            return unfinished
        hits, looked, place = _distinct(hits, np.maximum(samples, 1))
        possible = clopper_pearson_upper(hits, looked, self.alpha)[place]
        certified = lower[:, None] >= self._wanted
        futile = possible[:, None] < self._enough
        open_ = ~certified & ~futile
        return np.asarray(unfinished & (open_.any(1) | (samples == 0)))

    @cached_property
    def _wanted(self) -> NDArray[np.float64]:
        return needed_probability(np.asarray(self.radii), self.sigma)

    @cached_property
    def _enough(self) -> NDArray[np.float64]:
        return needed_count(self.method, self.n, self.alpha, self._wanted) / self.n


def _distinct(
    hits: NDArray[np.int64], samples: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Each pair of counts once, and where each image's pair stands: a bound costs more than finding its repeats."""
    pairs, place = np.unique(np.stack([hits, samples]), axis=1, return_inverse=True)
    return pairs[0], pairs[1], place.reshape(-1)
