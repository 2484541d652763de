"""Certification: samples and verdicts of the three methods, and wall time over pure model time.

    python -m benchmarks.certify [--images 64] [--sigma 0.5] [--n 10000] [--threads 1]

The embedded digits model under Gaussian noise. ``fixed`` runs once, all n samples an image; the others run for one
radius at a time, as a table of certified accuracy asks. Their noise is the same as that of ``fixed`` (the same seed),
so ``agree`` is over the same samples. Images are few; the columns ``sim`` follow the same stopping rule for 100 repeats
of each image (the same draws for each method), with the rates that ``fixed`` measured as probabilities. Pure model time
is that of the bare model on as many rows at bbox's batch size, measured before and after in the same run.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbox.defenses.bounds import METHODS, needed_probability
from bbox.defenses.certification import Certificate, certify
from bbox.defenses.normal import normal
from bbox.defenses.stopping import StoppingRule
from bbox.oracle import Oracle
from bbox.zo import fold, root_keys
from bbox.zoo.digits import load_digits_data, load_digits_model
from benchmarks.results_file import write
from benchmarks.timing import TimedTarget, bare_seconds

_BARE = 5_000  # rows of the bare model, before and after each run


def simulate(rule: StoppingRule, p: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lower bounds and samples of images whose probabilities are known; the same draws for every rule."""
    rng = np.random.default_rng(1)
    every = [StoppingRule(method, rule.n, rule.alpha, rule.sigma, None).stops for method in METHODS]
    grid = np.unique(np.concatenate(every))
    drawn = rng.binomial(np.diff(grid, prepend=0)[:, None], p[None]).cumsum(0)
    hits, at, lower = np.zeros(len(p), np.int64), np.zeros(len(p), np.int64), np.zeros(len(p))
    while (which := rule.undecided(lower, hits, at).nonzero()[0]).size:
        stop = rule.next_stop(int(at[which[0]]))
        hits[which] = drawn[np.searchsorted(grid, stop), which]
        at[which] = stop
        lower[which] = np.maximum(lower[which], rule.bound(hits[which], at[which]))
    return lower, at


def row(found: Certificate, fixed: Certificate, radius: float, times: dict[str, float]) -> dict[str, Any]:
    settings = found.settings
    wanted = float(needed_probability(radius, settings.sigma))
    p = np.repeat(fixed.hits / fixed.samples, 100)
    exact, _ = simulate(StoppingRule("fixed", settings.n, settings.alpha, settings.sigma, (radius,)), p)
    lower, samples = simulate(StoppingRule(settings.method, settings.n, settings.alpha, settings.sigma, (radius,)), p)
    mean = float(found.samples.mean())
    return {
        "method": settings.method,
        "r / sigma": radius / settings.sigma,
        "certified accuracy": found.certified_accuracy((radius,))[0].value,
        "agree": float((found.certified((radius,)) == fixed.certified((radius,))).mean()),
        "samples": mean,
        "fewer, times": settings.n / mean,
        "sim agree": float(((lower >= wanted) == (exact >= wanted)).mean()),
        "sim fewer, times": settings.n / float(samples.mean()),
        **times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_digits_data().select(limit=options.images)
    target = TimedTarget(load_digits_model(), torch.device("cpu"))

    def run(method: Any, radii: tuple[float, ...]) -> tuple[Certificate, dict[str, float]]:
        oracle = Oracle(target, max_batch=options.max_batch)
        before = bare_seconds(target, data.inputs, rows=_BARE, batch=options.max_batch) / _BARE
        rows, inside, began = target.rows, target.seconds, time.perf_counter()
        found = certify(oracle, data.inputs, data.labels, sigma=options.sigma, n=options.n, method=method, radii=radii)
        wall = time.perf_counter() - began
        after = bare_seconds(target, data.inputs, rows=_BARE, batch=options.max_batch) / _BARE
        assert target.rows - rows == found.queries == oracle.books["certify"].queries
        pure = (before + after) / 2 * found.queries
        return found, {
            "queries": found.queries,
            "wall s": wall,
            "wall / pure model": wall / pure,
            "wall / inside model": wall / (target.seconds - inside),
        }

    radii = tuple(step * options.sigma for step in (0.5, 1.0, 2.0))
    fixed, times = run("fixed", radii)
    rows = [row(fixed, fixed, radius, times) for radius in radii]
    for method in METHODS[1:]:
        for radius in radii:
            found, times = run(method, (radius,))
            rows.append(row(found, fixed, radius, times))
    keys = fold(root_keys(0, torch.arange(options.max_batch)), 0)
    began = time.perf_counter()
    for _ in range(100):
        normal(keys, data.inputs[0].numel())
    share = (time.perf_counter() - began) / 100 / options.max_batch
    print(f"making the noise of a row: {1e6 * share:.2f} us; ACR {fixed.acr:.3f}")
    write("certify", {**vars(options), "noise us a row": 1e6 * share, "acr": fixed.acr}, rows)


if __name__ == "__main__":
    main()
