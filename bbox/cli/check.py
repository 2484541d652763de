"""``bbox check``: hold a model against its baseline; exit code 1 where it fell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bbox.cli.attack_options import RESUME_MAY_CHANGE, given, refuse_changes
from bbox.cli.console import console, new_folder, say, tell
from bbox.cli.options import RunCommand, check_threads, pairs, run_options
from bbox.cli.suite import watcher
from bbox.errors import GateError, UsageError
from bbox.options import HOW

__all__ = ["check"]

_BASELINES = "[default: the baseline's]"
_GATES = ("tolerance", "distance_tolerance", "alpha")
# Options of a run that a check takes too; the baseline says the others.
_TAKEN = ("target", "target_options", "data", "labels", "image_size", "seed")
_HOW = (*HOW, "threads")
_FROM_BASELINE = {
    "target": "What to attack; see bbox list targets.",
    "data": "The data that the baseline was made on, where it lies elsewhere now.",
    "seed": "Everything random follows from it; the baseline's own makes every difference one of the model.",
}
_RESUME_MAY_CHANGE = RESUME_MAY_CHANGE | {"update", "junit", "markdown"}


@click.command(cls=RunCommand)
@click.option("--baseline", type=click.Path(path_type=Path), help="The file that bbox baseline wrote.")
@click.option("--tolerance", type=float, help=f"How far accuracy may fall, e.g. 0.05 for 5 points.  {_BASELINES}")
@click.option(
    "--distance-tolerance", type=float, help=f"How far a median distance may fall, relative, e.g. 0.1.  {_BASELINES}"
)
@click.option("--alpha", type=float, help=f"Chance of a false alarm, over all figures.  {_BASELINES}")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/TIME-check]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder.")
@click.option("--update", is_flag=True, help="Rewrite the baseline with what is found, and end with 0.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML to this file.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Append Markdown to this file.")
@click.option("--json", is_flag=True, help="Print the figures as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def check(ctx: click.Context, /, **values: Any) -> None:
    """Run a baseline's attacks on a model, and end with 1 where its robustness fell.

    Exit codes: 0 every figure holds, 1 one fell, 2 usage, 3 target unavailable (go on with --resume).

    \b
    bbox baseline --attack cgba --budget 500 --epsilon 1.5 --out robustness.json
    bbox check --baseline robustness.json --target torch:my.module:factory
    bbox check --baseline robustness.json --tolerance 0.05 --junit check.xml --markdown "$GITHUB_STEP_SUMMARY"
    """
    from bbox.results.check import run_check

    check_threads(values)
    if values["resume"] is not None:
        refuse_changes(ctx, _RESUME_MAY_CHANGE)
    for name in ("junit", "markdown"):
        if values[name] is not None and not values[name].parent.is_dir():
            raise UsageError(f"--{name} {values[name]}: there is no folder {values[name].parent}")
        if values[name] is not None and values[name].is_dir():
            raise UsageError(f"--{name} {values[name]} is a folder, expected a file")
    path = values["resume"] or values["out"] or new_folder("check")
    results = run_check(
        values["baseline"],
        path,
        changes=_changes(ctx),
        gates={name: values[name] for name in _GATES},
        resume=values["resume"] is not None,
        update=values["update"],
        command=shlex.join(["bbox", *sys.argv[1:]]),
        threads=values["threads"] or "auto",
        watch=watcher(quiet=values["quiet"]),
    )
    tell(results, path, values, print_check)
    _write(results, values)
    if values["update"]:
        say(f"{results['baseline']} is rewritten")
    elif not results["holds"]:
        from bbox.results.check_text import label

        fell = [label(figure) for figure in results["figures"] if figure["fell"]]
        raise GateError(f"fell by more than the tolerance: {'; '.join(fell)}")


def _run_parameters() -> list[click.Parameter]:
    """The options of a run that a check takes."""
    taken: list[click.Parameter] = []
    for parameter in click.command()(run_options(lambda **_: None)).params:
        if parameter.name in _TAKEN + _HOW and isinstance(parameter, click.Option):
            if parameter.name in _FROM_BASELINE:
                parameter.default, parameter.show_default = None, False
                parameter.help = f"{_FROM_BASELINE[parameter.name]}  {_BASELINES}"
            taken.append(parameter)
    return taken


check.params[1:1] = _run_parameters()  # behind --baseline


def _changes(ctx: click.Context) -> dict[str, Any]:
    """The fields of the baseline's configs that the command line replaces."""
    changes = given(ctx, (*_TAKEN, *_HOW))
    changes.pop("threads", None)
    if "labels" in changes:
        changes["labels"] = str(changes["labels"])
    if "target" in changes or "target_options" in changes:
        changes["target_options"] = pairs("--set", changes.get("target_options", ()))
    return changes


def _write(results: dict[str, Any], values: dict[str, Any]) -> None:
    from bbox.results.check_text import junit, markdown
    from bbox.results.matrix import write_text
    from bbox.results.plain_folder import cannot_write

    if values["junit"] is not None:
        write_text(values["junit"], junit(results))
    if values["markdown"] is not None:
        try:
            with values["markdown"].open("a", encoding="utf-8") as page:  # a job's summary has other steps' text too
                page.write(markdown(results))
        except OSError as error:
            raise cannot_write(values["markdown"], error) from error


def print_check(results: dict[str, Any], path: Path) -> None:
    """The table of a check, and the examples that fell, on stderr."""
    from rich.table import Table
    from rich.text import Text

    from bbox.results.check_text import HEADS, NOTE, blind, cells, fallen_lines, label, title

    table = Table(title=Text(title(results)), caption=NOTE, title_justify="left", caption_justify="left")
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("figure", "verdict") else "right")
    for figure in results["figures"]:
        table.add_row(*map(Text, cells(figure)), style="red" if figure["fell"] else None)
    console().print(table)
    for line in blind(results["figures"]):
        say(line)
    for figure in results["figures"]:
        if figure["fell"]:
            say(f"{label(figure)}: {len(figure['fallen'])} examples are worse")
            for line in fallen_lines(figure):
                say(f"  {line}")
    say("queries: " + ", ".join(f"{purpose} {count:,}" for purpose, count in results["queries"].items()))
    for line in _bills(path):
        say(line)
    say(f"folder: {path}")


def _bills(path: Path) -> Iterator[str]:
    """What a live target charges for each attack."""
    from bbox.report.bill import bill
    from bbox.results.check import CheckFolder
    from bbox.results.store import RunFolder

    for part in CheckFolder.open(path).parts():
        with RunFolder.open(path / part.folder) as run:
            text = bill(run)
        if text:
            yield f"{part.name}: {text}"
