"""``bbox attack NAME``: one command an attack, its options read off the attack's class."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from bbox.cli.attack_options import RESUME_MAY_CHANGE, add_fields, chosen_options, given, refuse_changes, resumed
from bbox.cli.console import Display, new_folder, say
from bbox.cli.options import RunCommand, config_from, run_options
from bbox.errors import UsageError
from bbox.options import HOW

__all__ = ["attack"]

_EPSILON = "epsilon"  # an option of attacks at a fixed distance, and of every run as the threshold of its figures

_RUN = [
    click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/TIME-ATTACK]"),
    click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder."),
    click.option("--time-limit", type=float, help="Stop after this many seconds with what is found."),
    click.option("--report/--no-report", default=True, help="Write report.html.  [default: report]"),
    click.option("--json", is_flag=True, help="Print the results as JSON on stdout."),
    click.option("--quiet", is_flag=True, help="No progress and no table."),
]


class _Attacks(click.Group):
    """Builds the command of an attack from its class when it is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``bbox attack --resume RUN ...`` is the command of the attack that RUN is of, with all its options."""
        path = resumed(args)
        return super().parse_args(ctx, args if path is None else [*_attack_of(path), *args])

    def list_commands(self, ctx: click.Context) -> list[str]:
        from bbox.attacks import ATTACKS

        return list(ATTACKS.names())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if _asks_nothing(name):
            from bbox.cli.smi import craft_command

            return craft_command(name)
        return _command(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from bbox.attacks import ATTACKS, WRAPPERS

        rows = [(name, ATTACKS.entry(name).summary) for name in ATTACKS.names()]
        rows.append(("foolbox:CLASS", "any decision-based attack of foolbox, under the same budget"))
        rows += [(f"{name}:ATTACK", f"any attack, {WRAPPERS.entry(name).summary}") for name in WRAPPERS.names()]
        with formatter.section("Attacks"):
            formatter.write_dl(rows)


@click.group(cls=_Attacks, invoke_without_command=True)
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder.")
@click.option("--json", is_flag=True, help="With --resume: print the results as JSON on stdout.")
@click.pass_context
def attack(ctx: click.Context, resume: Path | None, json: bool) -> None:
    """Attack a target under a hard query budget, into a run folder.

    \b
    bbox attack cgba                                   the embedded digits model and data
    bbox attack cgba --target torch:my.module:factory --data photos/
    bbox attack cgba --target http://HOST/v2/models/NAME --data photos/ --max-requests 5000
    bbox attack cgba --help                            its options
    bbox attack --resume runs/...                      go on with an interrupted run
    """
    if ctx.invoked_subcommand is not None:
        if resume is not None:
            raise UsageError("give --resume after the attack's name, or without one")
        return
    if resume is None:
        click.echo(ctx.get_help(), err=True)
        raise UsageError("name an attack, for example: bbox attack cgba")
    values = {"json": json, "quiet": False, "report": True}
    from bbox.results.plain_folder import kind_of

    if kind_of(resume) == "craft":
        from bbox.cli.smi import resume_craft

        resume_craft(resume, values)
    else:
        _resume(resume, values)


def _attack_of(path: Path) -> list[str]:
    """The name of the attack whose run folder this is; nothing where it is none, which is an error later."""
    from bbox.results.plain_folder import kind_of

    try:
        name = json.loads((path / "run.json").read_text(encoding="utf-8"))["config"]["attack"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [name] if isinstance(name, str) and kind_of(path) in (None, "craft") else []


def _asks_nothing(name: str) -> bool:
    """Whether an attack needs no target: a no-box attack has a command of its own."""
    from bbox.attacks import ATTACKS, attack_class

    return name in ATTACKS.names() and attack_class(name).access == "none"


def _command(name: str) -> click.Command:
    from bbox.attacks.options import describe

    fields, presets, summary = describe(name)

    def run(**values: Any) -> None:
        if _EPSILON in fields:
            values[_EPSILON] = _one_epsilon(name, values["epsilons"])
        chosen = chosen_options(values, fields)
        if values["resume"] is not None:
            refuse_changes(click.get_current_context(), RESUME_MAY_CHANGE)
            _resume(values["resume"], values, name)
            return
        _start(config_from(name, chosen, values), values)

    command: Any = run
    for option in reversed(_RUN):
        command = option(command)
    command = run_options(command)
    command = add_fields(command, fields, presets, skip=(_EPSILON,))
    made: RunCommand = click.command(name, cls=RunCommand, help=f"{summary[:1].upper()}{summary[1:]}.")(command)
    made.own = {*fields, "preset"} - {_EPSILON}
    for parameter in made.params:
        if isinstance(parameter, click.Option) and parameter.name == "epsilons" and _EPSILON in fields:
            parameter.help = f"Distance to attack at, and for ASR and robust accuracy. {fields[_EPSILON][1]}".strip()
    return made


def _one_epsilon(name: str, given: tuple[float, ...]) -> float | None:
    """The distance that an attack at a fixed one is given; it is the threshold of the figures too."""
    if len(given) > 1:
        raise UsageError(f"{name} attacks at one distance; give --epsilon once")
    return given[0] if given else None


def _start(config: Any, values: dict[str, Any]) -> None:
    from bbox.results.session import describe_run, load_plan
    from bbox.results.store import RunFolder

    plan = load_plan(config)
    out = values["out"] or new_folder(config.attack.replace(":", "-"))
    with RunFolder.create(out, describe_run(plan, shlex.join(["bbox", *sys.argv[1:]]))) as folder:
        _execute(plan, folder, values)


def _resume(path: Path, values: dict[str, Any], name: str | None = None) -> None:
    from dataclasses import replace

    from bbox.results.records import Config
    from bbox.results.session import check_same, load_plan
    from bbox.results.store import RunFolder

    with RunFolder.open(path) as folder:
        config = Config.from_json(folder.run()["config"])
        if name is not None and name != config.attack:
            raise UsageError(f"{path} is a run of {config.attack}, not of {name}")
        changed = given(click.get_current_context(), HOW)
        plan = load_plan(replace(config, **changed), used_requests=folder.requests())
        check_same(plan, folder)
        _execute(plan, folder, values)


def _execute(plan: Any, folder: Any, values: dict[str, Any]) -> None:
    from bbox.results.run import execute

    with Display(quiet=values["quiet"]) as display:
        results = execute(
            plan,
            folder,
            on_progress=display,
            time_limit=values.get("time_limit"),
            threads=values.get("threads") or "auto",
        )
    if values["report"]:
        from bbox.report import write_report

        write_report(folder)
    if not values["quiet"]:
        from bbox.cli.show import print_run

        print_run(folder, results)
    if values["json"]:
        click.echo(json.dumps({"run": str(folder.path), **results}))
    elif values["quiet"]:
        say(str(folder.path))
