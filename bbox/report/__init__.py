"""The HTML report of a run: one file that works offline, computed again from what is on disk."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from bbox.report import code, page
from bbox.results.store import RunFolder

__all__ = ["render", "write_report"]


def write_report(folder: RunFolder) -> Path:
    """Write ``report.html`` into the run folder, whole or not at all, and give its path.

    The same folder gives the same bytes. An unfinished run is reported as such.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder.write_text("report.html", render(folder))
    return folder.path / "report.html"


def render(folder: RunFolder) -> str:
    """The report as HTML. Every name, id, command and program in it is escaped."""
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    name, describe = ("code.html.j2", code.describe) if _on_code(folder) else ("report.html.j2", page.describe)
    html = environment.get_template(name).render(describe(folder)) + "\n"
    # A file name that is not UTF-8 comes as lone surrogates, which no page can hold.
    return html.encode("utf-8", "replace").decode("utf-8")


def _on_code(folder: RunFolder) -> bool:
    return bool(folder.run()["config"].get("norm") == "names")


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
