"""Options that are read off the class of an attack or a defense, and what may not change on ``--resume``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bbox.errors import UsageError
from bbox.options import HOW

__all__ = ["RESUME_MAY_CHANGE", "add_fields", "chosen_options", "given", "refuse_changes", "resumed"]

# What may differ between a run and its resume: how it is computed, and how it is shown.
RESUME_MAY_CHANGE = frozenset({*HOW, "resume", "json", "quiet", "threads", "report", "time_limit"})


def add_fields(
    command: Any, fields: Mapping[str, tuple[Any, str]], presets: Collection[str], *, skip: Collection[str] = ()
) -> Any:
    """Give a command one option a field of the attack's class, and ``--preset``."""
    for field, (default, told) in reversed(list(fields.items())):
        if field in skip:
            continue
        kind = "VALUE" if default is None else type(default).__name__.upper()
        shown = f"{told}  [{'required' if default is None else f'default: {default}'}]".strip()
        command = click.option(f"--{field.replace('_', '-')}", field, metavar=kind, help=shown)(command)
    if presets:
        command = click.option("--preset", help=f"Named attack options: {', '.join(presets)}.")(command)
    return command


def chosen_options(values: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The options of an attack or a defense that were given, ``preset`` among them; taken out of the parsed ones."""
    chosen = {field: values.pop(field) for field in fields}
    chosen["preset"] = values.pop("preset", None)
    return {field: value for field, value in chosen.items() if value is not None}


def refuse_changes(ctx: click.Context, allowed: Collection[str], **told: str) -> None:
    """Refuse what was given beside ``--resume`` and says what is asked.

    Args:
        told: how an argument that is no option is called, by its name.

    Raises:
        UsageError: as it says.
    """
    known = {parameter.name: parameter for parameter in ctx.command.params}
    for name in given(ctx, ctx.params):
        if name not in allowed:
            what = told.get(name) or max(known[name].opts, key=len)
            raise UsageError(f"{what} cannot change on --resume; the run folder says what was asked")


def resumed(args: Sequence[str]) -> Path | None:
    """The folder that a command without a name is to go on with: ``--resume FOLDER``, with or without other options."""
    place = args.index("--resume") + 1 if "--resume" in args else len(args)
    return Path(args[place]) if args and args[0].startswith("-") and place < len(args) else None


def given(ctx: click.Context, names: Iterable[str]) -> dict[str, Any]:
    """The values of these options that stand on the command line."""
    source = click.core.ParameterSource.COMMANDLINE
    return {name: ctx.params[name] for name in names if ctx.get_parameter_source(name) == source}
