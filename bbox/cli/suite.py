"""What commands that run several attacks share: where they write, and what they show meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bbox.cli.console import Display, say

__all__ = ["given", "new_folder", "watcher"]


def new_folder(what: str) -> Path:
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{what}"


def given(ctx: click.Context, names: Iterable[str]) -> dict[str, Any]:
    """The values of these options that stand on the command line."""
    source = click.core.ParameterSource.COMMANDLINE
    return {name: ctx.params[name] for name in names if ctx.get_parameter_source(name) == source}


def watcher(*, quiet: bool) -> Any:
    """A display for each attack that runs (``bbox.results.suite.Watch``)."""

    @contextmanager
    def watch(part: Any) -> Iterator[Display]:
        if not quiet:
            say(part.name)
        with Display(quiet=quiet) as display:
            yield display

    return watch
