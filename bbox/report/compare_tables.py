"""The tables of a comparison, for the page and the terminal alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bbox.report.page import distance_text, percent

__all__ = ["ALPHA", "DASH", "Cell", "Grid", "cell_text", "differing", "grids", "notes", "value_text"]

ALPHA = 0.05
DASH, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Cell:
    """A figure, the lines below it, and whether it differs from the reference at the level ``ALPHA``."""

    text: str
    small: tuple[str, ...] = ()
    marked: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: rows of one group (a query count) follow each other.

    Attributes:
        heads: of the cells; rows: (group, place of the run, cells).
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[Cell, ...]], ...]

    @property
    def groups(self) -> list[list[tuple[str, int, tuple[Cell, ...]]]]:
        return [list(rows) for _, rows in groupby(self.rows, key=lambda row: row[0])]


def grids(comparison: dict[str, Any]) -> tuple[Grid, Grid, Grid]:
    """The tables: each run's figures, each run against the first, and what each has cost."""
    runs, norm = comparison["runs"], comparison["norm"]
    epsilons = [f"{epsilon:.4g}" for epsilon in comparison["epsilons"]]
    places: list[tuple[str, int | None]] = [(f"{q:,}", at) for at, q in enumerate(comparison["checkpoints"])]
    figures, paired = [], []
    for group, at in (*places, ("own budget", None)):
        for number, run in enumerate(runs):
            row, against = _at(run, at), None if run["against"] is None else _at(run["against"], at)
            if row is not None:
                figures.append((group, number, _figures(row)))
            if against is not None:
                paired.append((group, number, _paired(against)))
    robust = tuple(f"robust@{e}" for e in epsilons)
    return (
        Grid(
            "Each run",
            ("found", f"median {norm}", *(f"ASR@{e}" for e in epsilons), *robust),
            tuple(figures),
        ),
        Grid(
            f"Against {runs[0]['label']}",
            (f"ratio of {norm}", "closer / same / farther", *(f"{name}, change" for name in robust)),
            tuple(paired),
        ),
        Grid("Whole runs", *_whole(comparison)),
    )


def cell_text(cell: Cell) -> str:
    """A cell as plain text; what is marked in colour on the page has a star."""
    text = cell.text + ("*" if cell.marked else "")
    return "\n".join((text, *cell.small))


def differing(comparison: dict[str, Any]) -> list[str]:
    """What the runs were not asked alike, a line an option."""
    return [f"{row['name']}: {' | '.join(map(value_text, row['values']))}" for row in comparison["differences"]]


def notes(comparison: dict[str, Any]) -> list[str]:
    """What must be said beside the tables."""
    n, norm, lines = comparison["examples"], comparison["norm"], []
    if comparison["left_out"]:
        lines.append(f"{comparison['left_out']:,} examples are left out: not every run has finished them.")
    for run in comparison["runs"]:
        if not run["complete"]:
            lines.append(
                f"{run['label']} is not complete. Examples that were wrong from the start finish first, so accuracies "
                f"look lower than they will be; go on with  bbox attack --resume {run['run']}"
            )
        cut = sum(run["stop_reasons"].get(reason, 0) for reason in ("time_limit", "interrupted"))
        if cut:
            lines.append(f"{run['label']}: {cut:,} searches were cut short before their budget was spent.")
        if not run["minimises"]:
            lines.append(
                f"{run['label']} stays within a fixed epsilon and minimises no {norm}: no ratio is taken. It has not "
                "looked further than that, so its robust accuracy at a larger epsilon says no more."
            )
    lines.append(
        f"Paired by example, {n:,} of them; robust accuracy over all, ratios over those that both runs attacked. "
        "Intervals: 95%, of a median by order statistics, of a difference by Tango's score. p: exact, two-sided "
        f"(McNemar, sign test), after Holm over all {comparison['tests']} tests; marked at {ALPHA:g} and below."
    )
    return lines


def _at(figures: dict[str, Any], checkpoint: int | None) -> dict[str, Any] | None:
    """The row of a checkpoint, or the one at each run's own budget where budgets differ."""
    row: dict[str, Any] | None = figures["at_own_budget"] if checkpoint is None else figures["at"][checkpoint]
    return row


def _figures(row: dict[str, Any]) -> tuple[Cell, ...]:
    return (
        Cell(f"{row['found']:,}"),
        Cell(_length(row["median_distance"], row["found"]), _range(row["median_distance_interval"], distance_text)),
        *(Cell(percent(cell["value"])) for part in ("asr", "robust_accuracy") for cell in row[part]),
    )


def _paired(row: dict[str, Any]) -> tuple[Cell, ...]:
    seen = row["distance"]
    if seen is None:
        cells = (Cell(DASH), Cell(DASH))
    else:
        text = _length(seen["ratio"], seen["n"])
        bounds = _range(seen["interval"], distance_text)
        cells = (
            Cell(text, _below(bounds, seen), _is_marked(seen)),
            Cell(f"{seen['closer']} / {seen['ties']} / {seen['farther']}"),
        )
    return (*cells, *(_change(cell) for cell in row["robust_accuracy"]))


def _change(cell: dict[str, Any]) -> Cell:
    bounds = _range(cell["interval"], _points)
    return Cell(_points(cell["difference"]), _below(bounds, cell), _is_marked(cell))


def _whole(comparison: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, int, tuple[Cell, ...]], ...]]:
    """Heads and rows; columns that say nothing of any run are left out."""
    columns: dict[str, list[Cell]] = {}
    for run in comparison["runs"]:
        costs, against = run["costs"], run["against"]
        seen = None if against is None else against["clean_accuracy"]
        below = () if seen is None else _below((f"change {_points(seen['difference'])}",), seen)
        first = [
            (f"to {comparison['norm']} {cell['epsilon']:.4g}", cell["median"]) for cell in run["queries_to_epsilon"]
        ]
        other = sum(count for purpose, count in costs["queries"].items() if purpose != "attack")
        again = (f"{costs['retried']:,} again",) if costs["retried"] else ()
        cells = {
            "attacked": Cell(f"{run['attacked']:,}"),
            "clean accuracy": Cell(percent(run["clean_accuracy"]), below, seen is not None and _is_marked(seen)),
            "queries to success": Cell(_count(run["queries_to_success"])),
            **{name: Cell(_count(value)) for name, value in first},
            "attack queries": Cell(f"{costs['queries'].get('attack', 0):,}"),
            "other queries": Cell(f"{other:,}"),
            "from cache": Cell(f"{costs['cached']:,}" if costs["cached"] else DASH),
            "rows sent": Cell(f"{costs['billed']:,}" if costs["billed"] else DASH, again),
            "cost": Cell(DASH if costs["cost"] is None else f"{costs['cost']:,.2f}"),
        }
        for name, cell in cells.items():
            columns.setdefault(name, []).append(cell)
    kept = {name: cells for name, cells in columns.items() if any(cell.text != DASH for cell in cells)}
    rows = [("", number, cells) for number, cells in enumerate(zip(*kept.values(), strict=True))]
    return tuple(kept), tuple(rows)


def _below(bounds: tuple[str, ...], test: dict[str, Any]) -> tuple[str, ...]:
    p = test["p_adjusted"]
    return (*bounds, f"p {p:.2g}" if p >= 1e-4 else "p < 0.0001")


def _is_marked(test: dict[str, Any]) -> bool:
    return bool(test["p_adjusted"] <= ALPHA)


def _points(value: float) -> str:
    """A difference of proportions in percentage points, with its sign."""
    rounded = round(100 * value, 1) + 0.0
    return f"{'+' if rounded > 0 else _MINUS if rounded < 0 else ''}{abs(rounded):.1f}"


def _length(value: float | None, count: int) -> str:
    if value is None:
        return "∞" if count else DASH
    return distance_text(value)


def _range(bounds: Sequence[float | None], show: Callable[[float], str]) -> tuple[str, ...]:
    """An interval whose upper end may be infinite; nothing where there is none."""
    low, high = bounds
    return () if low is None else (f"{show(low)} to {'∞' if high is None else show(high)}",)


def _count(value: float | None) -> str:
    return "∞" if value is None else f"{value:,.1f}".removesuffix(".0")


def value_text(value: Any) -> str:
    """An option as it is shown."""
    if value is None:
        return DASH
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value)) or DASH
    return f"{value:g}" if isinstance(value, float) else str(value)
