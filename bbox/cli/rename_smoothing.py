"""``bbox defend rename-smoothing``: what the defense costs in accuracy, and how many identifiers it certifies."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bbox.cli.attack_options import given, refuse_changes
from bbox.cli.bill import say_bill
from bbox.cli.console import Line, console, new_folder, say, tell
from bbox.cli.options import LIVE, check_threads, live_options, pairs
from bbox.errors import UsageError

__all__ = ["command", "print_smoothing"]

_HOW = ("device", "trust", *LIVE)
_RESUME_MAY_CHANGE = {"resume", "json", "quiet", "threads", *_HOW}
_OWN = ("n", "keep", "names", "answer", "functions", "seed")  # options of the defense


@click.command("rename-smoothing")
@click.option("--target", help="A target of code; see bbox list targets.  [required]")
@click.option("--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of the target.")
@click.option("--data", help="Programs: a folder, .jsonl, .csv, .txt; see bbox list data.  [required]")
@click.option("--limit", type=int, help="Only the first N programs.")
@click.option("--n", type=int, default=16, show_default=True, help="Copies a query.")
@click.option(
    "--keep",
    type=float,
    default=0.0,
    show_default=True,
    help="Part of the identifiers that keep their names in a copy; 0: none, all renames get one answer.",
)
@click.option("--names", default="common", show_default=True, help="New names: common, numbered, or a file of names.")
@click.option("--answer", default="votes", show_default=True, help="votes, or mean (of probabilities).")
@click.option("--functions", is_flag=True, help="Rename what a program itself defines as well.")
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@click.option(
    "--budget",
    type=int,
    default=100_000,
    show_default=True,
    help="Rows of the model in all: 1 + n a program; with --keep the rest samples the ablation certificate.",
)
@click.option("--alpha", type=float, default=0.001, show_default=True, help="Error probability of that certificate.")
@click.option("--max-batch", type=int, help="Rows a forward.  [default: 256]")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]")
@click.option("--threads", type=int, help="CPU threads of torch.  [default: all usable cores]")
@click.option("--trust", is_flag=True, help="Load model files that can run code (pickles). Only your own.")
@live_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/TIME-rename-smoothing]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder.")
@click.option("--json", is_flag=True, help="Print the results as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def command(ctx: click.Context, /, **values: Any) -> None:
    """Answer programs by a vote over random safe renames, and certify how many identifiers cannot change the answer.

    \b
    bbox defend rename-smoothing --target hf-code:DIR --data test.jsonl              every identifier is renamed
    bbox defend rename-smoothing --target hf-code:DIR --data test.jsonl --keep 0.1   a tenth keeps its names
    bbox attack alert --target defended:runs/... --data ...                          attacked like any target
    """
    check_threads(values)
    if values["resume"] is None:
        _start(values)
    else:
        _resume(ctx, values)


def _start(values: dict[str, Any]) -> None:
    from bbox.results.smoothing_run import SmoothingConfig, SmoothingFolder, plan_smoothing

    for name in ("target", "data"):
        if values[name] is None:
            raise UsageError(f"give --{name}; rename-smoothing is for models of code, and none comes with bbox by name")
    keep = ("target", "data", "limit", "seed", "budget", "alpha", "max_batch", *_HOW)
    config = SmoothingConfig(
        options={name: values[name] for name in _OWN},
        target_options=dict(pairs("--set", values["target_options"])),
        **{name: values[name] for name in keep},
    )
    plan = plan_smoothing(config)
    out = values["out"] or new_folder("rename-smoothing")
    _execute(plan, SmoothingFolder.create(out, plan.describe(shlex.join(["bbox", *sys.argv[1:]]))), values)


def _resume(ctx: click.Context, values: dict[str, Any]) -> None:
    from dataclasses import replace

    from bbox.results.smoothing_run import SmoothingFolder, plan_smoothing

    refuse_changes(ctx, _RESUME_MAY_CHANGE)
    folder = SmoothingFolder.open(values["resume"])
    plan = plan_smoothing(replace(folder.config(), **given(ctx, _HOW)), folder)
    folder.check_same(plan)
    _execute(plan, folder, values)


def _execute(plan: Any, folder: Any, values: dict[str, Any]) -> None:
    import torch

    from bbox.calibrate import usable_cores
    from bbox.results.smoothing_run import execute_smoothing

    torch.set_num_threads(values.get("threads") or usable_cores())
    line = Line()
    report = None if values["quiet"] else lambda stage, done, total: line(f"{stage}: {done:,} of {total:,}")
    results = execute_smoothing(plan, folder, report=report)
    line.close()
    tell(results, folder.path, values, print_smoothing)


def print_smoothing(results: dict[str, Any], path: Path) -> None:
    """The table and what must be said beside it, on stderr."""
    certified, ablation = results["certified"], results["ablation"]
    say(f"{results['defense']} on {results['target']}: {results['programs']} programs of {results['data']}")
    if results["labelled"]:
        accuracy = results["accuracy"]
        say(f"accuracy: {_percent(accuracy['plain'])} without, {_percent(accuracy['smoothed'])} with the defense")
    say(f"the same answer with and without: {_percent(results['agreement'])}")
    table = Table()
    table.add_column("renamed identifiers", justify="right")
    table.add_column("certified accuracy" if results["labelled"] else "certified share (no labels)")
    if ablation is not None:
        table.add_column(f"of all copies (alpha {results['alpha']:g}, {results['samples']:,} samples)")
    for place, row in enumerate([*certified["accuracy"], certified["all"]]):
        cells = [str(row.get("identifiers", "all")), _percent(row)]
        if ablation is not None:
            cells.append(_percent([*ablation["accuracy"], ablation["all"]][place]))
        table.add_row(*cells)
    console().print(table)
    median, broken = results["identifiers"]["median"], results["programs"] - results["parse"]
    say(f"certified identifiers: median {certified['median']:g}; a program has {median:g} (median)")
    if broken:
        say(f"nothing is certified for {broken} programs that do not parse")
    say("certified is the vote as it is deployed, exactly, under every safe rename; 95% intervals over programs")
    queries = ", ".join(f"{purpose} {ledger['queries']:,}" for purpose, ledger in sorted(results["ledger"].items()))
    say(f"queries: {queries}; budget {results['budget']:,}")
    say_bill(results)
    say(f"attack it: bbox attack alert --target defended:{path}")


def _percent(share: dict[str, float]) -> str:
    return f"{100 * share['value']:.1f}% [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
