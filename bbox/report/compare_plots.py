"""The curves of a comparison, as inline SVG in the style of the report: a colour and a dash for each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator
from scipy import stats

from bbox.report.page import distance_text, percent
from bbox.report.plots import GRID, Curves, count_text, drawing, limits, query_ticks
from bbox.results.compared import Compared, reached
from bbox.results.metrics import within
from bbox.results.paired import Floats, Ints, paired_ratios, ratio_interval

__all__ = ["STYLES", "plots"]

_POINTS = 240  # query counts of a curve, at most
_LEVEL = 0.95
# Stand-ins for the page's own colours, which differ in light and dark (``plots.INK`` and its like).
_COLORS = tuple(f"#0102{number:02x}" for number in range(16, 24))
_DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 2), (3, 3), (1, 3), (9, 2, 1.5, 2, 1.5, 2))
# For the page's keys: the colour's variable and the dashes, of each run.
STYLES = tuple((f"--run-{n + 1}", " ".join(map(str, dash))) for n, dash in enumerate(_DASHES))


def plots(comparison: dict[str, Any], runs: Sequence[Compared]) -> Iterator[tuple[str, str, str]]:
    """(title, SVG, what stands below it) of each drawing that has something to show."""
    norm = comparison["norm"]
    distances = _distances(comparison, runs)
    if distances is not None:
        yield f"Median {norm} against queries", distances, "Band: 95% interval of the median."
    ratios = _ratios(comparison, runs)
    if ratios is not None:
        title = f"{norm} over that of {runs[0].label}, example by example"
        yield title, ratios, "Median of the paired ratios and its 95% interval; below 1 is closer."
    for epsilon in comparison["epsilons"]:
        at = f"at epsilon {epsilon:.4g}"
        yield (
            f"Robust accuracy {at}, against queries",
            _robust_by_queries(runs, epsilon, norm),
            "Band: 95% interval (Clopper-Pearson).",
        )
    budgets = sorted({run.config.budget for run in runs})
    at = f"{budgets[0]:,} queries" if len(budgets) == 1 else "each run's own budget"
    yield (
        f"Robust accuracy at {at}, against epsilon",
        _robust_by_epsilon(comparison, runs),
        "Band: 95% interval (Clopper-Pearson).",
    )


def _grid(last: int) -> Ints:
    """Query counts up to a budget, evenly on a logarithmic axis."""
    return np.unique(np.geomspace(1, last, _POINTS).round().astype(np.int64))


def _distances(comparison: dict[str, Any], runs: Sequence[Compared]) -> str | None:
    curves = []
    for run in runs:
        queries = _grid(run.config.budget)
        table = reached(run.examples, queries)[run.attacked]
        if len(table):
            curves.append(Curves(queries, np.median(table, axis=0), (_bounds(table),)))
        else:
            nothing = np.full(len(queries), np.inf)
            curves.append(Curves(queries, nothing, ()))
    drawn = [curve for curve in curves if np.isfinite(curve.median).any()]
    if not drawn:
        return None
    first = min(int(curve.queries[np.isfinite(curve.median)][0]) for curve in drawn)
    ends_at = [(run["label"], (run["at_own_budget"] or run["at"][-1])) for run in comparison["runs"]]
    reading = [
        f"{label}: {distance_text(row['median_distance'])} at {row['queries']:,} queries" for label, row in ends_at
    ]
    with drawing(f"Median {comparison['norm']}: {'; '.join(reading)}.", "compare-distance", left=0.115) as (axes, done):
        _query_axis(axes, first, max(run.config.budget for run in runs), comparison["checkpoints"])
        axes.set_yscale("log")
        together = np.concatenate([curve.median for curve in drawn])
        ends = [np.concatenate([curve.bands[0][end] for curve in drawn]) for end in (0, 1)]
        limits(axes, Curves(drawn[0].queries, together, ((ends[0], ends[1]),)))
        for number, curve in enumerate(curves):
            _line(axes, number, len(runs), curve.queries, curve.median, *curve.bands)
        axes.set_ylabel(f"{comparison['norm']} distance")
        return _coloured(done())


def _ratios(comparison: dict[str, Any], runs: Sequence[Compared]) -> str | None:
    first = runs[0]
    drawn: list[tuple[int, Ints, Floats, tuple[Floats, Floats]]] = []
    for number, run in enumerate(runs):
        both = first.attacked & run.attacked
        if number and both.any() and not (first.fixed or run.fixed):
            queries = _grid(min(first.config.budget, run.config.budget))
            before, now = (reached(one.examples, queries)[both] for one in (first, run))
            ratios = paired_ratios(before, now)
            middle = np.median(ratios, axis=0)
            # Both have found something for half of the examples: before that, a ratio is 1, 0 or infinite.
            shown = np.isfinite(np.median(before, axis=0)) & np.isfinite(np.median(now, axis=0)) & (middle > 0)
            if shown.any():
                drawn.append((number, queries[shown], middle[shown], _bounds(ratios[:, shown])))
    if not drawn:
        return None
    with drawing(f"Ratios of {comparison['norm']}, see the table.", "compare-ratio", left=0.115) as (axes, done):
        last = max(int(queries[-1]) for _, queries, _, _ in drawn)
        _query_axis(axes, min(int(queries[0]) for _, queries, _, _ in drawn), last, comparison["checkpoints"])
        axes.set_yscale("log")
        seen = np.concatenate([part for _, _, middle, band in drawn for part in (middle, *band)] + [np.ones(1)])
        seen = seen[np.isfinite(seen) & (seen > 0)]
        low, high = max(float(seen.min()), 0.02) / 1.08, min(float(seen.max()), 50.0) * 1.08
        axes.set_ylim(low, high)
        subs = (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 2, 5)
        axes.yaxis.set_major_locator(
            LogLocator(subs=subs) if high / low > 3 else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.axhline(1, color=GRID, linewidth=1)
        for number, queries, middle, band in drawn:
            _line(axes, number, len(runs), queries, middle, band)
        axes.set_ylabel("ratio")
        return _coloured(done())


def _robust_by_queries(runs: Sequence[Compared], epsilon: float, norm: str) -> str:
    last = [f"{run.label}: {percent(float(_robust(run, [run.config.budget], epsilon)[0]))}" for run in runs]
    alt = f"Robust accuracy at {norm} {epsilon:.4g} when the queries are spent: {'; '.join(last)}."
    with drawing(alt, f"compare-robust-{epsilon:g}".replace(".", "-"), left=0.135) as (axes, done):
        _query_axis(axes, 1, max(run.config.budget for run in runs), ())
        for number, run in enumerate(runs):
            queries = _grid(run.config.budget)
            robust = _robust(run, queries, epsilon)
            _line(axes, number, len(runs), queries, robust, _clopper_pearson(robust, len(run.examples)))
        _accuracy_axis(axes)
        return _coloured(done())


def _robust_by_epsilon(comparison: dict[str, Any], runs: Sequence[Compared]) -> str:
    ends = [np.sort(reached(run.examples, [run.config.budget])[run.attacked, 0]) for run in runs]
    finite = np.concatenate([end[np.isfinite(end)] for end in ends])
    far = float(np.quantile(finite, 0.95)) if len(finite) else 0.0
    reach = max(far, 1.25 * comparison["epsilons"][-1])
    with drawing("Robust accuracy against epsilon, see the table.", "compare-epsilon", left=0.135) as (axes, done):
        for epsilon in comparison["epsilons"]:
            axes.axvline(epsilon, color=GRID, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        for number, (run, end) in enumerate(zip(runs, ends, strict=True)):
            inside = end[np.isfinite(end) & (end <= reach)]
            x = np.concatenate([[0.0], inside, [reach]])
            left = (len(end) - np.arange(len(inside) + 1)) / len(run.examples)
            y = np.append(left, left[-1])
            _line(axes, number, len(runs), x, y, _clopper_pearson(y, len(run.examples)))
        axes.set_xlim(0, reach)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"epsilon ({comparison['norm']})")
        _accuracy_axis(axes)
        return _coloured(done())


def _robust(run: Compared, queries: Sequence[int] | Ints, epsilon: float) -> Floats:
    """Robust accuracy within so many queries. Shapes: (len(queries),)."""
    broken = within(reached(run.examples, queries), epsilon)
    share: Floats = (run.attacked[:, None] & ~broken).mean(axis=0)
    return share


def _bounds(table: Floats) -> tuple[Floats, Floats]:
    """The interval of each column's median, nan where an end is infinite or there is none."""
    ends = np.array([ratio_interval(column, _LEVEL) for column in table.T], dtype=np.float64)  # None becomes nan
    return ends[:, 0], ends[:, 1]


def _clopper_pearson(share: Floats, n: int) -> tuple[Floats, Floats]:
    count, tail = np.round(share * n), (1 - _LEVEL) / 2
    low = np.where(count > 0, stats.beta.ppf(tail, np.maximum(count, 1), n - count + 1), 0.0)
    high = np.where(count < n, stats.beta.isf(tail, count + 1, np.maximum(n - count, 1)), 1.0)
    return low, high


def _line(axes: Axes, number: int, of: int, x: Any, y: Floats, band: tuple[Floats, Floats] | None = None) -> None:
    """Draw run ``number`` of so many, as steps."""
    color, dash = _COLORS[number], _DASHES[number]
    if band is not None:
        shown = np.isfinite(band[0]) & np.isfinite(band[1])
        opacity = 0.13 if of < 4 else 0.07
        axes.fill_between(
            x, band[0], band[1], where=shown.tolist(), step="post", color=color, alpha=opacity, linewidth=0
        )
    drawn = np.where(np.isfinite(y), y, np.nan)
    style: Any = (0, dash) if dash else "-"
    axes.step(x, drawn, where="post", color=color, linewidth=1.6, linestyle=style)


def _query_axis(axes: Axes, first: int, last: int, checkpoints: Sequence[int]) -> None:
    last = max(last, first + 1)
    axes.set_xscale("log")
    axes.set_xlim(first, last * (last / first) ** 0.02)
    axes.xaxis.set_major_locator(FixedLocator(query_ticks(first, last, checkpoints)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
    axes.set_xlabel("queries")


def _accuracy_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    axes.set_ylabel("robust accuracy")


def _coloured(svg: str) -> str:
    for color, (variable, _) in zip(_COLORS, STYLES, strict=True):
        svg = svg.replace(color, f"var({variable})")
    return svg
