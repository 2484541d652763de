"""The report's two plots, as inline SVG whose text stays text and whose colours come from the page."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from bbox.results.compared import reached
from bbox.results.metrics import within
from bbox.results.records import Example

__all__ = [
    "ACCENT",
    "GRID",
    "SECOND",
    "Curves",
    "count_text",
    "distance_curves",
    "distance_plot",
    "drawing",
    "limits",
    "query_ticks",
    "robustness_plot",
]

_GRID_POINTS = 400  # query counts at which the curves are evaluated, at most
_BANDS = ((0.05, 0.95), (0.25, 0.75))

# Matplotlib writes these stand-ins, the page's style sheet decides what they look like (light and dark).
INK, GRID, ACCENT, SECOND = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {INK: "--plot-ink", GRID: "--plot-grid", ACCENT: "--accent", SECOND: "--second"}


@dataclass(frozen=True)
class Curves:
    """Distance against queries over the attacked examples; each value holds until the next query count.

    Shapes:
        queries: (points,) increasing, ends at the budget; median: (points,), inf where half have found nothing.
        bands: quantile pairs, outer first, each ((points,), (points,)), inf where so many have found nothing.
    """

    queries: NDArray[np.int64]
    median: NDArray[np.float64]
    bands: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]


def distance_curves(examples: Sequence[Example], budget: int, checkpoints: Sequence[int] = ()) -> Curves | None:
    """The curves of a run, ``None`` where no attacked example has a verified adversarial one.

    Evaluated at the checkpoints and at each query count where something changes, the latter thinned to a logarithmic
    grid where there are many.
    """
    attacked = [e for e in examples if e.attacked]
    events = np.unique([n for e in attacked if e.success for n, _ in e.trace if 1 <= n <= budget]).astype(np.int64)
    if len(events) == 0:
        return None
    if len(events) > _GRID_POINTS:
        spread = np.geomspace(events[0], events[-1], _GRID_POINTS)
        events = np.unique(events[np.searchsorted(events, spread).clip(max=len(events) - 1)])
    fixed = [q for q in (*checkpoints, budget) if events[0] <= q <= budget]
    queries = np.unique(np.append(events, fixed)).astype(np.int64)
    table = reached(attacked, queries)
    # The median is the one of the table of checkpoints. The bands take observed distances only: interpolating
    # between a distance and an infinite one would give nan.
    bands = tuple(
        (
            np.quantile(table, low, axis=0, method="inverted_cdf"),
            np.quantile(table, high, axis=0, method="inverted_cdf"),
        )
        for low, high in _BANDS
    )
    return Curves(queries, np.median(table, axis=0), bands if len(attacked) > 1 else ())


def distance_plot(curves: Curves, checkpoints: Sequence[int], alt: str, norm: str) -> str:
    """Median and quantile bands of distance against queries, checkpoints marked. The median must be finite somewhere.

    Both axes are logarithmic: decision-based attacks lose distance fast in the first hundred queries and about as a
    power of the queries after, which is a straight line here, and the checkpoints in use (100, 250, 500, 1000, ...)
    lie evenly. On a linear axis the first part, where attacks differ most, is a vertical stroke at the edge.
    """
    with drawing(alt, "distance", left=0.115) as (axes, done):
        first = int(curves.queries[np.isfinite(curves.median)][0])  # no band is finite before the median is
        last = max(int(curves.queries[-1]), first + 1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(first, last * (last / first) ** 0.02)
        limits(axes, curves)
        for opacity, (low, high) in zip((0.16, 0.26), curves.bands, strict=False):
            x, bottom = _steps(curves.queries, low)
            _, top = _steps(curves.queries, high)
            shown = np.isfinite(bottom) & np.isfinite(top) & (bottom > 0)
            axes.fill_between(x, bottom, top, where=shown.tolist(), color=ACCENT, alpha=opacity, linewidth=0)
        x, y = _steps(curves.queries, np.where(np.isfinite(curves.median), curves.median, np.nan))
        axes.plot(x, y, color=ACCENT, linewidth=1.6, solid_joinstyle="round")
        marked = [q for q in checkpoints if first <= q <= curves.queries[-1]]
        for q in marked:
            axes.axvline(q, color=GRID, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        at = curves.median[np.searchsorted(curves.queries, np.array(marked, dtype=np.int64), side="right") - 1]
        seen = [(q, d) for q, d in zip(marked, at.tolist(), strict=True) if np.isfinite(d)]
        axes.plot([q for q, _ in seen], [d for _, d in seen], "o", color=ACCENT, markersize=4, clip_on=False)
        axes.xaxis.set_major_locator(FixedLocator(query_ticks(first, last, checkpoints)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        axes.set_xlabel("queries")
        axes.set_ylabel(f"{norm} distance")
        return done()


def robustness_plot(examples: Sequence[Example], budget: int, epsilons: Sequence[float], alt: str, norm: str) -> str:
    """Robust accuracy against epsilon at the full budget: the share right at first and not broken within epsilon."""
    distances = np.sort([e.distance_at(budget) for e in examples if e.attacked])
    finite = distances[np.isfinite(distances)]
    with drawing(alt, "robust", left=0.155) as (axes, done):
        reach = max([*finite[-1:].tolist(), *epsilons, 1e-9]) * 1.06
        x = np.concatenate([[0.0], finite, [reach]])
        left = (len(distances) - np.arange(len(finite) + 1)) / len(examples)
        y = np.append(left, left[-1])
        axes.fill_between(x, 0, y, step="post", color=SECOND, alpha=0.12, linewidth=0)
        axes.step(x, y, where="post", color=SECOND, linewidth=1.6)
        marks = [float((~within(distances, eps)).sum()) / len(examples) for eps in epsilons]
        for eps in epsilons:
            axes.axvline(eps, color=GRID, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        axes.plot(list(epsilons), marks, "o", color=SECOND, markersize=4, clip_on=False)
        axes.set_xlim(0, reach)
        axes.set_ylim(0, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
        axes.set_xlabel(f"epsilon ({norm})")
        axes.set_ylabel("robust accuracy")
        return done()


def _steps(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The corners of a function that keeps each value until the next x."""
    return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]


def limits(axes: Axes, curves: Curves) -> None:
    """Logarithmic y axis around what is drawn, with ticks that can be read at any range."""
    edges = [curves.median, *(edge for band in curves.bands for edge in band)]
    values = np.concatenate(edges)
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.5, 2.0)
    axes.set_ylim(low / 1.12, high * 1.12)
    spread = high / low
    subs = (1, 2, 3, 5) if spread < 12 else (1, 2, 5) if spread < 100 else (1, 3) if spread < 1000 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs) if spread > 4 else MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def query_ticks(first: int, last: int, checkpoints: Sequence[int]) -> list[float]:
    """The last query, the checkpoints, then powers of ten and 2 and 5 times these, each where there is room."""
    named = sorted((float(q) for q in checkpoints if first <= q <= last), reverse=True)
    powers = [10.0**k for k in range(13)]
    kept: list[float] = [float(last)]
    gap = (last / first) ** 0.085
    for tick in (*named, *powers, *(5 * p for p in powers), *(2 * p for p in powers)):
        if first <= tick <= last and all(max(tick / other, other / tick) >= gap for other in kept):
            kept.append(tick)
    return sorted(kept)


def count_text(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.10g}k"


@contextmanager
def drawing(alt: str, name: str, *, left: float) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """A drawing of the report's size and style; ``done()`` gives its SVG."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"bbox-{name}",
        "font.size": 8.0,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.minor.visible": False,
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.7, 2.9))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((left, 0.15, 0.98 - left, 0.82))
        axes.grid(axis="y", color=GRID, linewidth=0.5, alpha=0.55)
        axes.set_axisbelow(True)
        axes.xaxis.set_minor_locator(NullLocator())

        def done() -> str:
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(NullLocator())
            figure.patch.set_visible(False)
            axes.patch.set_visible(False)
            buffer = io.StringIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(buffer, format="svg", metadata=nothing)
            return _inline(buffer.getvalue(), alt, name)

        yield axes, done


def _inline(svg: str, alt: str, name: str) -> str:
    """An SVG file as an element of a page: no prolog, ids of its own, colours by variable, a name for readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id|xlink:href)="(#?)', rf'\1="\g<2>{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(alt)}">{body}'
