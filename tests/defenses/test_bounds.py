"""Bounds against formulas of their own, and the error rates that they promise, by simulation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from bbox.defenses import bounds
from bbox.defenses.bounds import METHODS
from bbox.defenses.stopping import StoppingRule
from tests.defenses.smoothing_toys import phi, simulate

TRIALS = 10_000


@pytest.mark.parametrize(("k", "n"), [(1, 10), (5, 10), (10, 10), (990, 1000), (9_999, 10_000)])
def test_clopper_pearson_inverts_the_binomial_test(k: int, n: int) -> None:
    low = float(bounds.clopper_pearson_lower(k, n, 0.01))
    assert stats.binom.sf(k - 1, n, low) == pytest.approx(0.01, rel=1e-6)
    if k < n:
        high = float(bounds.clopper_pearson_upper(k, n, 0.01))
        assert stats.binom.cdf(k, n, high) == pytest.approx(0.01, rel=1e-6)


def test_clopper_pearson_at_the_ends() -> None:
    assert bounds.clopper_pearson_lower([0, 10], 10, 0.001).tolist() == pytest.approx([0, 0.001 ** (1 / 10)])
    assert bounds.clopper_pearson_upper([0, 10], 10, 0.001).tolist() == pytest.approx([1 - 0.001 ** (1 / 10), 1])


def test_radius() -> None:
    assert bounds.radius([0.2, 0.5, phi(1.0), phi(3.0)], 0.25).tolist() == pytest.approx([0, 0, 0.25, 0.75])
    # Cohen et al.: n = 10,000 and alpha = 0.001 reach 0.25 * 3.2 at most.
    assert bounds.largest_radius("fixed", 10_000, 0.001, 0.25) == pytest.approx(0.7996, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 1.0])
def test_smallest_n_is_the_smallest(method: bounds.Method, at: float) -> None:
    n = bounds.smallest_n(0.001, at, 0.5, method)
    wanted = bounds.needed_probability(at, 0.5)
    can = [bool(bounds.lower_bound(method, m, m, m, 0.001) >= wanted) for m in range(1, n + 1)]
    assert can[-1] and not any(can[:-1])


def test_smallest_n_of_the_fixed_test_is_the_textbook_one() -> None:
    assert bounds.smallest_n(0.001) == 10  # ln(alpha) / ln(1/2) = 9.97
    assert bounds.smallest_n(0.05, 1.0, 1.0) == math.ceil(math.log(0.05) / math.log(phi(1.0)))


@pytest.mark.parametrize(
    ("k", "n", "p0"), [(10, 10, 0.5), (90, 100, 0.84), (60, 100, 0.5), (900, 1000, 0.95), (500, 1000, 0.7)]
)
def test_evidence_is_the_mixture_of_likelihood_ratios(k: int, n: int, p0: float) -> None:
    # With p = sin(t)^2 the Beta(1/2, 1/2) prior is flat in t.
    def ratio(t: float) -> float:
        p = math.sin(t) ** 2
        return math.exp(k * math.log(p / p0) + ((n - k) * math.log((1 - p) / (1 - p0)) if k < n else 0.0))

    start, end = math.asin(math.sqrt(p0)), math.pi / 2
    grid = np.linspace(start, end, 60)
    area = sum(integrate.quad(ratio, a, b)[0] for a, b in pairwise(grid))
    assert float(bounds.log_evidence(k, n, p0)) == pytest.approx(math.log(area / (end - start)), abs=1e-6)


def test_evidence_is_finite_and_one_way_for_a_million_samples() -> None:
    n = 1_000_000
    k = np.array([0, 1, 500_000, 999_000, 999_999, n])
    found = bounds.log_evidence(k[:, None], n, np.array([0.5, 0.9, 0.999, 0.9999999]))
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=0) >= -1e-6).all(), "more hits, more evidence"
    assert (found[0] < 0).all() and float(found[-1, 0]) == pytest.approx(n * math.log(2), rel=1e-3)


def test_inversion_agrees_with_the_evidence_at_every_p0() -> None:
    grid = np.linspace(0.001, 0.999, 999)
    for k, n in [(12, 12), (19, 20), (1000, 1000), (950, 1000), (3, 1000)]:
        lower = float(bounds.anytime_lower(k, n, 0.01))
        below = grid[grid < k / n]
        rejected = bounds.log_evidence(k, n, below) >= -math.log(0.01)
        assert (rejected == (below <= lower)).all()
    assert bounds.anytime_lower(np.zeros(2), 10, 0.01).max() < 1e-9
    k = np.arange(101)
    assert (np.diff(bounds.anytime_lower(k, 100, 0.01)) >= 0).all()
    assert (bounds.anytime_lower(k, 100, 0.01) <= bounds.clopper_pearson_lower(k, 100, 0.01) + 1e-12).all()


def test_needed_count_is_where_the_bound_crosses() -> None:
    for method in METHODS:
        count = int(bounds.needed_count(method, 300, 0.001, [0.8])[0])
        assert bounds.lower_bound(method, count, 300, 300, 0.001) >= 0.8
        assert bounds.lower_bound(method, count - 1, 300, 300, 0.001) < 0.8
    assert bounds.needed_count("fixed", 10, 0.001, [0.9])[0] == 11


def test_looks() -> None:
    assert bounds.looks("fixed", 500) == (500,)
    assert bounds.looks("staged", 5000) == (100, 300, 1000, 3000, 5000)
    assert bounds.looks("staged", 50) == (50,)
    many = bounds.looks("eprocess", 10_000)
    assert many[-1] == 10_000 and list(many) == sorted(set(many))


# --- promises, by simulation -----------------------------------------------------------------------------------------


def _at_most(wrong: int, alpha: float) -> bool:
    """Whether this many errors in TRIALS are compatible with a rate of at most alpha (one in 10,000 runs fails)."""
    return bool(stats.binom.sf(wrong - 1, TRIALS, alpha) > 1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_type_one_error_at_the_boundary(method: bounds.Method, ratio: float) -> None:
    """p is exactly what the radius needs, so every certificate is wrong: at most alpha of them may be given."""
    alpha, sigma = 0.01, 0.5
    rule = StoppingRule(method, 1000, alpha, sigma, (ratio * sigma,))
    wanted = float(bounds.needed_probability(ratio * sigma, sigma))
    lower, _ = simulate(rule, np.full(TRIALS, wanted), seed=1)
    wrong = int((lower >= wanted).sum())
    assert _at_most(wrong, alpha), f"{wrong} of {TRIALS}"
    assert wrong > 0, "a test that never errs at alpha = 0.01 would be wasteful or broken"


def test_the_bound_of_all_radii_at_once_covers() -> None:
    """Early stopping for several radii at once: the bound itself (any radius) fails with probability alpha at most."""
    alpha, p = 0.01, 0.9
    for method in METHODS:
        rule = StoppingRule(method, 1000, alpha, 0.5, (0.0, 0.25, 0.5, 0.75))
        lower, _ = simulate(rule, np.full(TRIALS, p), seed=2)
        assert _at_most(int((lower > p).sum()), alpha)


def test_the_evidence_is_valid_at_every_sample_number() -> None:
    """Looked at after each of 1000 samples, it ever exceeds 1 / alpha in at most alpha of the trials."""
    alpha, p0, n = 0.05, 0.8, 1000
    rng = np.random.default_rng(3)
    hits, highest = np.zeros(TRIALS, np.int64), np.full(TRIALS, -np.inf)
    peeking = np.zeros(TRIALS, bool)
    for at in range(1, n + 1):
        hits += rng.random(TRIALS) < p0
        evidence = bounds.log_evidence(np.arange(at + 1), at, p0)
        highest = np.maximum(highest, evidence[hits])
        if at % 20 == 0:
            peeking |= (bounds.clopper_pearson_lower(np.arange(at + 1), at, alpha) > p0)[hits]
    wrong = int((highest >= -math.log(alpha)).sum())
    assert _at_most(wrong, alpha) and wrong > 0
    assert not _at_most(int(peeking.sum()), alpha), "the same peeking breaks the fixed test: the simulation can tell"


@pytest.mark.parametrize(("method", "times"), [("staged", 10), ("eprocess", 20)])
def test_sequential_verdicts_are_those_of_the_fixed_test(method: bounds.Method, times: int) -> None:
    """At r = sigma and n = 10,000, on probabilities like those of a smoothed digits model."""
    rng = np.random.default_rng(4)
    p = np.concatenate([1 - rng.beta(0.25, 3, 4000), rng.uniform(0, 1, 300)])
    wanted = bounds.needed_probability(0.5, 0.5)
    fixed, _ = simulate(StoppingRule("fixed", 10_000, 0.001, 0.5, (0.5,)), p, seed=5)
    found, samples = simulate(StoppingRule(method, 10_000, 0.001, 0.5, (0.5,)), p, seed=6)
    assert ((fixed >= wanted) == (found >= wanted)).mean() >= 0.99
    assert 10_000 / samples.mean() >= times * 0.9
    assert samples.max() <= 10_000
