"""The figures against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bbox.results import Example
from bbox.results.metrics import default_checkpoints, default_epsilons, interval, summarise


def _example(index: int, trace: tuple = (), **changes: object) -> Example:
    values: dict = {
        "index": index,
        "id": str(index),
        "label": 3,
        "predicted": 3,
        "goal_label": 3,
        "stop_reason": "budget",
        "queries": 100,
        "success": bool(trace),
        "distance": trace[-1][1] if trace else None,
        "trace": trace,
        **changes,
    }
    return Example(**values)


EXAMPLES = [
    _example(0, ((5, 4.0), (50, 1.0)), png_success=True, png_distance=1.1),
    _example(1, ((10, 2.0), (90, 0.5)), png_success=False, png_distance=0.6),
    _example(2, ((60, 3.0),), png_success=True, png_distance=3.1),
    _example(3, stop_reason="start_not_found", queries=20),
    _example(4, predicted=1, stop_reason="already_wrong", queries=0),
    _example(5, predicted=-1, stop_reason="target_error", queries=0),
    _example(6, ((1, 0.1),), success=False, stop_reason="success", queries=1),  # did not verify
]


def test_counts_and_denominators() -> None:
    found = summarise(EXAMPLES, checkpoints=(100,), epsilons=(1.0,))
    assert (found["examples"], found["attacked"], found["already_wrong"], found["succeeded"]) == (7, 5, 1, 3)
    assert found["clean_accuracy"] == 5 / 7
    assert found["attack_queries"] == 321
    assert found["stop_reasons"] == {
        "already_wrong": 1,
        "budget": 3,
        "start_not_found": 1,
        "success": 1,
        "target_error": 1,
    }
    assert found["png"] == {"written": 3, "succeeded": 2, "median_distance": pytest.approx(2.1)}


@pytest.mark.parametrize(
    ("queries", "distances", "median", "mean", "asr", "robust"),
    [
        # of five attacked (one never found, one not verified): infinities sort last
        (4, [], None, None, (0, 0, 0), (5, 5, 5)),
        (5, [4.0], None, 4.0, (0, 0, 1), (5, 5, 4)),
        (55, [1.0, 2.0], None, 1.5, (1, 2, 2), (4, 3, 3)),
        (60, [1.0, 2.0, 3.0], 3.0, 2.0, (1, 2, 3), (4, 3, 2)),
        (100, [0.5, 1.0, 3.0], 3.0, 1.5, (2, 2, 3), (3, 3, 2)),
    ],
)
def test_a_checkpoint(
    queries: int, distances: list, median: float | None, mean: float | None, asr: tuple, robust: tuple
) -> None:
    (row,) = summarise(EXAMPLES, checkpoints=(queries,), epsilons=(1.0, 2.0, 4.0))["checkpoints"]
    assert row["queries"] == queries
    assert row["found"] == len(distances)
    assert row["median_distance"] == median
    assert row["mean_distance"] == mean
    assert [cell["value"] for cell in row["asr"]] == [hits / 5 for hits in asr]
    assert [cell["value"] for cell in row["robust_accuracy"]] == [kept / 7 for kept in robust]
    assert row["median_distance_interval"] == (None, None), "with an infinite distance there is no interval"


def test_nothing_attacked_is_no_division_by_zero() -> None:
    for examples in ([], EXAMPLES[4:6]):
        found = summarise(examples, checkpoints=(10,), epsilons=(1.0,))
        row = found["checkpoints"][0]
        assert row["median_distance"] is row["mean_distance"] is row["asr"][0]["value"] is None
        assert row["robust_accuracy"][0]["value"] == (0.0 if examples else None)


def test_intervals_repeat_and_hold_the_statistic() -> None:
    values = np.random.default_rng(1).normal(5, 1, 200)
    low, high = interval(values, np.mean)
    assert (low, high) == interval(values, np.mean)
    half = 1.96 * values.std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    low, high = interval(values, np.median)
    assert low < np.median(values) < high


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None)),
        ([1.0], (None, None)),
        ([1.0, math.inf], (None, None)),
        ([2.0, 2.0, 2.0], (2.0, 2.0)),
        ([1.0, 3.0], (1.0, 3.0)),
    ],
)
def test_intervals_of_few_values(values: list, expected: tuple) -> None:
    assert interval(np.array(values), np.median) == expected


def test_defaults() -> None:
    assert default_checkpoints(1) == (1,)
    assert default_checkpoints(100) == (100,)
    assert default_checkpoints(1000) == (100, 250, 500, 1000)
    assert default_epsilons((1, 28, 28)) != default_epsilons((3, 32, 32)) != default_epsilons((3, 224, 224))


def test_an_example_survives_json() -> None:
    import json

    for example in EXAMPLES:
        assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example
