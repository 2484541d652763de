"""How often ``bbox check`` alarms: for an unchanged model, and for one that is weaker by a known amount.

    python -m benchmarks.check_power

Every outcome is of a real attack (``cgba``, 60 queries) on all 500 embedded digits, with each of several seeds, on the
embedded network and on versions of it whose distances are all shorter by a known factor (``tests/results/weaker.py``).
A repeat holds two of these runs against each other on n digits drawn at random. ``seeds`` says whether check and
baseline had the same seed; an unchanged model with the same seed gives the same outcomes and no alarm. Repeats share
runs, so the rates are estimates without bias whose error is somewhat larger than a binomial's.

``worst baseline``: of the baselines, the one with the most alarms of an unchanged model, over checks with other seeds
on the same n digits. A baseline that was lucky is a high bar for every check with another seed; the promised rate is
one over baselines and checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import bbox
from bbox.results.baseline import Baseline, Entry, Gates, Outcome
from bbox.results.records import Config
from bbox.results.suite import Part
from bbox.results.verdicts import compare
from benchmarks.results_file import write
from tests.results.weaker import model

SEEDS, WEAKER_SEEDS, REPEATS = 16, 8, 200
FACTORS = (1.05, 1.1, 1.25)
CONFIG = Config(budget=60, epsilons=(1.5,), checkpoints=(60,))
PART = Part("cgba", "cgba", CONFIG)


def outcomes(factor: float, seed: int) -> tuple[Outcome, ...]:
    digits = bbox.data.load("zoo:digits")
    found = bbox.attack(model(str(factor)), digits, budget=CONFIG.budget, seed=seed, max_batch=500)
    return tuple(
        Outcome(e.index, e.id, e.attacked, (e.distance_at(CONFIG.budget),), e.success, e.queries)
        for e in found.examples
    )


def alarm(before: tuple[Outcome, ...], now: tuple[Outcome, ...], rows: Any) -> tuple[bool, float]:
    """Whether any figure fell, and the smallest fall of robust accuracy that it would have shown."""
    parts = [Baseline((Entry(PART, tuple(run[i] for i in rows)),), Gates()) for run in (before, now)]
    figures = compare(parts[0], parts[1], Gates())
    return any(figure.fell for figure in figures), figures[1].detectable or 1.0


def main() -> None:
    torch.set_num_threads(1)
    unchanged = [outcomes(1.0, seed) for seed in range(SEEDS)]
    weaker = {factor: [outcomes(factor, seed) for seed in range(WEAKER_SEEDS)] for factor in FACTORS}
    write("check_power", {"seeds": SEEDS, "repeats": REPEATS, "budget": CONFIG.budget}, list(rows(unchanged, weaker)))


def rows(unchanged: Any, weaker: Any) -> Iterator[dict[str, Any]]:
    robust = {factor: float(np.mean([o.distances[0] > 1.5 and o.right for run in runs for o in run]))
              for factor, runs in {1.0: unchanged, **weaker}.items()}  # fmt: skip
    for n in (32, 64, 128):
        for factor, runs in {1.0: unchanged, **weaker}.items():
            for seeds in ("same", "other"):
                draw, alarms, shown = np.random.default_rng(n), 0, []
                for _ in range(REPEATS):
                    now = int(draw.integers(len(runs)))
                    others = [seed for seed in range(SEEDS) if seed != now]
                    before = now if seeds == "same" else int(draw.choice(others))
                    fell, smallest = alarm(unchanged[before], runs[now], draw.choice(500, n, replace=False))
                    alarms += fell
                    shown.append(smallest)
                row = {
                    "n": n,
                    "distances": f"x{1 / factor:.3f}",
                    "robust at 1.5": f"{robust[1.0]:.1%} -> {robust[factor]:.1%}",
                    "seeds": seeds,
                    "alarms": f"{alarms / REPEATS:.1%}",
                    "shows a fall of": f"{np.median(shown):.1%}",
                }
                if factor == 1.0 and seeds == "other":
                    row["worst baseline"] = f"{worst(unchanged, n):.0%}"
                yield row


def worst(unchanged: Any, n: int) -> float:
    rows_ = range(n)
    rates = [
        np.mean([alarm(before, now, rows_)[0] for j, now in enumerate(unchanged) if j != i])
        for i, before in enumerate(unchanged)
    ]
    return float(max(rates))


if __name__ == "__main__":
    main()
