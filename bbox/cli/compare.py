"""``bbox compare RUN_A RUN_B ...``: attack runs on the same examples, paired."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Any

import click

from bbox.cli.console import console, say

__all__ = ["compare"]


@click.command()
@click.argument("runs", metavar="RUN_A RUN_B ...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="compare.html",
    show_default=True,
    help="The page to write; over an earlier comparison, over no other file.",
)
@click.option("--json", is_flag=True, help="Print the comparison as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No tables.")
def compare(runs: tuple[Path, ...], out: Path, json: bool, quiet: bool) -> None:
    """Compare two to eight runs of bbox attack on the same data, paired by example; the first is the reference.

    Runs may differ in attack, target, seed, budget and every option, not in data and norm. Prints tables with exact
    paired tests, and writes one page with the curves.

    \b
    bbox compare runs/cgba runs/hopskipjump              two attacks on one model
    bbox compare runs/bare runs/noise runs/blacklight    one attack on a model with and without defenses
    """
    from bbox.report.compare import refuse_other, write_comparison
    from bbox.results.compare import comparison
    from bbox.results.compared import load_runs

    loaded = load_runs(runs)
    refuse_other(out)
    found = comparison(loaded)
    write_comparison(out, found, loaded)
    if not quiet:
        print_comparison(found)
        say(f"page: {out}")
    if json:
        click.echo(json_module.dumps({"page": str(out), **found}))
    elif quiet:
        say(str(out))


def print_comparison(found: dict[str, Any]) -> None:
    """What differs, the tables and what must be said beside them, on stderr."""
    from rich.table import Table
    from rich.text import Text

    from bbox.report.compare_tables import cell_text, differing, grids, notes

    for line in differing(found):
        say(line)
    for grid in grids(found):
        if not grid.rows:
            continue
        grouped = bool(grid.rows[0][0])
        table = Table(title=Text(grid.title), title_justify="left")
        if grouped:
            table.add_column("queries", justify="right")
        table.add_column("run", min_width=min(24, max(len(run["label"]) for run in found["runs"])))
        for head in grid.heads:
            table.add_column(Text(head), justify="right")
        for rows in grid.groups:
            for name, number, cells in rows:
                last = number == rows[-1][1]
                first = [Text(name if number == rows[0][1] else "")] if grouped else []
                shown = [Text(cell_text(cell), style="bold" if cell.marked else "") for cell in cells]
                label = Text(found["runs"][number]["label"], overflow="fold")
                table.add_row(*first, label, *shown, end_section=last and grouped)
        console().print(table)
    for note in notes(found):
        say(note)
