"""Certificates of rename smoothing against everything that an attacker could do, tried one by one."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from bbox.defenses.rename_smoothing import certificate
from bbox.defenses.rename_smoothing.certificate import ablation_certificate, certified_identifiers, touched


def _answer(labels: tuple[int, ...], classes: int) -> int:
    return int(np.eye(classes)[list(labels)].sum(0).argmax())


def _brute_force(labels: list[int], kept: np.ndarray, classes: int) -> int:
    """The largest R for which no labels of the copies that R renames reach change the vote."""
    copies, identifiers = kept.shape
    before = _answer(tuple(labels), classes)
    for renamed in range(1, identifiers + 1):
        for chosen in combinations(range(identifiers), renamed):
            reached = kept[:, list(chosen)].any(1)
            choices = [range(classes) if reached[copy] else (labels[copy],) for copy in range(copies)]
            if any(_answer(other, classes) != before for other in product(*choices)):
                return renamed - 1
    return identifiers


@pytest.mark.parametrize("seed", range(60))
def test_the_vote_is_certified_for_exactly_what_no_rename_can_change(seed: int) -> None:
    random = np.random.default_rng(seed)
    copies, identifiers, classes = random.integers(1, 7), random.integers(1, 6), random.integers(2, 4)
    kept = random.random((copies, identifiers)) < random.choice([0.15, 0.3, 0.6])
    labels = random.choice(classes, copies, p=random.dirichlet(np.full(classes, 0.4))).tolist()
    found = certified_identifiers(np.eye(classes)[labels], kept)
    assert found == _brute_force(labels, kept, classes)


def test_the_bound_for_many_sets_is_never_above_what_trying_them_says(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    cases = []
    for _ in range(100):
        kept = random.random((12, 7)) < 0.15
        cases.append((np.eye(3)[random.choice(3, 12, p=[0.8, 0.1, 0.1])], kept))
    exact = [certified_identifiers(*case) for case in cases]
    monkeypatch.setattr(certificate, "_SETS", 0)
    bound = [certified_identifiers(*case) for case in cases]
    assert all(low <= high for low, high in zip(bound, exact, strict=True))
    assert sum(bound) > sum(exact) / 2  # it is a bound and not a refusal


def test_mean_scores_are_certified_against_every_corner(seed: int = 1) -> None:
    random = np.random.default_rng(seed)
    positive = 0
    for _ in range(60):
        copies, identifiers = 5, 4
        kept = random.random((copies, identifiers)) < 0.25
        votes = random.dirichlet([3.0, 0.3], copies)
        found = certified_identifiers(votes, kept)
        positive += found > 0
        top = votes.sum(0).argmax()
        for chosen in combinations(range(identifiers), found):
            worst = votes.copy()
            worst[kept[:, list(chosen)].any(1)] = np.eye(2)[1 - top]
            assert worst.sum(0).argmax() == top
    assert positive > 20


def test_without_kept_names_everything_is_certified_and_without_votes_nothing() -> None:
    assert certified_identifiers(np.eye(2)[[0, 1]], np.zeros((2, 9), bool)) == 9  # even of a tie
    assert certified_identifiers(np.zeros((3, 2)), np.ones((3, 4), bool)) == 0
    assert certified_identifiers(np.eye(2)[[0, 0]], np.zeros((2, 0), bool)) == 0  # there is nothing to rename


def test_delta_is_the_share_of_sets_that_hold_a_renamed_identifier() -> None:
    for n, k, renamed in product(range(1, 7), range(7), range(7)):
        if k > n or renamed > n:
            continue
        sets = list(combinations(range(n), k))
        hit = sum(any(place < renamed for place in chosen) for chosen in sets)
        assert touched(n, k, renamed) == pytest.approx(hit / len(sets))


@pytest.mark.parametrize(("n", "k"), [(4, 1), (5, 1), (6, 2), (5, 0)])
def test_the_ablation_certificate_holds_for_the_worst_classifier(n: int, k: int) -> None:
    """Of all copies, an attacker turns those that keep one of his identifiers."""
    sets = list(combinations(range(n), k))
    for right in range(len(sets) + 1):
        share = right / len(sets)
        # As many samples as one likes: the bound is the share itself, nearly.
        certified = ablation_certificate(int(share * 1_000_000), 1_000_000, n, k)
        for renamed in range(certified + 1):
            turned = sum(any(place < renamed for place in chosen) for chosen in sets)
            assert right - turned > len(sets) / 2
        if certified < n and share > 0.5 + 1e-3:
            turned = sum(any(place < certified + 1 for place in chosen) for chosen in sets)
            assert right - turned <= len(sets) / 2 * (1 + 1e-2) + 1e-9


def test_the_ablation_certificate_pays_for_few_samples() -> None:
    assert ablation_certificate(10, 10, 10, 1, alpha=0.001) == 0  # 0.501, the least that is above a half
    assert ablation_certificate(9, 9, 10, 1, alpha=0.001) == -1
    assert ablation_certificate(1000, 1000, 10, 1) == 4
    # It is wrong at most as often as alpha says: no class has more than half here.
    wrong = sum(
        stats.binom.pmf(hits, 50, 0.5) for hits in range(51) if ablation_certificate(hits, 50, 3, 0, alpha=0.05) >= 0
    )
    assert 0 < wrong <= 0.05
