"""What people see on stderr: tables and progress, rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bbox.files import unused

if TYPE_CHECKING:
    from bbox.results.run import Progress as RunProgress

__all__ = ["Display", "Line", "code_lines", "console", "figures_table", "new_folder", "say", "tell"]

_PLAIN_SECONDS = 5.0  # between two plain progress lines


def console(*, stdout: bool = False) -> Console:
    """A rich console on stderr (or stdout); 130 columns where that is not a terminal."""
    stream = sys.stdout if stdout else sys.stderr
    width = None if stream.isatty() else int(os.environ.get("COLUMNS", "130"))
    return Console(file=stream, width=width, highlight=False)


def say(text: str) -> None:
    """One plain line on stderr."""
    click.echo(text, err=True)


def new_folder(what: str) -> Path:
    """Where a run is written that is given no ``--out``: a folder that is not there yet."""
    return unused(Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{what}")


def tell(
    results: dict[str, Any], path: Path, values: dict[str, Any], show: Callable[[dict[str, Any], Path], None]
) -> None:
    """End a command: a table on stderr by ``show``; with ``--json`` results on stdout, with ``--quiet`` the folder."""
    if not values["quiet"]:
        show(results, path)
    if values["json"]:
        click.echo(json.dumps({"run": str(path), **results}))
    elif values["quiet"]:
        say(str(path))


class _Watcher(Protocol):
    def __call__(self, progress: RunProgress) -> None: ...


class Display:
    """Live progress of a run: rows a second, queries left, median distance, time left."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._live = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and not quiet
        self._began = time.monotonic()
        self._queries_before: int | None = None
        self._said = 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> Display:
        if self._live:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console(),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("probe", total=None, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        if self.quiet:
            return
        now = time.monotonic()
        if progress.phase == "attack" and self._queries_before is None:
            self._began, self._queries_before = now, progress.queries
        if self._bar is None and now - self._said < _PLAIN_SECONDS:
            return
        text = self._text(progress, now)
        if self._bar is not None:
            total = progress.total if progress.phase == "attack" else None
            self._bar.update(self._task, description=progress.phase, total=total, completed=progress.queries, text=text)
        elif progress.phase == "attack":
            self._said = now
            say(f"{progress.phase}: {text}")

    def _text(self, progress: RunProgress, now: float) -> str:
        if progress.phase != "attack":
            return ""
        rate = (progress.queries - (self._queries_before or 0)) / max(now - self._began, 1e-6)
        distance = f"median distance {median(progress.distances):.3f}" if progress.distances else "median distance -"
        left = max(0, progress.total - progress.queries)
        return f"{rate:,.0f} rows/s  {left:,} queries left  {distance}  {progress.finished}/{progress.examples} done"


def _cell(value: float | None, bounds: Any = None) -> str:
    if value is None:
        return "-"
    text = f"{value:.3f}"
    if bounds and bounds[0] is not None:
        text += f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return text


def figures_table(results: dict[str, Any], kind: str = "images") -> Table:
    """The table of a run: a row a checkpoint.

    Args:
        kind: what the data holds.
    """
    return _code_table(results) if "code" in results else _distance_table(results, kind)


def _code_table(results: dict[str, Any]) -> Table:
    summary, code = results["summary"], results["code"]
    title = (
        f"{results['attack']} on {results['target']}: {summary['attacked']} of {summary['examples']} programs attacked"
    )
    table = Table(title=title, title_justify="left", min_width=len(title))
    for name in ("queries", "valid ASR", "raw ASR", "found", "median names"):
        table.add_column(name, justify="right")
    for row in code["checkpoints"]:
        table.add_row(
            f"{row['queries']:,}",
            _percent(row["valid_asr"]),
            _percent(row["raw_asr"]),
            str(row["found"]),
            _number(row["median_names"]),
        )
    return table


def code_lines(code: dict[str, Any]) -> list[str]:
    """What a run on code says below its table."""
    lines = [
        f"ASR is over the attacked programs, {code['no_identifiers']} without an identifier to rename among them; "
        "valid: verified, and means the same; raw: fooled the target",
        f"queries a program: mean {_number(code['queries_mean'])}, median {_number(code['queries_median'])}; to "
        f"success: mean {_number(code['queries_to_success_mean'])}, median "
        f"{_number(code['queries_to_success_median'])}; {code['repeats']:,} repeats answered from memory",
        f"renamed: {_percent(code['identifier_change_rate'])} of identifiers, {_percent(code['token_change_rate'])} of "
        f"tokens; new names: {_percent(code['names_in_use'])} in use in the data, {_percent(code['same_style'])} in "
        "the style of the old",
    ]
    if code["checks"]:
        checks = ", ".join(f"{name} {count}" for name, count in code["checks"].items())
        lines.append(f"checked: {checks} of {code['valid']} valid successes")
    if code["invalid_files"]:
        lines.append(f"missing or not equivalent, and no success: {code['invalid_files']} saved programs")
    if "masked_lm" in code:
        judged = code["masked_lm"]
        lines.append(
            f"pseudo-perplexity by {judged['model']}: new names {_number(judged['new_names'])}, the same places before "
            f"{_number(judged['old_names'])} (medians)"
        )
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}".removesuffix(".0")


def _distance_table(results: dict[str, Any], kind: str) -> Table:
    summary = results["summary"]
    rows = summary["checkpoints"]
    norm = results["norm"]
    table = Table(
        title=f"{results['attack']} on {results['target']}: "
        f"{summary['attacked']} of {summary['examples']} {kind} attacked",
        caption=f"{norm} with 95% bootstrap intervals. ASR over attacked {kind}; robust accuracy over all.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("queries", justify="right")
    table.add_column("found", justify="right")
    table.add_column(f"median {norm}")
    table.add_column(f"mean {norm}")
    epsilons = [cell["epsilon"] for cell in rows[0]["asr"]] if rows else []
    for epsilon in epsilons:
        table.add_column(f"ASR@{epsilon:.4g}", justify="right")
    for epsilon in epsilons:
        table.add_column(f"robust@{epsilon:.4g}", justify="right")
    for row in rows:
        table.add_row(
            f"{row['queries']:,}",
            str(row["found"]),
            _cell(row["median_distance"], row["median_distance_interval"]),
            _cell(row["mean_distance"], row["mean_distance_interval"]),
            *[_percent(c["value"]) for c in row["asr"]],
            *[_percent(c["value"]) for c in row["robust_accuracy"]],
        )
    return table


class Line:
    """One line that is written over on a terminal, and now and then a plain line elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._said = time.monotonic()

    def __call__(self, text: str, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._said < (0.2 if self._live else _PLAIN_SECONDS):
            return
        self._said = now
        click.echo(f"\r{text}\x1b[K" if self._live else text, err=True, nl=not self._live)

    def close(self) -> None:
        """Clear the line."""
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)
