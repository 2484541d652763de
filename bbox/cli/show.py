"""``bbox show RUN``: the table of a run, computed again from what is on disk."""

from __future__ import annotations

import importlib
import json as json_module
from pathlib import Path
from typing import Any

import click

from bbox.cli.console import code_lines, console, figures_table, say
from bbox.errors import InputError, UsageError

__all__ = ["print_run", "show"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", is_flag=True, help="Print the results as JSON on stdout.")
@click.option("--mlm", help="Code: judge the new names by this masked language model (a folder or a hub id).")
def show(run: Path, json: bool, mlm: str | None) -> None:
    """Print the table of a run again, finished or not."""
    from bbox.results.plain_folder import kind_of
    from bbox.results.run import figures
    from bbox.results.store import RunFolder

    kind = kind_of(run)
    if mlm is not None and kind in _PRINTERS:
        raise UsageError(f"--mlm judges the names of an attack on code, and {run} is no attack")
    if kind in _PRINTERS:
        _show_other(run, kind, json)
        return
    with RunFolder.open(run) as folder:
        results = figures(folder)
        if mlm is not None:
            from bbox.results.code_names import judge_names

            results["code"]["masked_lm"] = judge_names(folder, mlm)
        if json:
            click.echo(json_module.dumps({"run": str(run), **results}))
        else:
            print_run(folder, results)


# Runs of other commands: the file with their figures, and who prints it.
_PRINTERS = {
    "defend": ("results.json", "bbox.cli.defend", "print_fit"),
    "certify": ("results.json", "bbox.cli.certify", "print_certificate"),
    "rename-smoothing": ("results.json", "bbox.cli.rename_smoothing", "print_smoothing"),
    "adversarial-finetune": ("results.json", "bbox.cli.finetune", "print_finetune"),
    "craft": ("results.json", "bbox.cli.smi", "print_craft"),
    "matrix": ("matrix.json", "bbox.cli.matrix_table", "print_matrix"),
    "check": ("check.json", "bbox.cli.check", "print_check"),
}


def _show_other(run: Path, kind: str, json: bool) -> None:
    name, module, printer = _PRINTERS[kind]
    try:
        results = json_module.loads((run / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        command = {"certify": "certify", "check": "check", "craft": "attack"}.get(kind, "defend")
        raise InputError(f"{run} is not complete: go on with  bbox {command} --resume {run}") from error
    except ValueError as error:
        raise InputError(f"{run / name} cannot be read: {error}") from error
    if json:
        click.echo(json_module.dumps({"run": str(run), **results}))
    else:
        where = console() if kind == "matrix" else run
        getattr(importlib.import_module(module), printer)(results, where)


def print_run(folder: Any, results: dict[str, Any]) -> None:
    """Print a run's table and its costs on stderr."""
    from bbox.report.bill import bill
    from bbox.results.records import SCHEMA_VERSION

    version = folder.run().get("schema_version", 1)
    if version < SCHEMA_VERSION:
        say(f"{folder.path} has schema {version}, from before there were norms: its distances are l2")
    summary = results["summary"]
    console().print(figures_table(results, folder.run()["data"].get("kind", "images")))
    for line in code_lines(results["code"]) if "code" in results else ():
        say(line)
    png = summary["png"]
    if png["written"]:
        median = "-" if png["median_distance"] is None else f"{png['median_distance']:.3f}"
        say(f"8-bit PNG: {png['succeeded']} of {png['written']} still adversarial, median {results['norm']} {median}")
    say("stopped: " + ", ".join(f"{reason} {count}" for reason, count in summary["stop_reasons"].items()))
    clean = summary["clean_accuracy"]
    if clean is not None and results["complete"]:  # wrong images are on record first: too low until then
        say(f"clean accuracy {100 * clean:.1f}%; {summary['already_wrong']} wrong from the start, not attacked")
    say(costs(folder, summary["attack_queries"]))
    billed = bill(folder)
    if billed:
        say(billed)
    if not results["complete"]:
        say(f"not complete, the figures cover what is finished: go on with  bbox attack --resume {folder.path}")
    report = folder.path / "report.html"
    say(f"run folder: {folder.path}" + (f"   report: {report}" if report.exists() else ""))


def costs(folder: Any, attack_queries: int) -> str:
    """Queries and time of all sessions, in one line."""
    from bbox.results.costs import total_ledger

    sessions = folder.sessions()
    total = total_ledger(sessions)
    replayed = sum(ledger["replayed"] for ledger in total.values())
    text = f"queries: attack {attack_queries:,}"
    text += "".join(f", {name} {ledger['queries']:,}" for name, ledger in sorted(total.items()) if name != "attack")
    if replayed:
        text += f" ({replayed:,} replayed from the journal, not asked again)"
    seconds = sum(session.get("attack_seconds", 0.0) for session in sessions)
    whole = sum(session.get("seconds", 0.0) for session in sessions)
    return f"{text}; time: attack {seconds:.1f} s, all {whole:.1f} s"
