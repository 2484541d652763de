"""Result files and the table made from them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers import ATTACKS, YARDSTICK

__all__ = ["format_table", "paired_ratio", "read_results", "result_path", "write_result"]

Result = dict[str, Any]


def result_path(folder: Path, case: str, goal: str, attack: str) -> Path:
    return folder / f"{case}-{goal}-{attack}.json"


def write_result(folder: Path, result: Result) -> Path:
    """Written after each image and moved into place, so that a killed run leaves a whole file."""
    path = result_path(folder, result["case"], result["goal"], result["attack"])
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read_results(folder: Path, case: str, goal: str) -> dict[str, Result]:
    """Stored results of a case, by attack, in the registry's order."""
    paths = {attack: result_path(folder, case, goal, attack) for attack in ATTACKS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def paired_ratio(result: Result, yardstick: Result, checkpoint: str) -> tuple[float, float, int] | None:
    """Geometric mean of l2 / yardstick's l2 over the images both ran, its standard error as a factor, and n.

    ``None`` where nothing can be paired: the model is another one, or no image with its start is in both.
    """
    if result["model"]["fingerprint"] != yardstick["model"]["fingerprint"]:
        return None
    base = {image["key"]: image["l2"].get(checkpoint) for image in yardstick["images"]}
    logs = [
        math.log(image["l2"][checkpoint] / base[image["key"]])
        for image in result["images"]
        if image["l2"].get(checkpoint) and base.get(image["key"])
    ]
    if not logs:
        return None
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return math.exp(statistics.fmean(logs)), math.exp(error), len(logs)


def _ratio_cell(result: Result, yardstick: Result | None, checkpoint: str) -> str:
    paired = yardstick and paired_ratio(result, yardstick, checkpoint)
    if not paired:
        return "-"
    ratio, factor, count = paired
    note = "" if count == len(result["images"]) else f" n={count}"
    return f"{ratio:.2f} (x/{factor:.2f}){note}"


def _median_cell(images: list[Result], checkpoint: str) -> str:
    values = [image["l2"][checkpoint] for image in images if checkpoint in image["l2"]]
    return f"{statistics.median(values):.3f}" if values else "-"


def _lines(rows: Iterable[list[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def format_table(results: dict[str, Result]) -> str:
    """Median l2 at each checkpoint, and the paired ratio to the yardstick with its standard error factor."""
    if not results:
        return "no results stored"
    checkpoints = sorted({c for result in results.values() for c in result["checkpoints"]})
    yardstick = results.get(YARDSTICK)
    header = [
        "attack",
        "n",
        *(f"l2@{c}" for c in checkpoints),
        *(f"ratio@{c}" for c in checkpoints),
        "outside",
        "q/s",
    ]
    rows = [header]
    for name, result in results.items():
        images = result["images"]
        queries = sum(image["queries"] for image in images)
        rows.append(
            [
                name,
                str(len(images)),
                *(_median_cell(images, str(c)) for c in checkpoints),
                *(_ratio_cell(result, yardstick, str(c)) for c in checkpoints),
                f"{sum(image['outside'] for image in images) / queries:.0%}",
                f"{queries / sum(image['seconds'] for image in images):.0f}",
            ]
        )
    notes = [
        f"{name}: ended early on {len(odd)} images ({', '.join(sorted({i['ended'] for i in odd}))})"
        for name, result in results.items()
        if (odd := [image for image in result["images"] if image["ended"] != "spent"])
    ]
    notes += [
        f"{name}: another model than {YARDSTICK}'s ({result['model']['fingerprint']}); run both again"
        for name, result in results.items()
        if yardstick and result["model"]["fingerprint"] != yardstick["model"]["fingerprint"]
    ]
    first = next(iter(results.values()))
    return "\n".join([f"{first['case']} {first['goal']}", *_lines(rows), *notes])
