"""``bbox defend LIST``: defenses against attacks as a matrix of runs, or a stack of them saved as a bundle."""

from __future__ import annotations

import json as json_module
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bbox.cli.attack_options import RESUME_MAY_CHANGE, given, refuse_changes
from bbox.cli.console import Display, console, new_folder, say
from bbox.cli.options import RunCommand, check_threads, config_from, run_options
from bbox.errors import UsageError
from bbox.options import HOW

__all__ = ["matrix_command"]

_RESUME_MAY_CHANGE = RESUME_MAY_CHANGE - {"time_limit"}
# Options of a single run that a matrix does not take.
_LEFT_OUT = {
    "max_queries": None,
    "target_class": None,
    "start_from": None,
    "stop_at": None,
    "checkpoints": (),
}


@click.command("LIST", cls=RunCommand)
@click.argument("defenses", metavar="LIST", required=False)
@click.option("--evaluate", metavar="ATTACKS", help="Attacks, comma-separated, e.g. cgba,square:p-init=0.3.")
@run_options
@click.option("--report/--no-report", default=True, help="Write matrix.html and each run's report.  [default: report]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/TIME-matrix]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder.")
@click.option("--json", is_flag=True, help="Print the figures as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def matrix_command(ctx: click.Context, /, **values: Any) -> None:
    """Evaluate defenses: each attack, and its adaptive versions, on the target with each defense and without.

    LIST holds defenses, comma-separated; each is a stack such as jpeg+noise:sigma=0.05 (the last one outermost) or
    defended:RUN. Without --evaluate, one stack is saved as a bundle, to be attacked as defended:OUT.

    \b
    bbox defend noise,jpeg+noise,blacklight --evaluate cgba,square,foolbox:HopSkipJumpAttack --budget 500
    bbox defend jpeg+noise --out runs/mine
    """
    check_threads(values)
    if values["resume"] is not None:
        _resume(ctx, values)
    elif not values["defenses"]:
        raise UsageError("name defenses, for example: bbox defend noise,jpeg+noise --evaluate cgba")
    elif values["evaluate"] is None:
        _save(values)
    else:
        _start(values)


matrix_command.params = [p for p in matrix_command.params if p.name not in _LEFT_OUT]


def _save(values: dict[str, Any]) -> None:
    """Save one stack as a bundle. Nothing is asked."""
    from bbox import targets
    from bbox.cli.options import pairs
    from bbox.defenses.bundle import parse_stack, save, wrap_all
    from bbox.files import refuse_taken
    from bbox.results.matrix_plan import split_list

    entries = split_list(values["defenses"])
    if len(entries) != 1:
        raise UsageError(f"{values['defenses']!r}: without --evaluate one stack is saved; give --evaluate for several")
    layers = parse_stack(entries[0])
    options = pairs("--set", values["target_options"])
    target = targets.load(
        values["target"] or "zoo:digits", options=options, trust=values["trust"], device=values["device"]
    )
    wrap_all(target, [defense for _, defense in layers])  # a stack that cannot stand around this target
    out = values["out"] or new_folder("defense")
    refuse_taken(out, resumes=False)
    save(out, layers, target, options=options, trust=values["trust"])
    if values["json"]:
        click.echo(json_module.dumps({"run": str(out), "layers": [defense.describe() for _, defense in layers]}))
    if not values["quiet"]:
        say(f"saved, not evaluated (no --evaluate): {' + '.join(defense.describe() for _, defense in layers)}")
        say(f"attack it: bbox attack cgba --target defended:{out}")


def _start(values: dict[str, Any]) -> None:
    from bbox.results.matrix import plan_matrix
    from bbox.results.matrix_plan import Request, split_list

    defenses, attacks = split_list(values["defenses"]), split_list(values["evaluate"])
    config = config_from("cgba", {}, {**values, **_LEFT_OUT})
    matrix = plan_matrix(Request(defenses, attacks, config))
    _execute(matrix, values["out"] or new_folder("matrix"), values, resume=False)


def _resume(ctx: click.Context, values: dict[str, Any]) -> None:
    from bbox.results.matrix import resume_matrix

    refuse_changes(ctx, _RESUME_MAY_CHANGE, defenses="the list of defenses")
    _execute(resume_matrix(values["resume"], **given(ctx, HOW)), values["resume"], values, resume=True)


def _execute(matrix: Any, path: Path, values: dict[str, Any], *, resume: bool) -> None:
    from bbox.cli.matrix_table import print_matrix
    from bbox.report.bill import matrix_bill
    from bbox.results.matrix import execute_matrix

    cells = [cell for row in matrix.rows for cell in row.cells if not cell.reason]

    @contextmanager
    def watch(row: Any, cell: Any) -> Iterator[Display]:
        if not values["quiet"]:
            say(f"{cells.index(cell) + 1}/{len(cells)}  {row.name} x {cell.attack}")
        with Display(quiet=values["quiet"]) as display:
            yield display

    results = execute_matrix(
        matrix,
        path,
        resume=resume,
        command=shlex.join(["bbox", *sys.argv[1:]]),
        threads=values["threads"] or "auto",
        watch=watch,
    )
    if values["report"]:
        _reports(path, results)
    if not values["quiet"]:
        print_matrix(results, console())
        say("queries: " + ", ".join(f"{purpose} {count:,}" for purpose, count in results["queries"].items()))
        if text := matrix_bill(path):
            say(text)
        say(f"folder: {path}" + (f"   page: {path / 'matrix.html'}" if values["report"] else ""))
    if values["json"]:
        click.echo(json_module.dumps({"run": str(path), **results}))
    elif values["quiet"]:
        say(str(path))


def _reports(path: Path, results: dict[str, Any]) -> None:
    """The page of each run that has none yet, and the page of the matrix, which links them."""
    from bbox.report import write_report
    from bbox.report.matrix import matrix_page
    from bbox.results.matrix import write_text
    from bbox.results.store import RunFolder

    for row in results["rows"]:
        for cell in row["cells"]:
            where = path / (cell["run"] or "")
            if cell["complete"] and not (where / "report.html").exists():
                with RunFolder.open(where) as folder:
                    write_report(folder)
    write_text(path / "matrix.html", matrix_page(results, path))
