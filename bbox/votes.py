"""Votes: one answer for a row that was asked several times, for targets that answer at random."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.errors import InternalError
from bbox.goal import Goal
from bbox.targets.base import REFUSED

__all__ = ["Tally", "most_frequent", "vote"]


def vote(labels: Tensor, owner: Tensor, goal: Goal, majority: float = 0.5) -> Tensor:
    """The label that stands for the copies of each row.

    The vote is on the goal: it is met where more than ``majority`` of the copies that were not refused meet it, so a
    tie counts against the attack. The label is the most frequent one of the winning side, hence ``goal.met`` says the
    same of it as the vote did. An unusable answer (-1) is a vote against; a refused one is no vote.

    Shapes:
        labels: (m, copies) int64; owner: (m,) int64, each row's place in the goal.
        returns: (m,) int64, ``REFUSED`` where every copy was refused.
    """
    cast = labels != REFUSED
    met = goal.met(labels, owner[:, None]) & (labels >= 0)
    won = met.sum(1) > majority * cast.sum(1)
    return most_frequent(labels, cast & (met == won[:, None]))


def most_frequent(labels: Tensor, among: Tensor) -> Tensor:
    """The most frequent label of each row, of equally frequent ones that which came first.

    Shapes:
        labels: (m, copies) int64; among: (m, copies) bool, the copies that count.
        returns: (m,) int64, ``REFUSED`` where none counts.
    """
    same = (labels[:, :, None] == labels[:, None, :]) & among[:, None, :]
    count = same.sum(2).masked_fill(~among, 0)
    found = labels.gather(1, count.argmax(1, keepdim=True))[:, 0]
    return found.masked_fill(~among.any(1), REFUSED)


class Tally:
    """The answers to the copies of the rows of one ask. Copy ``c`` of row ``r`` is number ``r * votes + c``.

    Budgets and limits cut an ask at some copy of each example and let none after it through, so a row has all of its
    votes exactly when its last copy is in; until then nothing is said of it.

    Raises:
        InternalError: ``votes`` is less than 1.
    """

    def __init__(self, rows: int, votes: int, majority: float = 0.5) -> None:
        if votes < 1:
            raise InternalError(f"the attack asked rows with {votes} votes, expected at least 1")
        self.votes, self.majority = votes, majority
        self._labels = torch.full((rows, votes), REFUSED)
        self._scores: Tensor | None = None

    def add(self, copies: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Note the answers to these copies. Shapes: copies, labels (k,) int64; scores (k, classes)."""
        row, copy = copies // self.votes, copies % self.votes
        self._labels[row, copy] = labels
        if scores is not None:
            if self._scores is None:
                self._scores = torch.full((*self._labels.shape, scores.shape[1]), torch.nan)
            self._scores[row, copy] = scores

    def last(self, copies: Tensor) -> Tensor:
        """Which of these copies complete their row: (k,) bool."""
        return copies % self.votes == self.votes - 1

    def result(self, rows: Tensor, owner: Tensor, goal: Goal) -> tuple[Tensor, Tensor | None]:
        """Labels by vote, and the mean scores of the copies that were answered (NaN where none was), of these rows."""
        labels = self._labels[rows]
        winner = vote(labels, owner, goal, self.majority)
        if self._scores is None:
            return winner, None
        answered = (labels >= 0)[:, :, None]
        # In float64, so that the mean hardly depends on the order of summation.
        mean = self._scores[rows].double().masked_fill(~answered, 0.0).sum(1) / answered.sum(1)
        return winner, mean.float()
