"""Confidence bounds on the probability of a class under noise, and the radius that they certify.

For an image, p is the probability that the classifier, under Gaussian noise, answers the class that was selected. k of
n samples did. A lower bound on p that fails with probability at most alpha gives a radius that fails no more often.

Three ways to look at the samples (``Method``), each with one lower bound that holds for all radii at once:

``fixed``     Clopper and Pearson's bound, once, after n samples (CERTIFY of Cohen, Rosenfeld and Kolter, "Certified
              Adversarial Robustness via Randomized Smoothing", ICML 2019).
``staged``    the same bound at K sample numbers decided beforehand, alpha / K at each (union bound).
``eprocess``  a test martingale, looked at whenever one likes (Ville, "Etude critique de la notion de collectif", 1939;
              confidence sequences for smoothing: Voracek, "Treatment of Statistical Estimation Problems in Randomized
              Smoothing for Adversarial Robustness", NeurIPS 2024). It spends 4/5 of alpha; the rest goes to Clopper and
              Pearson's bound at n (union bound), which decides borderline images nearly as ``fixed`` would.

Everything here is vectorised: arguments broadcast against each other.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

__all__ = [
    "METHODS",
    "Method",
    "anytime_lower",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "largest_radius",
    "log_evidence",
    "looks",
    "lower_bound",
    "needed_count",
    "needed_probability",
    "radius",
    "smallest_n",
]

Method = Literal["fixed", "staged", "eprocess"]
METHODS: tuple[Method, ...] = ("fixed", "staged", "eprocess")

Floats = NDArray[np.float64]

# Of the e-process. Any choice is valid: denser looks stop a little earlier, and cost time.
_FIRST_LOOK, _LEAST_STEP, _GROWTH = 16, 8, 1.15
# Share of alpha that the e-process leaves to the last look. Measured on the digits model at sigma 0.5, r = sigma / 2,
# n = 10,000: verdicts agree with the fixed test on 98.7% of points without it, on 99.7% with it and 9% more samples.
_LAST_LOOK = 0.2
_HALVINGS = 32  # of a bracket within [0, 1], so bounds are rounded down by at most 2**-32


def clopper_pearson_lower(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> Floats:
    """One-sided lower bound on p that fails with probability at most ``alpha`` (Clopper and Pearson, 1934)."""
    hits, total = np.asarray(k, float), np.asarray(n, float)
    found = stats.beta.ppf(alpha, np.maximum(hits, 1), total - hits + 1)
    return np.where(hits == 0, 0.0, found)


def clopper_pearson_upper(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> Floats:
    """One-sided upper bound on p that fails with probability at most ``alpha``."""
    hits, total = np.asarray(k, float), np.asarray(n, float)
    found = stats.beta.isf(alpha, hits + 1, np.maximum(total - hits, 1))
    return np.where(hits == total, 1.0, found)


def radius(p_lower: ArrayLike, sigma: float) -> Floats:
    """Certified l2 radius, sigma * Phi^-1(p_lower) (Cohen et al. 2019, theorem 1 with p_B = 1 - p_A); 0 where p_lower
    is at most 1/2, which is abstention."""
    bound = np.asarray(p_lower, float)
    return np.asarray(np.where(bound > 0.5, sigma * special.ndtri(np.maximum(bound, 0.5)), 0.0))


def needed_probability(at: ArrayLike, sigma: float) -> Floats:
    """What p must reach for a radius: Phi(r / sigma), and a little more than 1/2 for r = 0 (1/2 is abstention)."""
    return np.asarray(np.maximum(special.ndtr(np.asarray(at, float) / sigma), np.nextafter(0.5, 1.0)))


def log_evidence(k: ArrayLike, n: ArrayLike, p0: ArrayLike) -> Floats:
    """Log of the e-process against "p is at most p0".

    The likelihood ratio against p0, averaged over a Beta(1/2, 1/2) prior that is cut off below p0. Under the hypothesis
    it is a supermartingale that starts at 1, so it ever exceeds 1 / alpha with probability at most alpha, however often
    one looks (Ville 1939). Finite for n in the millions. Where k / n lies far below p0 (there the log is below zero, no
    evidence) it is a lower bound of the true value, which errs on the safe side.

    Shapes:
        k, n, p0: broadcast; p0 in (0, 1).
    """
    hits, total, at = (np.asarray(x, float) for x in (k, n, p0))
    a, b = hits + 0.5, total - hits + 0.5
    with np.errstate(divide="ignore"):
        tail = np.log(special.betaincc(a, b, at))
    # Where the tail underflows: the first term of its series, all of whose terms are positive.
    whole, log_at, log_rest = special.betaln(a, b), np.log(at), np.log1p(-at)
    edge = a * log_at + b * log_rest - np.log(b) - whole
    tail = np.maximum(tail, np.where(tail < -600, edge, -np.inf))
    prior = np.log(2 * np.arccos(np.sqrt(at)))  # the integral of p^(-1/2) (1 - p)^(-1/2) from p0 to 1
    value = whole + tail - prior - hits * log_at - (total - hits) * log_rest
    return np.asarray(value, float)


def anytime_lower(k: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """Lower bound on p that holds at all sample numbers and for all radii at once: the p0 up to which the e-process
    rejects. Found by bisection, rounded down; the largest bound over the looks so far is a bound too."""
    hits, total = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    low, high = np.zeros(hits.shape), hits / np.maximum(total, 1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = np.clip(middle, 1e-12, 1 - 1e-12)
        rejects = log_evidence(hits, total, inside) >= -math.log(alpha)
        low, high = np.where(rejects, middle, low), np.where(rejects, high, middle)
    return low


def looks(method: Method, n: int) -> tuple[int, ...]:
    """The sample numbers at which the counts are looked at; the last one is n."""
    if method == "fixed":
        return (n,)
    if method == "staged":
        return (*(at for at in _stages(n) if at < n), n)
    found = [min(_FIRST_LOOK, n)]
    while found[-1] < n:
        found.append(min(n, max(found[-1] + _LEAST_STEP, math.ceil(found[-1] * _GROWTH))))
    return tuple(found)


def _stages(n: int) -> list[int]:
    """100, 300, 1000, 3000 and so on, up to n."""
    found = [100, 300]
    while found[-1] < n:
        found.append(found[-2] * 10)
    return found


def lower_bound(method: Method, k: ArrayLike, at: ArrayLike, n: int, alpha: float) -> Floats:
    """The bound of a method after ``at`` of at most ``n`` samples; 0 where the method does not look then.

    Shapes:
        k, at: broadcast.
    """
    hits, total = np.broadcast_arrays(np.asarray(k), np.asarray(at))
    if method == "eprocess":
        proven = anytime_lower(hits, total, alpha * (1 - _LAST_LOOK))
        last = clopper_pearson_lower(hits, np.maximum(total, 1), alpha * _LAST_LOOK)
        return np.where(total == n, np.maximum(proven, last), proven)
    stages = looks(method, n)
    found = clopper_pearson_lower(hits, np.maximum(total, 1), alpha / len(stages))
    return np.where(np.isin(total, stages), found, 0.0)


def largest_radius(method: Method, n: int, alpha: float, sigma: float) -> float:
    """The radius that n samples certify where all of them agree; 0 where they never certify."""
    return float(radius(lower_bound(method, n, n, n, alpha), sigma))


def smallest_n(alpha: float, at: float = 0.0, sigma: float = 1.0, method: Method = "fixed") -> int:
    """The smallest number of samples that can certify radius ``at`` (0: that can certify at all), all agreeing.

    For ``fixed`` the bound is alpha**(1/n) then, so at radius 0 and alpha = 0.001 it is 10.
    """
    p0 = float(needed_probability(at, sigma))

    def certifies(n: int) -> bool:
        return bool(lower_bound(method, n, n, n, alpha) >= p0)

    if method == "staged":
        # The bound falls a little where a stage is added: try each number of stages by itself.
        before, stages = 0, 1
        while True:
            upto = _stages(10**9)[stages - 1]
            n = max(before + 1, math.floor(math.log(alpha / stages) / math.log(p0)))
            n = next(m for m in range(n, n + 4) if certifies(m) or m > upto or m == n + 3)
            if n <= upto and certifies(n):
                return n
            before, stages = upto, stages + 1
    low, high = 0, 1
    while not certifies(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if certifies(middle) else (middle, high)
    return high


def needed_count(method: Method, n: int, alpha: float, p0: ArrayLike) -> NDArray[np.int64]:
    """How many of n samples must agree to certify p0 at the last look; n + 1 where none suffice. Shapes: p0 (r,)."""
    wanted = np.asarray(p0, float)
    low, high = np.full(wanted.shape, -1), np.full(wanted.shape, n + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = lower_bound(method, middle.clip(0, n), n, n, alpha) >= wanted
        low, high = np.where(enough, low, np.maximum(low, middle)), np.where(enough, middle, high)
    return high
