"""Rename smoothing: a program is answered for copies of it in which its identifiers have other names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.code.program import Program, Programs
from bbox.defenses.base import Defense, Wrapped
from bbox.defenses.ranges import between
from bbox.defenses.rename_smoothing.copies import Copies, draw
from bbox.defenses.rename_smoothing.names import vocabulary
from bbox.defenses.scores import labels_of, probabilities
from bbox.errors import UsageError
from bbox.targets.base import Takes, Target

__all__ = ["RenameSmoothing", "votes_of"]

_CHUNK = 512  # rows a forward of the inner target, so that memory does not grow with rows x n


@dataclass(frozen=True)
class RenameSmoothing(Defense):
    """Ask n copies of a program under random safe renames, and answer how they vote (randomized smoothing over names:
    EnBecome, 2026; RanMASK, Zeng et al., arXiv 2105.03743; the certificate after Levine and Feizi, AAAI 2020).

    With ``keep`` 0 every identifier is renamed in every copy, so that programs that differ by safe renames alone get
    the same copies, and one answer: certified for any number of identifiers, and exactly. With ``keep`` above 0 that
    part of them has its own name in each copy; the vote then certifies a number of identifiers for each program
    (``bbox.defenses.rename_smoothing.certificate``), and reads more of the names.

    The copies are fixed by the seed and the program without its identifiers: asking again gives an attacker nothing to
    average over, and the certificate needs no secret. New names come from a list that does not depend on the program:
    a substitute provider suggests what resembles the old name, and would let it through.

    The answer is the share of votes of each class as scores, also around a target that answers labels only. Copies
    whose answer is unusable or refused do not vote; a row without a vote is NaN.

    Args:
        n: copies a query.
        keep: part of the identifiers that keep their names in a copy, rounded down; 0: none.
        names: what they are called: common (words of any program), numbered (name, name2, ...) or a file, one a line.
        answer: votes, or mean: the mean of the copies' probabilities. Needs scores.
        functions: whether functions and methods that a program defines are renamed as well, as the attack may do.
        seed: of the copies.

    Queries: at most n forward rows each, in forwards of 512; copies that are equal are asked once.

    Raises (from ``wrap``):
        UsageError: the target reads no code, or answers labels and does not say how many classes there are.
        InputError: the file of names cannot be read.
    """

    n: int = 16
    keep: float = 0.0
    names: str = "common"
    answer: Literal["votes", "mean"] = "votes"
    functions: bool = False
    seed: int = 0

    takes: ClassVar[Takes] = "code"
    summary: ClassVar[str] = "vote over random safe renames of a program, with the number of identifiers it certifies"
    cost: ClassVar[str] = "n forwards, a parse; accuracy where names carry the class"
    weakness: ClassVar[str] = "anything but renames (dead code, reordering); with keep, renames of many identifiers"

    def __post_init__(self) -> None:
        between("n", self.n, 1, 100_000)
        between("keep", self.keep, 0, 1)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The names that identifiers are replaced by."""
        return vocabulary(self.names)

    def wrap(self, target: Target) -> Target:
        return _Smoothed(target, self)

    def check(self, target: Target) -> None:
        """Refuse a target whose answers cannot be put together.

        Raises:
            UsageError: see the class.
        """
        if target.access == "labels" and self.answer == "mean":
            raise UsageError(f"answer=mean needs scores, and {target.name} answers labels only; leave it out")
        if target.access == "labels" and target.num_classes is None:
            raise UsageError(
                f"rename-smoothing counts classes, and {target.name} answers labels without saying how many there are"
            )

    def copies(self, program: Program, *, first: int = 0, count: int | None = None) -> Copies:
        """The copies that a program is answered by; or ``count`` others, from number ``first`` on.

        Raises:
            UsageError: the program's language is unknown, or its grammar is not installed.
        """
        wanted = self.n if count is None else count
        return draw(
            program,
            self.vocabulary,
            count=wanted,
            keep=self.keep,
            functions=self.functions,
            seed=self.seed,
            first=first,
        )

    def state(self) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
        digest = hashlib.sha256("\n".join(self.vocabulary).encode()).hexdigest()
        return {"names": digest}, {}


class _Smoothed(Wrapped):
    def __init__(self, inner: Target, defense: RenameSmoothing) -> None:
        super().__init__(inner, defense, name="rename-smoothing")
        defense.check(inner)
        self.smoothing = defense
        self.smoothing.vocabulary  # noqa: B018  (a file that cannot be read is refused here)
        self.access = "scores"
        self.rows_per_query *= defense.n

    def __call__(self, rows: Programs) -> Tensor:
        drawn = [self.smoothing.copies(program) for program in rows]
        distinct = {copy: None for found in drawn for copy in found.programs}
        place = {copy: number for number, copy in enumerate(distinct)}
        asked = Programs(distinct)
        # An empty batch still asks once, for the number of classes.
        starts = range(0, max(1, len(asked)), _CHUNK)
        answers = torch.cat([self.inner(asked[start : start + _CHUNK]) for start in starts]).cpu()
        votes = votes_of(answers, self.inner, mean=self.smoothing.answer == "mean")
        sums = [votes[[place[copy] for copy in found.programs]].sum(0) for found in drawn]
        total = torch.from_numpy(np.array(sums).reshape(len(drawn), votes.shape[1]))
        shares: Tensor = total / total.sum(1, keepdim=True)  # 0 / 0 is NaN: no answer
        return shares.float().to(self.device)


def votes_of(answers: Tensor, target: Target, *, mean: bool = False) -> NDArray[np.float64]:
    """What each row adds to the sum of votes: one for its class, or (``mean``) its probabilities; zeros for no answer.

    Shapes:
        answers: (m, classes) scores or (m,) labels of ``target``, on the CPU; returns (m, classes).
    """
    scores = target.access == "scores"
    classes = answers.shape[1] if scores else (target.num_classes or 0)
    labels = labels_of(answers, scores=scores, refuses=target.refuses)
    valid = (labels >= 0) & (labels < classes)
    votes = torch.zeros(len(answers), classes, dtype=torch.float64)
    if mean:
        valid &= torch.isfinite(answers).all(1)
        votes[valid] = probabilities(answers[valid])
    else:
        votes[valid, labels[valid]] = 1.0
    return votes.numpy()
