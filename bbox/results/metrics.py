"""The figures of a run, computed from its examples alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bbox.domain import ROUNDING
from bbox.results.records import Example

__all__ = ["default_checkpoints", "default_epsilons", "interval", "summarise", "within"]

_RESAMPLES = 2000


def default_checkpoints(budget: int, norm: str = "l2") -> tuple[int, ...]:
    """The query counts of the field's tables that lie below the budget, and the budget."""
    usual: tuple[int, ...] = (100, 250, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
    if norm == "names":
        usual = (50, 100, 200, 400, 800, *usual[4:])
    return (*[q for q in usual if q < budget], budget)


def default_epsilons(shape: Sequence[int], norm: str = "l2") -> tuple[float, ...]:
    """Thresholds in use for images of this shape: MNIST-like, CIFAR-like, larger (l2); one channel, or else (linf).

    For programs, numbers of renamed identifiers; for motions, metres.
    """
    if norm == "names":
        return (1.0, 2.0, 4.0)
    if len(shape) == 4:  # motions: metres
        return (0.01, 0.03, 0.05)
    if norm == "linf":
        return (0.1, 0.2, 0.3) if shape[0] == 1 else (2 / 255, 4 / 255, 8 / 255)
    if len(shape) == 3 and max(shape[1:]) > 64:
        return (1.0, 3.0, 5.0)
    return (1.0, 1.5, 2.0) if shape[0] == 1 else (0.5, 1.0, 2.0)


def interval(values: NDArray[np.float64], statistic: Any) -> tuple[float | None, float | None]:
    """95% percentile bootstrap interval over examples, with fixed seed; (None, None) below two finite values."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def within(distance: NDArray[np.float64], epsilon: float) -> NDArray[np.bool_]:
    """Which distances are at most ``epsilon``, up to the rounding of float32 pixels (``bbox.domain.ROUNDING``)."""
    found: NDArray[np.bool_] = distance <= epsilon + ROUNDING
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def summarise(examples: Sequence[Example], *, checkpoints: Sequence[int], epsilons: Sequence[float]) -> dict[str, Any]:
    """Counts, and at each checkpoint the distances reached, ASR and robust accuracy.

    Examples that were wrong from the start are no successes and not in the ASR's denominator; in robust accuracy they
    count as not robust. The median runs over all attacked examples (one without an adversarial example has infinite
    distance; a median that is infinite is ``null``), the mean over those that were broken.
    """
    attacked = [e for e in examples if e.attacked]
    total = len(examples)
    rows: list[dict[str, Any]] = []
    for q in checkpoints:
        distance = np.array([e.distance_at(q) for e in attacked])
        found = distance[np.isfinite(distance)]
        rows.append(
            {
                "queries": q,
                "found": len(found),
                "median_distance": _number(float(np.median(distance))) if attacked else None,
                "median_distance_interval": interval(distance, np.median),
                "mean_distance": _number(float(found.mean())) if len(found) else None,
                "mean_distance_interval": interval(found, np.mean),
                "asr": [
                    {"epsilon": eps, "value": float(within(distance, eps).mean()) if attacked else None}
                    for eps in epsilons
                ],
                "robust_accuracy": [
                    {"epsilon": eps, "value": float((~within(distance, eps)).sum()) / total if total else None}
                    for eps in epsilons
                ],
            }
        )
    reasons = sorted({e.stop_reason for e in examples})
    pictures = [e for e in attacked if e.png_success is not None]
    png = np.array([e.png_distance for e in pictures if e.png_success and e.png_distance is not None])
    return {
        "examples": total,
        "attacked": len(attacked),
        "already_wrong": sum(e.stop_reason == "already_wrong" for e in examples),
        "clean_accuracy": len(attacked) / total if total else None,
        "succeeded": sum(e.success for e in attacked),
        "stop_reasons": {reason: sum(e.stop_reason == reason for e in examples) for reason in reasons},
        "attack_queries": sum(e.queries for e in examples),
        "checkpoints": rows,
        "png": {
            "written": len(pictures),
            "succeeded": sum(bool(e.png_success) for e in pictures),
            "median_distance": _number(float(np.median(png))) if len(png) else None,
        },
    }
