"""Paired tests: exact levels by enumeration, agreement with published forms, intervals, and powers by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from bbox.results.paired import (
    _score,
    compare_distances,
    compare_rates,
    difference_interval,
    difference_p,
    holm,
    paired_ratios,
    ratio_interval,
    region_chance,
    sign_p,
)
from bbox.results.paired_power import (
    POWER,
    detectable_distance,
    detectable_rate,
    examples_for_distance,
    examples_for_rate,
)

ALPHA = 0.05


def _pairs(lost: int, gained: int, both: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    before = np.array([True] * lost + [False] * gained + [True] * both + [False] * neither)
    now = np.array([False] * lost + [True] * gained + [True] * both + [False] * neither)
    return before, now


@pytest.mark.parametrize(("n", "tolerance"), list(itertools.product((8, 20, 50), (0.02, 0.1, 0.3))))
def test_the_test_of_a_difference_keeps_its_level_at_every_discordance(n: int, tolerance: float) -> None:
    rejects = [
        [difference_p(lost, gained, n, tolerance) <= ALPHA for lost in range(n + 1 - gained)] for gained in range(n + 1)
    ]
    first = np.array([row.index(True) if True in row else len(row) for row in rejects])
    for row, edge in zip(rejects, first, strict=True):
        assert all(row[edge:]), "more lost is more evidence"
    gained = np.linspace(0, (1 - tolerance) / 2, 1999)
    level = region_chance(first, n, gained + tolerance, gained)
    # The same chance by another way: the trinomial itself, summed over all outcomes.
    lost_, gained_ = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
    inside = (lost_ + gained_ <= n) & (lost_ >= first[gained_])
    outcomes = np.stack([lost_[inside], gained_[inside], n - lost_[inside] - gained_[inside]], 1)
    for place in (3, 700, 1500):
        q = gained[place]
        chance = stats.multinomial.pmf(outcomes, n, [q + tolerance, q, max(1 - 2 * q - tolerance, 0.0)]).sum()
        assert level[place] == pytest.approx(chance, abs=1e-9)
    assert level.max() <= ALPHA + 1e-9
    assert level.max() > ALPHA / 2, "and does not waste it"
    smaller = np.linspace(0, 0.5, 201)  # within the hypothesis, away from its edge
    assert region_chance(first, n, smaller, smaller).max() <= ALPHA


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (8, 2), (3, 9), (40, 22)])
def test_without_a_tolerance_it_is_mcnemars(lost: int, gained: int) -> None:
    seen = compare_rates(*_pairs(lost, gained, 70, 4))
    assert (seen.lost, seen.gained, seen.n) == (lost, gained, 74 + lost + gained)
    assert seen.method == "exact McNemar test"
    table = [[70, lost], [gained, 4]]
    expected = 1.0 if lost + gained == 0 else mcnemar(table, exact=True).pvalue
    assert sign_p(lost, gained, two_sided=True) == pytest.approx(expected)
    assert seen.p == pytest.approx(stats.binom.sf(lost - 1, lost + gained, 0.5) if lost + gained else 1.0)
    assert _score(np.array(lost), np.array(gained), seen.n, 0.0) == pytest.approx(
        (lost - gained) / math.sqrt(lost + gained) if lost + gained else 0.0
    )
    # The test of a tolerance that vanishes: unconditional, so close to it and not above.
    if lost > gained:
        assert 0.4 * seen.p <= difference_p(lost, gained, seen.n, 1e-9) <= seen.p + 1e-6


@given(lost=st.integers(0, 30), gained=st.integers(0, 30), rest=st.integers(0, 60))
def test_the_interval_holds_the_difference_and_turns_with_it(lost: int, gained: int, rest: int) -> None:
    n = lost + gained + rest
    low, high = difference_interval(lost, gained, n)
    if n == 0:
        assert (low, high) == (None, None)
        return
    assert low is not None and high is not None
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    turned = difference_interval(gained, lost, n)
    assert (-high, -low) == pytest.approx(turned, abs=1e-6)
    for end in (low, high):  # its ends are where the score test is at its level
        if abs(end) < 1:
            assert abs(_score(np.array(lost), np.array(gained), n, -end)) == pytest.approx(1.95996, abs=1e-3)


def test_tangos_interval_of_a_published_table() -> None:
    # Fagerland, Lydersen and Laake, Statistics in Medicine 2014, airway hyper-responsiveness: 1 and 7 of 21 differ.
    assert difference_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_the_interval_of_a_difference_covers_it() -> None:
    n, p = 40, (0.25, 0.1)
    outcomes = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    chance = stats.multinomial.pmf([(b, c, n - b - c) for b, c in outcomes], n, [*p, 1 - sum(p)])
    likely = [(o, w) for o, w in zip(outcomes, chance, strict=True) if w > 1e-6]
    held = sum(w for (b, c), w in likely if _holds(difference_interval(b, c, n), p[1] - p[0]))
    assert 0.94 <= held <= 0.97


def _holds(interval: tuple[float | None, float | None], value: float) -> bool:
    return interval[0] is not None and interval[1] is not None and interval[0] <= value <= interval[1]


def test_distances_are_compared_as_ratios_with_infinite_ones() -> None:
    before = np.array([1.0, 2.0, 4.0, math.inf, math.inf, 3.0])
    now = np.array([0.5, 2.0, 8.0, math.inf, 5.0, math.inf])
    assert paired_ratios(before, now).tolist() == [0.5, 1.0, 2.0, 1.0, 0.0, math.inf]
    seen = compare_distances(before, now)
    assert (seen.lost, seen.gained, seen.n, seen.p) == (2, 2, 6, sign_p(2, 2))
    assert seen.before == 3.5 and seen.now == 6.5 and seen.effect == 1.0
    assert seen.interval == (0.0, None), "its upper end is infinite"
    tolerant = compare_distances(before, now, 0.5)
    assert (tolerant.lost, tolerant.gained) == (1, 4), "a ratio that is the tolerance itself is a tie"
    nothing = compare_distances(np.empty(0), np.empty(0))
    assert (nothing.p, nothing.effect, nothing.interval) == (1.0, None, (None, None))


def test_the_interval_of_a_median_is_exact() -> None:
    assert ratio_interval(np.arange(5.0)) == (None, None)
    for n in (6, 17, 64):
        low, high = ratio_interval(np.arange(float(n)))
        assert low is not None and high == n - 1 - low
        assert 1 - 2 * stats.binom.cdf(low, n, 0.5) >= 0.95 > 1 - 2 * stats.binom.cdf(low + 1, n, 0.5)


def test_holm_as_statsmodels_has_it() -> None:
    assert holm([]) == []
    draw = np.random.default_rng(3)
    for count in (1, 2, 7, 12):
        p = draw.uniform(size=count) ** 3
        p[0] = p[-1]
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


# --- what a test can see -----------------------------------------------------------------------------------------


def test_the_smallest_fall_has_the_power_and_a_smaller_one_has_not() -> None:
    level, draw = 0.01, np.random.default_rng(0)
    for tolerance in (0.0, 0.05):
        seen = compare_rates(*_pairs(2, 2, 60), tolerance)
        fall = detectable_rate(seen, level)
        assert fall is not None
        shown = []
        for true in (fall, 0.6 * fall):
            noise = seen.gained / seen.n
            counts = draw.multinomial(seen.n, [noise + true, noise, 1 - 2 * noise - true], size=600)
            test = sign_p if tolerance == 0 else lambda b, c: difference_p(b, c, 64, 0.05)
            shown.append(np.mean([test(int(b), int(c)) <= level for b, c, _ in counts]))
        assert POWER - 0.1 <= shown[0] <= POWER + 0.1 and shown[1] < POWER - 0.2


def test_a_proportion_cannot_be_seen_to_fall_by_more_than_itself() -> None:
    for right in (0, 1, 4):  # of 64: at this level a fall shows where 7 are lost and none is gained
        robust = np.arange(64) < right
        assert detectable_rate(compare_rates(robust, robust), 0.01) is None
    robust = np.arange(64) < 16
    fall = detectable_rate(compare_rates(robust, robust), 0.01)
    assert fall is not None and 7 / 64 < fall < 16 / 64


def test_as_many_examples_as_it_says_tell_a_fall_from_none() -> None:
    level = 0.01
    seen = compare_rates(*_pairs(3, 3, 58), 0.1)
    need = examples_for_rate(seen, level)
    assert need is not None
    noise = 3 / 64
    draw = np.random.default_rng(1).multinomial(need, [noise + 0.1, noise, 0.9 - 2 * noise], size=1000)
    assert np.mean([sign_p(int(b), int(c)) <= level for b, c, _ in draw]) == pytest.approx(POWER, abs=0.05)
    assert examples_for_rate(compare_rates(*_pairs(3, 3, 58)), level) is None, "no tolerance, no number"
    few = examples_for_rate(compare_rates(*_pairs(3, 3, 58), 0.002), level)
    assert few is not None and few > 100_000, "by the normal approximation"


def test_what_distances_show() -> None:
    draw = np.random.default_rng(2)
    ratios = np.exp(0.2 * draw.normal(size=64))
    fall = detectable_distance(ratios, 0.1, 0.01)
    assert fall is not None and 0.1 < fall < 0.3
    again = [np.exp(0.2 * draw.normal(size=64)) * (1 - fall) for _ in range(400)]
    power = np.mean([compare_distances(np.ones(64), r, 0.1).p <= 0.01 for r in again])
    assert power == pytest.approx(POWER, abs=0.15), "the scatter that was seen is that of 64"
    need = examples_for_distance(ratios, 0.1, 0.01)
    assert need is not None and 20 < need < 150
    assert examples_for_distance(ratios, 0.0, 0.01) is None
    still = np.ones(64)
    assert detectable_distance(still, 0.0, 0.01) == pytest.approx(0.0), "without noise every fall shows"
    assert detectable_distance(still[:4], 0.0, 0.01) is None, "four examples show nothing at this level"
