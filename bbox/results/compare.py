"""Attack runs on the same examples side by side, and each against the first, paired by example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbox.results.compared import Compared, load_runs, reached
from bbox.results.costs import SENT, cost, sums, total_ledger
from bbox.results.metrics import summarise, within
from bbox.results.paired import Flags, Floats, compare_distances, compare_rates, holm, ratio_interval, sign_p
from bbox.results.records import Example

__all__ = ["COMPARE_VERSION", "compare", "comparison"]

COMPARE_VERSION = 1


def compare(runs: Sequence[str | Path]) -> dict[str, Any]:
    """Compare runs of ``bbox attack`` on the same data, finished or not; the first is the reference.

    Examples are paired by index and id; those that not all runs have finished are left out. Robust accuracy counts all
    examples, a ratio of distances those that both runs attacked.

    Args:
        runs: 2 to 8 run folders.

    Returns: what ``bbox compare --json`` prints (``compare.schema.json``). In ``against``, ``p`` is of an exact
        two-sided test of no difference and ``p_adjusted`` after Holm, over all ``tests`` of the comparison; intervals
        are of 95%. A median or ratio that is infinite is ``None``, and so is the end of an interval that has none.

    Raises:
        UsageError: too few runs, other folders than an attack's, another norm, kind of data or data.
        InputError: a folder that cannot be read, or no example that all runs have finished.
    """
    return comparison(load_runs([Path(run) for run in runs]))


def comparison(runs: Sequence[Compared]) -> dict[str, Any]:
    """The figures of loaded runs; see ``compare``."""
    epsilons = sorted({epsilon for run in runs for epsilon in run.epsilons})
    least = min(run.config.budget for run in runs)
    asked = {q for run in runs for q in run.checkpoints}
    checkpoints = sorted({q for q in asked if q < least} | {least})
    own = any(run.config.budget != least for run in runs)
    reference, tests = runs[0], list[dict[str, Any]]()
    told = [_describe(run, checkpoints, epsilons, own=own) for run in runs]
    for run, content in zip(runs[1:], told[1:], strict=True):
        content["against"] = _against(reference, run, checkpoints, epsilons, tests)
    for test, adjusted in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_adjusted"] = adjusted
    n, planned = len(reference.examples), int(reference.run["data"]["examples"])
    return {
        "schema_version": COMPARE_VERSION,
        "kind": reference.run["data"].get("kind", "images"),
        "data": reference.run["data"]["name"],
        "fingerprint": reference.run["data"]["fingerprint"],
        "norm": reference.config.norm,
        "examples": n,
        "left_out": planned - n,
        "epsilons": epsilons,
        "checkpoints": checkpoints,
        "differences": _differences(runs),
        "tests": len(tests),
        "runs": told,
        "each": [_each(examples) for examples in zip(*(run.examples for run in runs), strict=True)],
    }


def _describe(run: Compared, checkpoints: Sequence[int], epsilons: Sequence[float], *, own: bool) -> dict[str, Any]:
    """The figures of one run."""
    counts = summarise(run.examples, checkpoints=(), epsilons=())
    return {
        "label": run.label,
        "run": str(run.path),
        "attack": run.config.attack,
        "target": run.run["target"]["name"],
        "budget": run.config.budget,
        "seed": run.config.seed,
        "complete": run.finished == int(run.run["data"]["examples"]),
        "finished": run.finished,
        "minimises": not run.fixed,
        **{name: counts[name] for name in ("attacked", "already_wrong", "clean_accuracy", "succeeded", "stop_reasons")},
        "at": [_row(run, q, epsilons) for q in checkpoints],
        "at_own_budget": _row(run, run.config.budget, epsilons) if own else None,
        "queries_to_success": _queries_to(run, math.inf),
        "queries_to_epsilon": [{"epsilon": e, "median": _queries_to(run, e)} for e in epsilons],
        "attack_queries": counts["attack_queries"],
        "costs": _costs(run),
        "against": None,
    }


def _row(run: Compared, queries: int, epsilons: Sequence[float]) -> dict[str, Any]:
    attacked, distance = run.attacked, reached(run.examples, [queries])[:, 0]
    mine = distance[attacked]
    return {
        "queries": queries,
        "found": int(np.isfinite(mine).sum()),
        "median_distance": _finite(float(np.median(mine))) if len(mine) else None,
        "median_distance_interval": list(ratio_interval(mine)),
        "asr": [{"epsilon": e, "value": float(within(mine, e).mean()) if len(mine) else None} for e in epsilons],
        "robust_accuracy": [{"epsilon": e, "value": float((attacked & ~within(distance, e)).mean())} for e in epsilons],
    }


def _queries_to(run: Compared, epsilon: float) -> float | None:
    """Median over the attacked examples of the queries until one at most this far was found; inf, and so ``None``,
    where half of them have none."""
    first = [
        min((n for n, d in e.trace if within(np.array(d), epsilon)), default=math.inf) if e.success else math.inf
        for e in run.examples
        if e.attacked
    ]
    return _finite(float(np.median(first))) if first else None


def _costs(run: Compared) -> dict[str, Any]:
    """What the whole run has cost, left-out examples and all sessions included."""
    ledger = total_ledger(run.sessions)
    counts = sums(ledger)
    price = run.config.price_per_1k
    return {
        "queries": {purpose: book["queries"] for purpose, book in ledger.items()},
        **{name: counts[name] for name in SENT},
        "price_per_1k": price,
        "cost": cost(counts, price),
        "seconds": sum(session.get("seconds", 0.0) for session in run.sessions),
    }


def _against(
    first: Compared,
    run: Compared,
    checkpoints: Sequence[int],
    epsilons: Sequence[float],
    tests: list[dict[str, Any]],
) -> dict[str, Any]:
    """One run against the reference; every test is put on the list as well."""

    def noted(test: dict[str, Any]) -> dict[str, Any]:
        tests.append(test)
        return test

    def row(queries: tuple[int, int]) -> dict[str, Any]:
        at = [reached(one.examples, [q])[:, 0] for one, q in zip((first, run), queries, strict=True)]
        right = first.attacked, run.attacked
        robust = [
            noted({"epsilon": e, **_rate(*(r & ~within(d, e) for r, d in zip(right, at, strict=True)))})
            for e in epsilons
        ]
        both = right[0] & right[1]
        measured = None if first.fixed or run.fixed else noted(_ratio(at[0][both], at[1][both]))
        return {"queries": queries[1], "reference_queries": queries[0], "robust_accuracy": robust, "distance": measured}

    budgets = first.config.budget, run.config.budget
    return {
        "reference": first.label,
        "clean_accuracy": noted(_rate(first.attacked, run.attacked)),
        "at": [row((q, q)) for q in checkpoints],
        "at_own_budget": None if budgets[0] == budgets[1] == checkpoints[-1] else row(budgets),
    }


def _rate(before: Flags, now: Flags) -> dict[str, Any]:
    """A proportion here minus the reference's. lost: examples for which it holds there and not here; gained: here."""
    seen = compare_rates(before, now)
    return {
        "n": seen.n,
        "lost": seen.lost,
        "gained": seen.gained,
        "difference": seen.effect,
        "interval": list(seen.interval),
        "p": sign_p(seen.lost, seen.gained, two_sided=True),
    }


def _ratio(before: Floats, now: Floats) -> dict[str, Any]:
    """Distances here over the reference's: the median ratio, and on how many examples this run came closer."""
    seen = compare_distances(before, now)
    return {
        "n": seen.n,
        "closer": seen.lost,
        "ties": seen.n - seen.lost - seen.gained,
        "farther": seen.gained,
        "ratio": seen.effect,
        "interval": list(seen.interval),
        "p": sign_p(seen.lost, seen.gained, two_sided=True),
    }


def _differences(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """What was not asked alike, by name; ``None`` where a run has no such option, or its default."""
    flat = [_flat(run) for run in runs]
    names = dict.fromkeys(name for values in flat for name in values)
    rows = [{"name": name, "values": [values.get(name) for values in flat]} for name in names]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _flat(run: Compared) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    for name, value in run.config.to_json().items():
        plain = name.replace("_", " ")
        if isinstance(value, dict):  # attack options, target options
            asked |= {f"{plain[:-1]} {key}": part for key, part in value.items()}
        else:
            asked[plain] = list(value) if isinstance(value, tuple) else value
    asked["epsilons"] = list(run.epsilons)  # as they are where none were given
    asked["target fingerprint"] = run.run["target"]["fingerprint"][:16]
    asked |= {f"version of {name}": version for name, version in run.run.get("versions", {}).items()}
    return asked | {"hardware device": run.run.get("hardware", {}).get("device")}


def _each(examples: Sequence[Example]) -> dict[str, Any]:
    """One example in all runs."""
    return {
        "index": examples[0].index,
        "id": examples[0].id,
        "runs": [
            {
                "attacked": e.attacked,
                "success": e.success,
                "distance": e.distance if e.success else None,
                "queries": e.queries,
                "predicted": e.predicted,
                "adversarial_label": e.adversarial_label,
                "stop_reason": e.stop_reason,
            }
            for e in examples
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
