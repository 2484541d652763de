"""BlackVIP beside simpler means: real networks on real digits they were not trained on, at 51,200 queries.

    python -m benchmarks.blackvip                          # all cases, seeds 0 1 2; what is stored is not run again
    python -m benchmarks.blackvip --cases mnist-uci loc-1 --seeds 0
    python -m benchmarks.blackvip --table                  # Markdown of what is stored, no run

16 labelled images a class, drawn by the seed; 1,000 others to measure on, which nothing was trained or chosen on. VP
and BAR have the budget of BlackVIP each. "White box" rows follow the network's own gradient: ceilings, not methods.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from bbox.defenses.blackvip import BlackVIP
from bbox.oracle import Oracle
from benchmarks.blackvip_cases import BUDGET, CASES, PAPER, Store, load_case, rounded

METHODS = (
    "zero-shot",
    "BlackVIP",
    "VP with SPSA-GC",
    "BAR",
    "output adapter",
    "local classifier",
    "coordinator, white box",
    "VP, white box",
)
BASELINES = "output,local,vp,bar,white-box,vp-white-box"


def run_case(case: str, seed: int, *, budget: int = BUDGET, baselines: str = BASELINES) -> dict[str, Any]:
    """Fit, compare and account for one case and seed."""
    loaded = load_case(case, seed)
    training, test = loaded.pairs()
    defense = BlackVIP(baselines=baselines)
    oracle = Oracle(loaded.target, max_batch=256)
    began, cpu = time.perf_counter(), time.process_time()
    fit = defense.fit(oracle, *training, budget=budget, seed=seed)
    seconds = time.perf_counter() - began, time.process_time() - cpu
    judge = Oracle(loaded.target, max_batch=256)
    found = defense.compare(judge, training, test, budget=budget, seed=seed)
    fit["running_loss"] = fit["running_loss"][:: max(1, len(fit["running_loss"]) // 20)]
    return {
        "case": case,
        "seed": seed,
        "budget": budget,
        "images": found["images"],
        "accuracy": {row["name"]: row["accuracy"] for row in found["rows"]},
        "queries": {row["name"]: row["queries"] for row in found["rows"]},
        "p_value": {row["name"]: row["p_value"] for row in found["rows"]},
        "improved": found["improved"],
        "recommended": found["recommended"],
        "advice": found["advice"],
        "fit": fit,
        "ledger": {purpose: ledger.queries for purpose, ledger in oracle.books.items()},
        "fit_wall_seconds": seconds[0],
        "fit_cpu_seconds": seconds[1],
        "defense": defense.describe(),
    }


def cell(values: list[float]) -> str:
    """Accuracies of some seeds in percent: mean, and deviation where there are more."""
    if not values:
        return "-"
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def table(store: Store) -> str:
    """Markdown: a line a method, a column a case, the paper's column behind those that it has."""
    cases = [case for case in CASES if store.find(case=case)]
    heads, columns = [], []
    for case in cases:
        runs = store.find(case=case)
        heads.append(f"{case} ({len(runs)})")
        columns.append([cell([run["accuracy"][m] for run in runs if m in run["accuracy"]]) for m in METHODS])
        columns[-1] += [f"{sum(run['improved'] for run in runs)} of {len(runs)}"]
        columns[-1] += [", ".join(sorted({run["recommended"] for run in runs}))]
        columns[-1] += [f"{max(sum(run['ledger'].values()) for run in runs):,}"]
        if case in PAPER:
            heads.append("paper")
            columns.append([f"{PAPER[case][m]}" if m in PAPER[case] else "" for m in METHODS] + [""] * 3)
    names = [*METHODS, "reported as improved", "recommended", "queries of a fit, at most"]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(column[i] for column in columns)} |" for i, name in enumerate(names)]
    return "\n".join([*lines, "", *orders(store)])


def orders(store: Store) -> list[str]:
    """The methods by accuracy, best first, where the paper has an order as well."""
    lines = []
    for case, paper in PAPER.items():
        runs = store.find(case=case)
        if runs:
            here = {m: mean(run["accuracy"][m] for run in runs) for m in paper if m in runs[0]["accuracy"]}
            ours, theirs = (" > ".join(sorted(x, key=x.__getitem__, reverse=True)) for x in (here, paper))
            lines += [f"{case}, the paper's order: {theirs}", f"{case}, the order here: {ours}"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--baselines", default=BASELINES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="another file than results/blackvip.json")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = Store("blackvip", "case", "seed", path=options.out)
    now = BlackVIP(baselines=options.baselines).describe()  # what is stored of other defaults is run again
    for seed in [] if options.table else options.seeds:
        for case in options.cases:
            if not store.find(case=case, seed=seed, budget=options.budget, defense=now):
                record = run_case(case, seed, budget=options.budget, baselines=options.baselines)
                store.add(rounded(record))
                shown = {name: f"{100 * value:.1f}" for name, value in record["accuracy"].items()}
                print(case, seed, shown, record["advice"], f"{math.ceil(record['fit_wall_seconds'])} s", flush=True)
    print(table(store))


if __name__ == "__main__":
    main()
