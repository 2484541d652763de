"""What commands that run several attacks share: where they write, and what they show meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bbox.cli.console import Display, say

__all__ = ["new_folder", "watcher"]


def new_folder(what: str) -> Path:
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{what}"


def watcher(*, quiet: bool) -> Any:
    """A display for each attack that runs (``bbox.results.suite.Watch``)."""

    @contextmanager
    def watch(part: Any) -> Iterator[Display]:
        if not quiet:
            say(part.name)
        with Display(quiet=quiet) as display:
            yield display

    return watch
