"""BlackVIP with one option changed, and behind black boxes that answer less: mnist net to UCI digits, 51,200 queries.

python -m benchmarks.blackvip_ablations [--rows defaults k=1 labels] [--seeds 0 1 2]
python -m benchmarks.blackvip_ablations --table        # Markdown of what is stored, no run
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor

from bbox.defenses.blackvip import BlackVIP
from bbox.oracle import Oracle
from bbox.targets.base import Target
from benchmarks.blackvip import cell
from benchmarks.blackvip_cases import BUDGET, Store, load_case, rounded

Spoken = Literal["labels", "probabilities", "2 decimals", "top-1"]
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sides=1": {"sides": 1},
    "sides=2": {"sides": 2},
    "k=1": {"k": 1},
    "k=4": {"k": 4},
    "k=16": {"k": 16},
    "optimizer=spsa": {"optimizer": "spsa"},
    "optimizer=spsa, a x 10": {"optimizer": "spsa", "a": 10 * BlackVIP.a},
    "optimizer=adam": {"optimizer": "adam"},
    "optimizer=cma-es": {"optimizer": "cma-es"},
    "trigger_scale=1": {"trigger_scale": 1.0},
    "init=random": {"init": "random"},
    "norm=batch": {"norm": "batch"},
    "norm=none": {"norm": "none"},
    "clip=false": {"clip": False},
    "averaging=0": {"averaging": 0.0},
    "law=segmented": {"law": "segmented"},
    "preset=cvpr23": dict(BlackVIP.presets["cvpr23"]),
}
# name: (what is answered, options); c is probed unless it is given.
ANSWERS: dict[str, tuple[Spoken, dict[str, Any]]] = {
    "answers: probabilities": ("probabilities", {}),
    "answers: 2 decimals": ("2 decimals", {}),
    "answers: top-1 probability": ("top-1", {}),
    "answers: labels": ("labels", {}),
    "answers: labels, c=0.01": ("labels", {"c": 0.01}),
}


class Terse(Target):
    """A classifier that says less than its logits."""

    def __init__(self, inner: Target, said: Spoken) -> None:
        self.inner, self.said = inner, said
        self.name = f"{said} of {inner.name}"
        self.access = "labels" if said == "labels" else "scores"
        self.input_shape, self.num_classes, self.device = inner.input_shape, inner.num_classes, inner.device

    def __call__(self, rows: Tensor) -> Tensor:
        shares = self.inner(rows).softmax(1)
        if self.said == "labels":
            return shares.argmax(1)
        if self.said == "2 decimals":
            return (100 * shares).round() / 100
        if self.said == "top-1":
            best = shares.max(1, keepdim=True)
            return torch.zeros_like(shares).scatter(1, best.indices, best.values)
        return shares

    def fingerprint(self) -> str:
        return f"{self.said} {self.inner.fingerprint()}"


def run_row(case: str, name: str, seed: int, budget: int) -> dict[str, Any]:
    """Fit one row and measure it on the test images."""
    loaded = load_case(case, seed)
    said, options = ANSWERS.get(name, (None, OPTIONS.get(name, {})))
    target = loaded.target if said is None else Terse(loaded.target, said)
    training, (tests, truth) = loaded.pairs()
    oracle, defense = Oracle(target, max_batch=256), BlackVIP(**options)
    began = time.process_time()
    fit = defense.fit(oracle, *training, budget=budget, seed=seed)
    seconds = time.process_time() - began
    before, after = (
        float((Oracle(box).ask(tests, "evaluate").labels == truth).float().mean())
        for box in (target, defense.wrap(target))
    )
    fit["running_loss"] = fit["running_loss"][:: max(1, len(fit["running_loss"]) // 20)]
    return {
        "case": case,
        "row": name,
        "seed": seed,
        "budget": budget,
        "zero_shot": before,
        "accuracy": after,
        "queries": sum(ledger.queries for ledger in oracle.books.values()),
        "fit_cpu_seconds": seconds,
        "fit": fit,
        "defense": defense.describe(),
    }


def table(store: Store) -> str:
    lines = [
        "| | accuracy | gain | by seed | steps | images a step | c | identity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [*OPTIONS, *ANSWERS]:
        runs = sorted(store.find(row=name), key=lambda run: int(run["seed"]))
        if not runs:
            continue
        gain = 100 * mean(run["accuracy"] - run["zero_shot"] for run in runs)
        seeds = " / ".join(f"{100 * run['accuracy']:.1f}" for run in runs)
        widths = " / ".join(dict.fromkeys(f"{run['fit']['c']:g}" for run in runs))
        lines.append(
            f"| {name} | {cell([run['accuracy'] for run in runs])} | {gain:+.1f} | {seeds} | {runs[0]['fit']['steps']} "
            f"| {runs[0]['fit']['images_a_step']} | {widths} | {sum(run['fit']['identity'] for run in runs)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="mnist-uci")
    parser.add_argument("--rows", nargs="+", choices=[*OPTIONS, *ANSWERS], default=[*OPTIONS, *ANSWERS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="another file than results/blackvip-ablations.json")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = Store("blackvip-ablations", "case", "row", "seed", path=options.out)
    same = {name for name, given in OPTIONS.items() if given and BlackVIP(**given) == BlackVIP()}
    for name in [] if options.table else options.rows:
        now = BlackVIP(**OPTIONS.get(name, {}) or ANSWERS.get(name, ("", {}))[1]).describe()
        for seed in options.seeds:
            key = {"case": options.case, "row": name, "seed": seed, "budget": options.budget, "defense": now}
            if name not in same and not store.find(**key):
                record = run_row(options.case, name, seed, options.budget)
                store.add(rounded(record))
                print(name, seed, f"{100 * record['accuracy']:.1f}", f"{record['fit_cpu_seconds']:.0f} s", flush=True)
    print(table(store))


if __name__ == "__main__":
    main()
