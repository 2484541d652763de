"""Whether robust accuracy lies below a floor, by an exact binomial test on the attacked examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bbox.data.base import Examples
from bbox.errors import UsageError
from bbox.results.baseline import Baseline
from bbox.results.baseline_runs import make_baseline
from bbox.results.records import Config
from bbox.results.suite import load_suite, selected
from bbox.results.verdicts import adversarial_file, is_robust
from bbox.targets.base import Target

__all__ = ["check_floor"]


def check_floor(
    attacks: Sequence[str],
    config: Config,
    path: Path,
    floor: float,
    *,
    alpha: float = 0.05,
    target: Target | None = None,
    data: Examples | None = None,
) -> dict[str, Any]:
    """Attack a target, and test the hypothesis that its robust accuracy is at least ``floor``.

    An example is robust that was right and withstood every attack within the budget and epsilon. The floor does not
    hold where the upper Clopper-Pearson bound of robust accuracy, at level 1 - alpha, lies below it: a model at the
    floor fails with a chance of at most alpha, however few examples there are.

    Args:
        attacks, path, target, data: as ``bbox.results.baseline.make_baseline`` takes them.
        config: with one epsilon.
        floor: in (0, 1]; 1 means that a single example that is not robust is too many.

    Returns: ``holds``, ``robust_accuracy``, ``bound`` (the upper one), ``p``, ``n``, ``floor``, ``alpha``,
        ``epsilon``, ``budget``, ``attacks``, and ``fallen``: index, id, attack, distance and file of each that fell.

    Raises:
        UsageError: a number out of its range, not one epsilon, or so few examples that the floor always holds.
    """
    if not 0 < floor <= 1:
        raise UsageError(f"robust accuracy is {floor:g}, expected above 0 and at most 1")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha is {alpha:g}, expected above 0 and below 0.5")
    if len(config.epsilons) != 1:
        raise UsageError(f"{len(config.epsilons)} epsilons are given, a floor of robust accuracy needs one")
    target, data = load_suite(config, target, data)
    epsilon, n = config.epsilons[0], len(selected(config, data))
    if (1 - floor) ** n > alpha:
        least = math.ceil(math.log(alpha) / math.log(1 - floor))
        raise UsageError(
            f"{n} examples cannot refute a robust accuracy of {floor:g} at alpha {alpha:g}, not even if none is "
            f"robust; give at least {least}"
        )
    found = make_baseline(attacks, config, path, target=target, data=data)
    robust = np.array([[is_robust(o, -1, epsilon) for o in e.outcomes] for e in found.entries]).all(axis=0)
    count = int(robust.sum())
    p = float(stats.binom.cdf(count, n, floor))
    return {
        "holds": p > alpha,
        "robust_accuracy": count / n,
        "bound": 1.0 if count == n else float(stats.beta.ppf(1 - alpha, count + 1, n - count)),
        "p": p,
        "n": n,
        "floor": floor,
        "alpha": alpha,
        "epsilon": epsilon,
        "budget": config.budget,
        "attacks": [entry.part.name for entry in found.entries],
        "fallen": list(_fallen(found, path, epsilon)),
    }


def _fallen(found: Baseline, path: Path, epsilon: float) -> Any:
    """The first attack that breaks each example that is not robust."""
    for outcomes in zip(*(entry.outcomes for entry in found.entries), strict=True):
        for entry, outcome in zip(found.entries, outcomes, strict=True):
            if not is_robust(outcome, -1, epsilon):
                yield {
                    "index": outcome.index,
                    "id": outcome.id,
                    "attack": entry.part.name if outcome.right else None,
                    "distance": outcome.distances[-1] if outcome.right else None,
                    "file": adversarial_file(path / entry.part.folder, outcome.index),
                }
                break
