"""``bbox attack smi``: the no-box attack. It takes no target, so it has a command of its own."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bbox.cli.attack_options import RESUME_MAY_CHANGE, add_fields, chosen_options, refuse_changes
from bbox.cli.console import Line, console, new_folder, say
from bbox.cli.options import check_threads, read_indices
from bbox.errors import UsageError

__all__ = ["craft_command", "print_craft", "resume_craft"]

_DEFAULT_LIMIT = 64
_DEFAULT_DATA = "zoo:motion"

_COLUMNS = {
    "mean mm": ("mean_displacement", ".1f"),
    "max mm": ("max_displacement", ".1f"),
    "bones %": ("bone_change", ".2f"),
    "velocity": ("velocity_change", ".2f"),
    "acceleration": ("acceleration_change", ".2f"),
    "x clean": ("acceleration_ratio", ".2f"),
    "angles out": ("hinges_outside", ".1%"),
}

_OPTIONS = [
    click.option(
        "--data",
        help="Motions, without labels as far as the attack goes: zoo:motion, a .bvh or .skeleton file or a folder of "
        f"them, motion:PATH,key=value.  [default: {_DEFAULT_DATA}, {_DEFAULT_LIMIT} motions]",
    ),
    click.option("--limit", type=int, help="Attack only the first N; the encoder learns from all."),
    click.option("--indices", help="Attack only these motions of the data, e.g. 3,7,10-19."),
    click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it."),
    click.option("--norm", default="linf", show_default=True, help="What --epsilon bounds: linf or l2."),
    click.option(
        "--baselines",
        default="all",
        show_default=True,
        help="Perturbations of the same size beside it: noise, smooth-noise, offset, drift, low-pass; all or none.",
    ),
    click.option("--batch", type=int, default=64, show_default=True, help="Motions attacked side by side."),
    click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]"),
    click.option("--threads", type=int, default=None, help="CPU threads of torch.  [default: all cores]"),
    click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/TIME-smi]"),
    click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder."),
    click.option("--report/--no-report", default=True, help="Write report.html.  [default: report]"),
    click.option("--json", is_flag=True, help="Print the results as JSON on stdout."),
    click.option("--quiet", is_flag=True, help="No progress and no table."),
]


def craft_command(name: str) -> click.Command:
    """The command of a no-box attack."""
    from bbox.attacks.options import describe

    fields, presets, summary = describe(name)

    def run(**values: Any) -> None:
        chosen = chosen_options(values, fields)
        check_threads(values)
        if values["resume"] is not None:
            refuse_changes(click.get_current_context(), RESUME_MAY_CHANGE)
            resume_craft(values["resume"], values, name)
        else:
            _start(name, chosen, values)

    command: Any = run
    for option in reversed(_OPTIONS):
        command = option(command)
    command = add_fields(command, fields, presets)
    text = f"{summary}\n\nIt sees no target and asks no query; bbox evaluate RUN --target ... then says whom it fools."
    made: click.Command = click.command(name, help=text)(command)
    return made


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _start(name: str, chosen: dict[str, Any], values: dict[str, Any]) -> None:
    from bbox.results.craft_config import CraftConfig
    from bbox.results.craft_folder import CraftFolder
    from bbox.results.craft_run import plan_craft

    plain = values["data"] is None and values["limit"] is None and values["indices"] is None
    config = CraftConfig(
        attack=name,
        attack_options=chosen,
        data=values["data"] or _DEFAULT_DATA,
        limit=_DEFAULT_LIMIT if plain else values["limit"],
        indices=read_indices(values["indices"]),
        seed=values["seed"],
        norm=values["norm"],
        baselines=_baselines(values["baselines"]),
        batch=values["batch"],
        device=values["device"],
    )
    plan = plan_craft(config)
    out = values["out"] or new_folder(name)
    folder = CraftFolder.create(out, plan.describe(shlex.join(["bbox", *sys.argv[1:]])))
    _execute(plan, folder, values)


def _baselines(text: str) -> tuple[str, ...]:
    from bbox.results.craft_run import ALL_BASELINES

    if text == "all":
        return tuple(ALL_BASELINES)
    return () if text == "none" else tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def resume_craft(path: Path, values: dict[str, Any], name: str | None = None) -> None:
    """Go on with a no-box run."""
    from dataclasses import replace

    from bbox.results.craft_folder import CraftFolder
    from bbox.results.craft_run import plan_craft

    folder = CraftFolder.open(path)
    config = folder.config()
    if name is not None and name != config.attack:
        raise UsageError(f"{path} is a run of {config.attack}, not of {name}")
    changed = {"device": values["device"]} if values.get("device") else {}
    _execute(plan_craft(replace(config, **changed)), folder, values)


def _execute(plan: Any, folder: Any, values: dict[str, Any]) -> None:
    import torch

    from bbox.results.craft_run import execute_craft

    if values.get("threads"):
        torch.set_num_threads(values["threads"])
    line = None if values["quiet"] else Line()

    def told(what: str, done: int, total: int) -> None:
        if line is not None:
            line(f"{what} {done:,} of {total:,}")

    try:
        results = execute_craft(plan, folder, report=told)
    finally:
        if line is not None:
            line.close()
    if values["report"]:
        from bbox.report import write_craft_report

        write_craft_report(folder)
    if not values["quiet"]:
        print_craft(results, folder.path)
    if values["json"]:
        click.echo(json.dumps({"run": str(folder.path), **results}))
    elif values["quiet"]:
        say(str(folder.path))


def print_craft(results: dict[str, Any], path: Path) -> None:
    """The table of a no-box run: a row a method, what it does to the motions; and fooling rates once they are there."""
    from bbox.cli.evaluate import print_evaluation
    from bbox.results.craft_folder import CraftFolder

    folder = CraftFolder.open(path)
    config = folder.config()
    run = folder.run()
    count = run["data"]["examples"]
    say(f"{config.attack} on {run['data']['name']}: {count} motions, no target asked")
    table = Table()
    table.add_column("method", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for method, figures in results["methods"].items():
        table.add_row(
            config.attack if method == "adversarial" else method,
            *[_number(figures[name], form) for name, form in _COLUMNS.values()],
        )
    console().print(table)
    say("displacement of a joint, change of bones, of velocity (mm a frame) and of acceleration (mm a frame squared)")
    encoder = results.get("encoder")
    if encoder is not None and encoder.get("warning"):
        say(f"warning: {encoder['warning']}")
    say("queries of the attack: 0")
    evaluation = folder.read("evaluation.json")
    if evaluation is None:
        say(f"next: bbox evaluate {shlex.quote(str(path))} --target zoo:st-gcn")
        say(f"run folder: {path}   report: {path / 'report.html'}")
    else:
        print_evaluation(path, evaluation)
