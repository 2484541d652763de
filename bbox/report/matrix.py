"""The page of a matrix: one offline file with the table, and links to the page of each run."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from bbox.results.matrix_text import NOTES, cell_heads, cell_texts, cost_texts, title, warnings

__all__ = ["matrix_page"]


def matrix_page(matrix: dict[str, Any], folder: Path) -> str:
    """The page, to be written into the matrix's folder. Every name in it is escaped; it holds no script."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files(__package__).joinpath("matrix.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title(matrix),
        complete=matrix["complete"],
        heads=cell_heads(matrix),
        rows=[_row(row, matrix, folder) for row in matrix["rows"]],
        costs=[name for name, _ in cost_texts(matrix["rows"][0], matrix["epsilons"])],
        notes=[*NOTES, *warnings(matrix)],
        queries=[(purpose, f"{count:,}") for purpose, count in matrix["queries"].items()],
        seed=matrix["seed"],
    )
    # A file name that is not UTF-8 comes as lone surrogates, which no page can hold.
    return (page + "\n").encode("utf-8", "replace").decode("utf-8")


def _row(row: dict[str, Any], matrix: dict[str, Any], folder: Path) -> dict[str, Any]:
    cells = []
    for cell in row["cells"]:
        texts = cell_texts(row, cell, matrix["epsilons"])
        report = f"{cell['run']}/report.html"
        cells.append(
            {
                "attack": cell["attack"],
                "link": quote(report) if cell["run"] and (folder / report).is_file() else "",
                "texts": texts,
                "worst": any("*" in text for text in texts),
            }
        )
    return {
        "name": row["name"],
        "layers": row["layers"],
        "cells": cells,
        "costs": [text for _, text in cost_texts(row, matrix["epsilons"])],
    }
