"""The numbers of a matrix as text, for tables and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["NOTES", "cell_heads", "cell_texts", "cost_texts", "title", "warnings"]

NOTES = (
    "* the row's worst: a defense is only worth its worst row. Robust accuracy over all images.",
    "verified: saved files that fool the target again, of those that did once; few: its answers were luck, so adapt",
    "inflation: median queries to epsilon, with the defense over without; >= where the median is never reached with it",
)


def cell_heads(matrix: dict[str, Any]) -> list[str]:
    """What stands over ``cell_texts``."""
    names = [f"{name}@{epsilon:.4g}" for name in ("robust", "inflation") for epsilon in matrix["epsilons"]]
    return ["clean", "verified", f"median {matrix['norm']}", *names, "detected", "at query"]


def title(matrix: dict[str, Any]) -> str:
    return (
        f"{matrix['target']} with and without defenses: {matrix['images']} images of {matrix['data']}, "
        f"budget {matrix['budget']:,}, {matrix['norm']}"
    )


def cell_texts(row: dict[str, Any], cell: dict[str, Any], epsilons: Sequence[float]) -> list[str]:
    """The columns behind defense and attack; a single one where there are no figures."""
    if not cell["applicable"]:
        return [f"not applicable: {cell['reason']}"]
    if not cell["complete"]:
        return ["not finished"]
    at = {entry["epsilon"]: entry for entry in cell["at"]}
    worst = {entry["epsilon"]: entry["robust_accuracy"] for entry in row["worst"]}
    robust, inflations = [], []
    for epsilon in epsilons:
        entry = at.get(epsilon)
        value = None if entry is None else entry["robust_accuracy"]
        robust.append(_percent(value) + ("*" if value is not None and value == worst.get(epsilon) else ""))
        inflations.append("-" if entry is None or not row["layers"] else _times(entry["inflation"]))
    median = "-" if cell["median_distance"] is None else f"{cell['median_distance']:.3f}"
    found = cell["queries_to_detection"]
    return [
        _percent(cell["clean_accuracy"]),
        f"{cell['succeeded']}/{cell['claimed']}",
        median,
        *robust,
        *inflations,
        _percent(cell["detection_rate"]),
        "-" if found is None else f"{found:g}",
    ]


def cost_texts(row: dict[str, Any], epsilons: Sequence[float]) -> list[tuple[str, str]]:
    clean, worst = row["clean"] or {}, {entry["epsilon"]: entry["robust_accuracy"] for entry in row["worst"]}
    latency = row["latency_ratio"]
    return [
        ("clean accuracy", _percent(clean.get("accuracy"))),
        ("false alarms", _percent(clean.get("false_alarms")) if row["refuses"] else "-"),
        ("latency", "-" if latency is None else f"{latency:.2f}x"),
        ("rows a query", str(row["rows_per_query"])),
        *[(f"worst robust@{epsilon:.4g}", _percent(worst.get(epsilon))) for epsilon in epsilons],
    ]


def warnings(matrix: dict[str, Any]) -> Iterator[str]:
    """What makes single cells weak evidence."""
    cells = [(f"{row['name']} x {cell['attack']}", cell) for row in matrix["rows"] for cell in row["cells"]]
    for name, cell in cells:
        if cell.get("forgot"):
            yield (
                f"{name} was resumed: its detector began again with an empty memory, "
                "so it refused less than it would have"
            )
    gave_up = [
        f"{name} ({cell['gave_up']} of {cell['attacked']})"
        for name, cell in cells
        if cell["complete"] and 2 * cell["gave_up"] > cell["attacked"]
    ]
    if gave_up:
        yield "the attack ended by itself with budget left, which is no strength of the defense: " + ", ".join(gave_up)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _times(inflation: dict[str, Any]) -> str:
    if inflation["value"] is not None:
        return f"{inflation['value']:.2f}x"
    return "-" if inflation["at_least"] is None else f">= {inflation['at_least']:.1f}x"
