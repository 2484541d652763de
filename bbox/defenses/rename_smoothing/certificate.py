"""How many identifiers may be renamed, in any way, without changing what rename smoothing answers.

Both follow from one fact: a rename of identifiers changes only those copies in which one of them has kept its name.

``certified_identifiers`` is about the vote as it is deployed, over k copies that are fixed by the program: exact, and
not a statement of probability (derandomized smoothing, as in Levine and Feizi, "(De)Randomized Smoothing for
Certifiable Defense against Patch Attacks", NeurIPS 2020). ``ablation_certificate`` is about the vote over all possible
copies, of which some are sampled (Levine and Feizi, "Robustness Certificates for Sparse Adversarial Attacks by
Randomized Ablation", AAAI 2020; Zeng et al., RanMASK, arXiv 2105.03743).
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from bbox.defenses.bounds import clopper_pearson_lower
from bbox.errors import InternalError

__all__ = ["ablation_certificate", "certified_identifiers", "touched"]

_SETS = 20_000  # sets of identifiers that are tried one by one; of more, a bound on the worst is taken
_ROUNDING = 1e-9


def certified_identifiers(votes: NDArray[np.float64], kept: NDArray[np.bool_]) -> int:
    """The largest R such that no rename of R identifiers changes the class with the largest sum of votes.

    A rename of R identifiers can turn every copy that keeps one of them into a whole vote for any class. The R that
    hurt most are found by trying all sets, or, where those are many, bounded by the R that are worst one by one.

    Shapes (k copies, n identifiers):
        votes: (k, classes), each row a class's one, probabilities, or zeros where the copy gave no answer.
        kept: (k, n), the identifiers that have their own names in each copy.
        returns: 0 to n; n where no identifier is ever kept, since then every copy is the same under every rename.

    Example:
        >>> votes = np.eye(2)[[0, 0, 0, 0, 1]]  # four copies for class 0, one for class 1
        >>> certified_identifiers(votes, np.eye(5, dtype=bool))  # each keeps one identifier of five
        1
    """
    total = votes.sum(0)
    identifiers = int(kept.shape[1])
    if not kept.any():
        return identifiers
    if not total.any():
        return 0
    top = int(total.argmax())
    margin = votes[:, [top]] - votes  # (k, classes)
    gap = margin.sum(0)
    for renamed in range(1, identifiers + 1):
        # A copy that is touched loses its margin and gives a whole vote to the other class.
        left = gap - _worst(kept, margin + 1, renamed)
        left[top] = np.inf
        # Of equal sums the class that comes first wins.
        ahead = (left > _ROUNDING) | ((np.abs(left) <= _ROUNDING) & (np.arange(len(left)) > top) & _whole(votes))
        if not ahead.all():
            return renamed - 1
    return identifiers


def touched(identifiers: int, kept: int, renamed: int) -> float:
    """Probability that a random set of ``kept`` identifiers holds one of ``renamed``: 1 - C(n - R, k) / C(n, k).

    Delta of Levine and Feizi (AAAI 2020, theorem 1).
    """
    if not 0 <= kept <= identifiers or not 0 <= renamed <= identifiers:
        raise InternalError(f"{kept} kept and {renamed} renamed of {identifiers} identifiers")
    return 1 - comb(identifiers - renamed, kept) / comb(identifiers, kept)


def ablation_certificate(hits: int, samples: int, identifiers: int, kept: int, *, alpha: float = 0.001) -> int:
    """The largest R with p - Delta(R) > 1/2, p the lower Clopper-Pearson bound on the probability of the class.

    With probability 1 - alpha over the samples, the vote over all copies says this class under every rename of R
    identifiers. That is the bound of Levine and Feizi; RanMASK's factor beta, itself an estimate, is taken as 1.

    Args:
        hits: samples of the class, which must have been chosen by other samples.
        kept: identifiers that keep their name in a copy.

    Returns:
        -1 where not even the class without any rename is certain (an abstention).
    """
    lower = float(clopper_pearson_lower(np.asarray([hits]), samples, alpha)[0])
    certified = -1
    for renamed in range(identifiers + 1):
        if lower - touched(identifiers, kept, renamed) <= 0.5:
            break
        certified = renamed
    return certified


def _worst(kept: NDArray[np.bool_], loss: NDArray[np.float64], renamed: int) -> NDArray[np.float64]:
    """The most that copies can lose to each class by so many renames. Shapes: loss (k, classes); returns (classes,)."""
    identifiers = int(kept.shape[1])
    if comb(identifiers, renamed) <= _SETS:
        sets = np.array(list(combinations(range(identifiers), renamed)))
        reached = kept[:, sets].any(2)  # (k, sets)
        worst: NDArray[np.float64] = (loss.T @ reached).max(1)
        return worst
    alone = np.sort(loss.T @ kept, axis=1)[:, ::-1]  # (classes, n)
    bound: NDArray[np.float64] = np.minimum(alone[:, :renamed].sum(1), loss[kept.any(1)].sum(0))
    return bound


def _whole(votes: NDArray[np.float64]) -> bool:
    """Whether the votes are counts, whose sums are exact."""
    return bool((votes == votes.round()).all())
