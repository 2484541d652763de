"""The HTML report of a run: one file that works offline, computed again from what is on disk."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from bbox.files import write_whole
from bbox.report import code, craft, motion_attack, page
from bbox.results.craft_folder import CraftFolder
from bbox.results.plain_folder import cannot_write
from bbox.results.store import RunFolder

__all__ = ["fill", "render", "render_craft", "write_craft_report", "write_report"]


def write_report(folder: RunFolder) -> Path:
    """Write ``report.html`` into the run folder, whole or not at all, and give its path.

    The same folder gives the same bytes. An unfinished run is reported as such.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder.write_text("report.html", render(folder))
    return folder.path / "report.html"


def write_craft_report(folder: CraftFolder) -> Path:
    """Write ``report.html`` into the folder of a no-box run, whole or not at all, and give its path.

    The same folder gives the same bytes.

    Raises:
        InputError: a file of the folder is missing or cannot be read.
        StorageError: the folder cannot be written.
    """
    path = folder.path / "report.html"
    try:
        write_whole(path, render_craft(folder))
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    return path


def render(folder: RunFolder) -> str:
    """The report as HTML. Every name, id, command and program in it is escaped."""
    run = folder.run()
    if run["config"].get("norm") == "names":
        return fill("code.html.j2", code.describe(folder))
    on_motions = run["data"].get("kind") == "motions"
    return fill("report.html.j2", (motion_attack if on_motions else page).describe(folder))


def render_craft(folder: CraftFolder) -> str:
    """The report of a no-box run as HTML. Every name, id and command in it is escaped."""
    return fill("craft.html.j2", craft.describe(folder))


def fill(name: str, variables: dict[str, Any]) -> str:
    """A template of this package with its variables, every one escaped."""
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template(name).render(variables) + "\n"
    # A file name that is not UTF-8 comes as lone surrogates, which no page can hold.
    return html.encode("utf-8", "replace").decode("utf-8")


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
