"""``bbox evaluate RUN --target ...``: what targets say of a run's adversarial files. No attack sees these answers."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bbox.cli.bill import say_bill
from bbox.cli.console import Line, console, say
from bbox.cli.options import live_options, pairs
from bbox.errors import UsageError

__all__ = ["evaluate", "print_evaluation"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--target", "specs", multiple=True, help="Whom to ask; give it once for each. See bbox list targets.")
@click.option("--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of every target.")
@click.option("--max-batch", type=int, default=64, show_default=True, help="Rows a forward.")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]")
@click.option("--trust", is_flag=True, help="Load model files that can run code (pickles). Only your own.")
@live_options
@click.option("--report/--no-report", default=True, help="Write report.html again (no-box runs).  [default: report]")
@click.option("--json", is_flag=True, help="Print the results as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
def evaluate(run: Path, specs: tuple[str, ...], report: bool, json: bool, quiet: bool, **values: Any) -> None:
    """Measure how far a run's adversarial examples carry: the fooling rate on any number of targets.

    \b
    bbox attack smi --out runs/smi
    bbox evaluate runs/smi --target zoo:st-gcn --target zoo:motion-gru

    The run may be one of bbox attack smi, or of any other attack (then it is the transfer to another target). What
    was asked before is not asked again, so that the same command goes on where it stopped.
    """
    if not specs:
        raise UsageError("give --target, once for each target, for example --target zoo:st-gcn")
    if values["max_batch"] < 1:
        raise UsageError(f"max-batch is {values['max_batch']}, expected at least 1")
    from bbox.results.evaluate_run import evaluate_folder
    from bbox.results.records import LiveConfig

    price = LiveConfig(price_per_1k=values.pop("price_per_1k")).price_per_1k
    options = dict(pairs("--set", values.pop("target_options")))
    line = None if quiet else Line()

    def told(what: str, done: int, total: int) -> None:
        if line is not None:
            line(f"{what} {done:,} of {total:,}")

    try:
        results = evaluate_folder(run, specs, options=options, report=told, **values)
    finally:
        if line is not None:
            line.close()
    if report:
        from bbox.report import write_craft_report
        from bbox.results.craft_folder import CraftFolder
        from bbox.results.plain_folder import kind_of

        if kind_of(run) == CraftFolder.kind:
            write_craft_report(CraftFolder.open(run))
    if not quiet:
        print_evaluation(run, results, price)
    if json:
        click.echo(json_module.dumps({"run": str(run), **results}))


def print_evaluation(run: Path, results: dict[str, Any], price_per_1k: float | None = None) -> None:
    """A table of fooling rates: a row a method, a column a target; then what all targets were asked and sent."""
    from bbox.results.costs import total_ledger

    targets = results["targets"]
    if not targets:
        return
    table = Table()
    table.add_column("fooled: label changed")
    for target in targets:
        accuracy = target["clean_accuracy"]
        right = "" if accuracy is None else f"\nright {100 * accuracy:.1f}%"
        table.add_column(f"{target['target']}{right}", justify="right")
    for method in targets[0]["methods"]:
        table.add_row(method, *[_rate(t["methods"].get(method)) for t in targets])
    console().print(table)
    asked = ", ".join(f"{t['target']} {t['ledger']['evaluate']['queries']:,}" for t in targets)
    say("share of all (of those that the target gets right), 95% Wilson interval of the first")
    say(f"queries, evaluate: {asked}; what is on record is not asked again")
    say_bill({"ledger": total_ledger(targets), "price_per_1k": price_per_1k})
    say(f"run folder: {run}")


def _rate(figures: dict[str, Any] | None) -> str:
    if figures is None or figures["all"]["value"] is None:
        return "-"
    everything, correct = figures["all"], figures["correct"]
    low, high = everything["interval"]
    right = "" if correct is None or correct["value"] is None else f" ({100 * correct['value']:.1f}%)"
    return f"{100 * everything['value']:.1f}%{right} [{100 * low:.1f}, {100 * high:.1f}]"
