"""The table of a prompt beside simpler means, on stderr."""

from __future__ import annotations

from typing import Any

from rich.table import Table

__all__ = ["comparison_table"]


def comparison_table(results: dict[str, Any]) -> Table:
    """Accuracy on held-out images, with interval, p-value against zero-shot, and what each row has cost."""
    comparison = results["comparison"]
    title = (
        f"{results['defense']} on {results['target']}: accuracy on {comparison['images']} images of {results['test']}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for name in ("accuracy", "95% interval", "p against zero-shot", "queries", "calls"):
        table.add_column(name, justify="right")
    for row in comparison["rows"]:
        low, high = row["interval"]
        mark = " (best)" if row["method"] == comparison["recommended"] else ""
        table.add_row(
            row["name"] + mark,
            f"{100 * row['accuracy']:.1f}%",
            f"{100 * low:.1f} to {100 * high:.1f}",
            "" if row["p_value"] is None else f"{row['p_value']:.2g}",
            "white box" if row["queries"] is None else f"{row['queries']:,}",
            "" if row["calls"] is None else f"{row['calls']:,}",
        )
    return table
