"""The drawings of a run on code: success against queries, and how many identifiers it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from bbox.report.plots import ACCENT, GRID, SECOND, count_text, drawing, query_ticks

__all__ = ["names_plot", "success_plot"]


def success_plot(
    valid: Sequence[int], raw: Sequence[int], attacked: int, budget: int, checkpoints: Sequence[int], alt: str
) -> str:
    """Valid and raw ASR against queries, as steps.

    Args:
        valid, raw: the query at which each success came, at least one raw.
        attacked: programs that the rates are of.
    """
    with drawing(alt, "success", left=0.155) as (axes, done):
        first, last = max(1, min([*valid, *raw])), max(budget, 2)
        if first > last / 2:
            first = max(1, last // 2)
        axes.set_xscale("log")
        axes.set_xlim(first, last * (last / first) ** 0.02)
        axes.set_ylim(0, 1.03)
        for q in (q for q in checkpoints if first <= q <= last):
            axes.axvline(q, color=GRID, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        for found, color, style in ((valid, ACCENT, "-"), (raw, SECOND, (0, (3, 2)))):
            at = np.array([first, *sorted(found), last])
            share = np.array([0, *range(1, len(found) + 1), len(found)]) / attacked
            if color == ACCENT:
                axes.fill_between(at, 0, share, step="post", color=color, alpha=0.12, linewidth=0)
            axes.step(at, share, where="post", color=color, linewidth=1.6, linestyle=style)
        axes.xaxis.set_major_locator(FixedLocator(query_ticks(first, last, checkpoints)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
        axes.set_xlabel("queries")
        axes.set_ylabel("ASR")
        return done()


def names_plot(renamed: Sequence[int], alt: str) -> str:
    """How many successes renamed one identifier, two, and so on; at least one success."""
    with drawing(alt, "names", left=0.11) as (axes, done):
        counts = Counter(renamed)
        axes.bar(list(counts), list(counts.values()), width=0.72, color=ACCENT, alpha=0.75, linewidth=0)
        axes.set_xlim(0.3, max(max(counts), 6) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("identifiers renamed")
        axes.set_ylabel("programs")
        return done()
