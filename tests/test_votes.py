"""Votes: the goal is met by more than half of the copies that were answered, and by nothing less."""

from __future__ import annotations

import pytest
import torch

from bbox.goal import Goal
from bbox.targets.base import REFUSED
from bbox.votes import Tally, most_frequent, vote

R = REFUSED


@pytest.mark.parametrize(
    ("copies", "untargeted", "targeted"),
    [
        # the true class is 0, the class to reach 1
        ([0], 0, 0),
        ([1], 1, 1),
        ([R], R, R),
        ([-1], -1, -1),
        ([0, 1], 0, 0),  # a tie is no success
        ([1, 0], 0, 0),
        ([1, 1, 0], 1, 1),
        ([0, 0, 1], 0, 0),
        ([2, 1, 0], 2, 2),  # two of three left the class; of equally frequent labels the first
        ([1, 2, 2, 1, 0], 1, 2),
        ([0, 0, 0, 1, 1, 2, 2], 1, 0),  # the true class is the most frequent, yet four of seven left it
        ([1, R, R, R], 1, 1),  # a refused copy is no vote
        ([1, 0, R, R], 0, 0),
        ([1, 1, 0, R, R, R, R], 1, 1),
        ([1, -1], -1, -1),  # an unusable answer is a vote against
        ([1, 1, -1], 1, 1),
    ],
)
def test_the_vote_is_on_the_goal(copies: list[int], untargeted: int, targeted: int) -> None:
    labels, owner = torch.tensor([copies, copies]), torch.tensor([1, 0])
    for goal, expected in (
        (Goal(torch.tensor([0, 0])), untargeted),
        (Goal(torch.tensor([1, 1]), targeted=True), targeted),
    ):
        found = vote(labels, owner, goal)
        assert found.tolist() == [expected] * 2
        ballots = [label for label in copies if label != R]
        wins = sum(bool(goal.met(torch.tensor([label]), owner[:1])) and label >= 0 for label in ballots)
        met = bool(goal.met(found[:1], owner[:1])) and int(found[0]) >= 0
        assert met == (2 * wins > len(ballots))


def test_rows_are_voted_on_one_by_one_against_their_own_goal() -> None:
    labels = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    assert vote(labels, torch.tensor([0, 1, 0]), Goal(torch.tensor([0, 1]))).tolist() == [0, 0, 1]


def test_most_frequent() -> None:
    labels = torch.tensor([[3, 1, 1, 3], [2, 2, 0, 0], [R, R, R, 4], [R, R, R, R]])
    assert most_frequent(labels, labels != R).tolist() == [3, 2, 4, R]


def test_a_row_is_complete_with_its_last_copy_and_scores_are_means_of_answered_copies() -> None:
    tally = Tally(2, 3)
    nan = torch.nan
    tally.add(torch.tensor([0, 1, 3]), torch.tensor([1, R, 0]), torch.tensor([[0.0, 1.0], [nan, nan], [1.0, 0.0]]))
    assert tally.last(torch.tensor([0, 1, 3])).tolist() == [False] * 3
    tally.add(torch.tensor([2, 4, 5]), torch.tensor([1, R, R]), torch.tensor([[0.5, 0.75], [nan, nan], [nan, nan]]))
    assert tally.last(torch.tensor([2, 4, 5])).tolist() == [True, False, True]
    labels, scores = tally.result(torch.tensor([1, 0]), torch.tensor([0, 0]), Goal(torch.tensor([0])))
    assert labels.tolist() == [0, 1]
    assert scores is not None and scores.tolist() == [[1.0, 0.0], [0.25, 0.875]]


def test_scores_of_a_row_that_was_refused_throughout_are_nan() -> None:
    tally = Tally(1, 2)
    tally.add(torch.tensor([0, 1]), torch.tensor([R, R]), torch.full((2, 3), torch.nan))
    labels, scores = tally.result(torch.tensor([0]), torch.tensor([0]), Goal(torch.tensor([0])))
    assert labels.tolist() == [R] and scores is not None and bool(scores.isnan().all())
