"""Are all successes of `alert` valid? At least 500 attacked programs a language, on a victim that costs nothing.

``python -m benchmarks.alert_validity python=PATH c=PATH ...``: each PATH is what ``--data code:PATH`` reads. The victim
is a linear model of the letters of a program with random weights: it is easy to fool, so that many renames are tried,
and its answers mean nothing. A success is raw when any row fooled it, and valid when the saved file passes the checks
anew (positions; for Python that compiles, bytecode too). With ``--functions``, functions may be renamed as well.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
import torch

import bbox
from bbox.attacks.alert import Alert
from bbox.code.equivalence import compare
from bbox.code.program import Program, Programs
from bbox.targets.code import wrap
from benchmarks.results_file import write

BUDGET = 40
_LONGEST = 20_000  # characters: a whole library in one file says no more, and takes a while


def victim(seed: int = 0) -> Any:
    weights = 60 * np.random.default_rng(seed).normal(size=(26, 4))

    def scores(codes: list[str]) -> Any:
        rows = np.zeros((len(codes), 26))
        for row, code in enumerate(codes):
            letters = np.frombuffer(code.lower().encode("utf-8", "replace"), np.uint8).astype(np.int64) - 97
            rows[row] = np.bincount(letters[(letters >= 0) & (letters < 26)], minlength=26)
        logits = rows / np.maximum(rows.sum(1, keepdims=True), 1) @ weights
        exact = np.exp(logits - logits.max(1, keepdims=True))
        return exact / exact.sum(1, keepdims=True)

    return wrap(scores, name="letters")


def measure(language: str, path: str, programs: int, functions: bool) -> dict[str, Any]:
    data = bbox.data.load(f"code:{path},language={language},label=none")
    unique = {p.code: Program(p.code, language) for p in data.inputs if len(p.code) <= _LONGEST}
    chosen = Programs(unique.values())
    order = np.random.default_rng(0).permutation(len(chosen))[:programs]
    chosen = chosen[torch.from_numpy(order)]
    target, start = victim(), time.process_time()
    labels = target(chosen).argmax(1)
    result = bbox.attack(target, chosen, labels, Alert(functions=functions), budget=BUDGET, norm="names")
    raw = sum(example.first_adversarial is not None for example in result.examples)
    hits = [i for i in range(len(chosen)) if bool(result.success[i])]
    verdicts = [compare(chosen[i], result.adversarial[i], functions=functions) for i in hits]
    checks = Counter(check for verdict in verdicts for check in verdict.checks)
    return {
        "language": language,
        "functions": functions,
        "attacked": len(chosen),
        "no identifiers": sum(example.stop_reason == "no_identifiers" for example in result.examples),
        "queries": int(result.queries.sum()),
        "raw successes": raw,
        "valid successes": len(hits),
        "not equivalent": sum(not verdict.equivalent for verdict in verdicts),
        "by bytecode": checks["bytecode"],
        "cpu seconds": time.process_time() - start,
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", metavar="LANGUAGE=PATH")
    parser.add_argument("--programs", type=int, default=600)
    parser.add_argument("--functions", action="store_true")
    given = parser.parse_args()
    rows = []
    for source in given.sources:
        language, _, path = source.partition("=")
        rows.append(measure(language, path, given.programs, given.functions))
        print(rows[-1], flush=True)
    write("alert-validity" + ("-functions" if given.functions else ""), {"budget": BUDGET}, rows)


if __name__ == "__main__":
    main()
