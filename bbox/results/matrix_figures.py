"""The figures of a matrix, computed again from what is on disk."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbox.errors import InputError
from bbox.results.matrix_plan import Cell, Row
from bbox.results.metrics import within
from bbox.results.records import Example
from bbox.results.run import figures
from bbox.results.store import RunFolder

__all__ = ["SCHEMA_VERSION", "finished", "inflation", "matrix_figures", "queries_to_reach", "read_matrix"]

SCHEMA_VERSION = 1


def read_matrix(path: Path) -> dict[str, Any]:
    """The ``run.json`` of a matrix.

    Raises:
        InputError: the folder is not a matrix's, or a newer bbox has written it.
    """
    try:
        run: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if run["kind"] != "matrix":
            raise KeyError("kind")
        version = int(run["matrix_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the folder of a matrix of defenses: it has no run.json that says so"
        ) from error
    if version > SCHEMA_VERSION:
        raise InputError(f"{path} has schema {version}, this bbox reads up to {SCHEMA_VERSION}; update bbox")
    return run


def finished(path: Path) -> bool:
    """Whether a cell's run is complete."""
    try:
        return bool(json.loads((path / "results.json").read_text(encoding="utf-8"))["complete"])
    except (OSError, ValueError, KeyError):
        return False


def queries_to_reach(example: Example, epsilon: float) -> float:
    """The query at which this distance was first reached; inf where it never was, or where the result did not verify.

    For an attack by votes it is the last of the votes.
    """
    if not example.success or not example.trace:
        return math.inf
    queries, distance = np.array(example.trace, np.float64).T
    return float(min(queries[within(distance, epsilon)], default=math.inf))


def inflation(
    defended: Sequence[Example], undefended: Sequence[Example], epsilon: float, budget: int
) -> dict[str, Any]:
    """Query inflation: median queries to reach ``epsilon``, with the defense over without.

    Both medians run over the images that were attacked in both runs (right from the start with the defense and without
    it); an image that is never reached counts as infinite. Where the median with the defense alone is infinite, the
    quotient is more than the budget over the median without: ``value`` is ``None``, and ``at_least`` holds that bound.
    Where the attack fails without the defense too, there is nothing to compare: both are ``None``.
    """
    before = {e.index: queries_to_reach(e, epsilon) for e in undefended if e.attacked}
    after = {e.index: queries_to_reach(e, epsilon) for e in defended if e.attacked and e.index in before}
    without, with_ = _median([before[index] for index in after]), _median(list(after.values()))
    return {
        "images": len(after),
        "without": without,
        "with": with_,
        "value": with_ / without if without and with_ else None,  # a query number: never 0
        "at_least": budget / without if without and not with_ else None,
    }


def matrix_figures(path: Path) -> dict[str, Any]:
    """The content of ``matrix.json``: cells that are not finished have no figures yet."""
    run = read_matrix(path)
    rows = [Row.from_json(row) for row in run["rows"]]
    config = run["config"]
    ledger: Counter[str] = Counter()
    undefended: dict[str, list[Example]] = {}
    described = []
    for row in rows:
        cells = [_cell(path, row, cell, undefended, config["budget"], ledger) for cell in row.cells]
        costs = path / row.folder / "row.json"
        measured: dict[str, Any] = json.loads(costs.read_text(encoding="utf-8")) if costs.exists() else {}
        for purpose, entry in measured.pop("ledger", {}).items():
            ledger[purpose] += entry["queries"]
        described.append(
            {
                **{key: value for key, value in row.to_json().items() if key != "cells"},
                "layers": list(row.layers),
                "clean": measured.get("clean"),
                "latency_ratio": measured.get("latency_ratio"),
                "worst": _worst(cells, config["epsilons"]),
                "cells": cells,
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": all(c["complete"] or not c["applicable"] for row in described for c in row["cells"]),
        "target": config["target"],
        "data": config["data"],
        "images": run["data"]["examples"],
        "norm": config["norm"],
        "budget": config["budget"],
        "seed": config["seed"],
        "epsilons": config["epsilons"],
        "queries": dict(sorted(ledger.items())),
        "rows": described,
    }


def _cell(
    path: Path,
    row: Row,
    cell: Cell,
    undefended: dict[str, list[Example]],
    budget: int,
    ledger: Counter[str],
) -> dict[str, Any]:
    shown = {
        "attack": cell.attack,
        "plain": cell.plain,
        "adaptation": cell.adaptation or None,
        "applicable": not cell.reason,
        "reason": cell.reason or None,
        "complete": False,
        "run": None,
    }
    where = path / cell.path
    if cell.reason or not (where / "run.json").is_file():
        return shown
    with RunFolder.open(where) as folder:
        for purpose, count in _spent(folder).items():
            ledger[purpose] += count
        if not finished(where):
            return {**shown, "run": cell.path}
        results = figures(folder)
        examples = list(folder.examples().values())
        forgot = row.refuses and _forgot(folder)
    if row.folder == "none":
        undefended[cell.attack] = examples
    baseline = undefended.get(cell.plain, ())
    summary = results["summary"]
    last = summary["checkpoints"][-1]
    attacked = [e for e in examples if e.attacked]
    detected = [math.inf if e.first_refused is None else float(e.first_refused) for e in attacked]
    return {
        **shown,
        "complete": True,
        "run": cell.path,
        "clean_accuracy": summary["clean_accuracy"],
        "attacked": summary["attacked"],
        "gave_up": sum(e.stop_reason in ("converged", "start_not_found") for e in attacked),
        "claimed": sum(bool(e.trace) for e in attacked),
        "succeeded": summary["succeeded"],
        "attack_queries": summary["attack_queries"],
        "median_distance": last["median_distance"],
        "detection_rate": sum(map(math.isfinite, detected)) / len(detected) if row.refuses and detected else None,
        "queries_to_detection": _median(detected) if row.refuses else None,
        "forgot": forgot,
        "at": [
            {
                "epsilon": asr["epsilon"],
                "asr": asr["value"],
                "robust_accuracy": robust["value"],
                "queries_to_reach": _median([queries_to_reach(e, asr["epsilon"]) for e in attacked]),
                "inflation": inflation(examples, baseline, asr["epsilon"], budget),
            }
            for asr, robust in zip(last["asr"], last["robust_accuracy"], strict=True)
        ],
    }


def _spent(folder: RunFolder) -> Mapping[str, int]:
    """Queries by purpose. The attack's are counted on the journal, which a killed session has not kept from writing."""
    found: Counter[str] = Counter()
    for session in folder.sessions():
        for purpose, ledger in session.get("ledger", {}).items():
            found[purpose] += ledger["queries"]
    found["attack"] = folder.answer_count()
    return found


def _forgot(folder: RunFolder) -> bool:
    """Whether a resume began with an empty memory after queries had been asked: a detector has seen part of them."""
    asked = [s["ledger"].get("attack", {}).get("queries", 0) for s in folder.sessions() if "ledger" in s]
    last = next((count for count in reversed(asked) if count), 0)
    return last < folder.answer_count()


def _worst(cells: Sequence[Mapping[str, Any]], epsilons: Sequence[float]) -> list[dict[str, Any]]:
    """At each epsilon the attack, adaptive ones included, that leaves the least robust accuracy."""
    found = []
    for epsilon in epsilons:
        values = [
            (at["robust_accuracy"], cell["attack"])
            for cell in cells
            for at in cell.get("at", ())
            if at["epsilon"] == epsilon and at["robust_accuracy"] is not None
        ]
        if values:
            value, attack = min(values, key=lambda pair: pair[0])
            found.append({"epsilon": epsilon, "robust_accuracy": value, "attack": attack})
    return found


def _median(values: Sequence[float]) -> float | None:
    """The median; ``None`` where it is infinite or there is nothing."""
    found = float(np.median(values)) if len(values) else math.inf
    return found if math.isfinite(found) else None
