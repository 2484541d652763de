"""The smoothing vote: shares of labels over noisy copies, with each copy paid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bbox.defenses import make_defense
from bbox.errors import UsageError
from tests.toys import CLASSES, Answers, Quadratic


def by_mean(rows: Tensor) -> Tensor:
    """Class 1 above a mean of 0.5, else class 0."""
    return (rows.flatten(1).mean(1) > 0.5).long()


@pytest.mark.parametrize("access", ["labels", "scores"])
def test_shares_are_the_probability_of_each_label(access: str) -> None:
    def answer(rows: Tensor) -> Tensor:
        labels = by_mean(rows)
        return labels if access == "labels" else torch.nn.functional.one_hot(labels, CLASSES).float()

    n, sigma = 4000, 0.4
    wrapped = make_defense("vote", {"n": n, "sigma": sigma}).wrap(Answers(answer, access=access))
    shares = wrapped(torch.stack([torch.full((1, 2, 2), 0.45), torch.full((1, 2, 2), 0.6)]))
    # The mean of four pixels has deviation sigma / 2.
    expected = torch.special.ndtr(torch.tensor([-0.05, 0.1]) / (sigma / 2))
    assert wrapped.access == "scores" and shares.shape == (2, CLASSES)
    assert (shares[:, 1] - expected).abs().max() < 4 * 0.5 / n**0.5
    assert torch.equal((shares * n).round(), shares * n) and shares.sum(1).tolist() == [1, 1]


def test_every_copy_is_paid_in_forwards_of_a_fixed_size() -> None:
    target = Quadratic()
    wrapped = make_defense("vote", {"n": 100}).wrap(target)
    wrapped(torch.rand(11, 1, 8, 8))
    assert wrapped.rows_per_query == 100 and target.rows == 1100
    assert target.batches == [512, 512, 76]


def test_copies_of_a_query_differ_and_differ_again_when_it_is_repeated() -> None:
    target = Quadratic()
    wrapped = make_defense("vote", {"n": 50}).wrap(target)
    for _ in range(2):
        wrapped(torch.full((2, 1, 8, 8), 0.5))
    assert max(target.counts().values()) == 1


def test_copies_are_clipped_only_where_asked() -> None:
    seen: list[Tensor] = []

    def look(rows: Tensor) -> Tensor:
        seen.append(rows)
        return torch.zeros(len(rows), CLASSES)

    for clip in (False, True):
        make_defense("vote", {"clip": clip}).wrap(Answers(look))(torch.zeros(3, 1, 8, 8))
    assert seen[0].min() < -0.1 and seen[1].min() == 0


def test_unusable_answers_do_not_vote_and_a_row_without_a_vote_is_nan() -> None:
    def answer(rows: Tensor) -> Tensor:
        scores = torch.eye(CLASSES)[by_mean(rows)]
        return scores.masked_fill((rows.flatten(1).mean(1) < 0.2)[:, None], torch.nan)

    wrapped = make_defense("vote", {"n": 400, "sigma": 0.1}).wrap(Answers(answer))
    shares = wrapped(torch.stack([torch.full((1, 2, 2), v) for v in (0.0, 0.2, 0.8)]))
    assert shares[0].isnan().all()
    assert shares[1].tolist() == [1, 0, 0, 0] and shares[2].tolist() == [0, 1, 0, 0]


def test_labels_without_a_number_of_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="without saying how many"):
        make_defense("vote").wrap(Answers(by_mean, access="labels", classes=None))
