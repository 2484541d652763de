"""``bbox baseline``: what a model's robustness is now, as a file that ``bbox check`` holds later models against."""

from __future__ import annotations

import json as json_module
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from bbox.cli.attack_options import RESUME_MAY_CHANGE, given, refuse_changes
from bbox.cli.console import console, new_folder, say
from bbox.cli.options import RunCommand, config_from, run_options
from bbox.cli.suite import watcher
from bbox.errors import UsageError
from bbox.options import HOW

__all__ = ["baseline"]

# Options of a single run that a baseline does not take: with them, outcomes say little of another model.
_LEFT_OUT = {"max_queries": None, "target_class": None, "start_from": None, "stop_at": None}
_OF_THE_FILE = {"tolerance", "distance_tolerance", "alpha", "out", "json", "quiet"}


@click.command(cls=RunCommand)
@click.option("--attack", "attacks", multiple=True, metavar="ATTACK", help="E.g. cgba, or square:p-init=0.3; repeat.")
@run_options
@click.option("--tolerance", type=float, default=0.0, show_default=True, help="How far accuracy may fall, e.g. 0.05.")
@click.option(
    "--distance-tolerance",
    type=float,
    default=0.0,
    show_default=True,
    help="How far a median distance may fall, relative, e.g. 0.1.",
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of a false alarm, over all figures.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="robustness.json", show_default=True, help="The file to write."
)
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of the runs.  [default: runs/TIME-baseline]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder of runs.")
@click.option(
    "--from-run", "from_runs", type=click.Path(path_type=Path), multiple=True, help="Use this finished run; repeat."
)
@click.option("--json", is_flag=True, help="Print the baseline as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def baseline(ctx: click.Context, /, **values: Any) -> None:
    """Attack a model and write down what became of each example, for bbox check.

    Each epsilon and each checkpoint is a figure of its own, and alpha is shared among all: name those that matter.
    Without --checkpoint, figures are taken at the budget alone.

    \b
    bbox baseline --attack cgba --attack square --budget 500 --epsilon 1.5
    bbox baseline --from-run runs/20261124-101508-cgba
    """
    from bbox.results.baseline import Gates, write_baseline
    from bbox.results.baseline_runs import baseline_of_runs, make_baseline
    from bbox.results.matrix_plan import read_attack

    out = values["out"]
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or renew it:  bbox check --baseline {out} --update")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    gates = Gates(values["tolerance"], values["distance_tolerance"], values["alpha"])
    path = None
    if values["from_runs"]:
        _refuse_new(ctx)
        found = baseline_of_runs(values["from_runs"], gates)
    else:
        if values["resume"] is not None:
            refuse_changes(ctx, RESUME_MAY_CHANGE | _OF_THE_FILE)
        elif not values["attacks"]:
            raise UsageError("name at least one attack, for example: bbox baseline --attack cgba")
        path = values["resume"] or values["runs"] or new_folder("baseline")
        first = read_attack((*values["attacks"], "cgba")[0])[0]
        config = config_from(first, {}, {**values, **_LEFT_OUT})
        found = make_baseline(
            values["attacks"],
            config,
            path,
            gates=gates,
            resume=values["resume"] is not None,
            changes=given(ctx, HOW),
            command=shlex.join(["bbox", *sys.argv[1:]]),
            threads=values["threads"] or "auto",
            watch=watcher(quiet=values["quiet"]),
        )
    write_baseline(out, found)
    if not values["quiet"]:
        _print(found)
        say(f"baseline: {out}" + (f"   runs: {path}" if path else ""))
    if values["json"]:
        click.echo(json_module.dumps(found.to_json()))


baseline.params = [parameter for parameter in baseline.params if parameter.name not in _LEFT_OUT]


def _refuse_new(ctx: click.Context) -> None:
    refused = given(ctx, ctx.params).keys() - _OF_THE_FILE - {"from_runs"}
    for parameter in ctx.command.params:
        if parameter.name in refused:
            raise UsageError(f"{parameter.opts[0]} is for new runs; with --from-run, the runs say what was asked")


def _print(found: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from bbox.results.check_text import blind, cells
    from bbox.results.verdicts import compare

    facts = found.facts
    title = f"{facts['target']['spec']} on {facts['data']['examples']} examples of {facts['data']['spec']}"
    table = Table(title=Text(title), title_justify="left", min_width=len(title))
    table.add_column("figure")
    for head in ("now", "a check would show a fall of"):
        table.add_column(head, justify="right")
    figures = [figure.to_json() for figure in compare(found, found, found.gates)]
    for figure in figures:
        texts = cells(figure)
        table.add_row(Text(texts[0]), texts[1], texts[6])
    console().print(table)
    for line in blind(figures):
        say(line)
