"""What commands that run several attacks share: what they show meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bbox.cli.console import Display, say

__all__ = ["watcher"]


def watcher(*, quiet: bool) -> Any:
    """A display for each attack that runs (``bbox.results.suite.Watch``)."""

    @contextmanager
    def watch(part: Any) -> Iterator[Display]:
        if not quiet:
            say(part.name)
        with Display(quiet=quiet) as display:
            yield display

    return watch
