"""Options that are read off an attack's class, and what may not change on ``--resume``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import click

from bbox.errors import UsageError

__all__ = ["RESUME_MAY_CHANGE", "add_fields", "refuse_changes"]

# What may differ between a run and its resume: how it is computed and shown, never what is asked.
RESUME_MAY_CHANGE = frozenset(
    {"resume", "json", "quiet", "threads", "max_batch", "device", "trust", "report", "time_limit"}
)


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


def refuse_changes(ctx: click.Context, allowed: Collection[str]) -> None:
    """Refuse an option that was given beside ``--resume`` and says what is asked.

    Raises:
        UsageError: as it says.
    """
    given = click.core.ParameterSource.COMMANDLINE
    for parameter in ctx.params:
        if ctx.get_parameter_source(parameter) == given and parameter not in allowed:
            option = parameter.replace("_", "-")
            raise UsageError(f"--{option} cannot change on --resume; the run folder says what was asked")
