"""The matrix as text: two tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bbox.results.matrix_text import NOTES, cell_heads, cell_texts, cost_texts, title, warnings

__all__ = ["matrix_lines", "matrix_tables", "print_matrix"]


def print_matrix(matrix: dict[str, Any], to: Console) -> None:
    """Print it."""
    if to.is_terminal:
        for table in matrix_tables(matrix):
            to.print(table)
    else:
        for line in matrix_lines(matrix):
            to.print(line, soft_wrap=True, markup=False)
    for note in (*NOTES, *warnings(matrix)):
        to.print(note, soft_wrap=True, markup=False)


def matrix_tables(matrix: dict[str, Any]) -> tuple[Table, Table]:
    """Attacks on each row, and what each row costs and is worth."""
    epsilons = matrix["epsilons"]
    attacks = Table(title=title(matrix), title_justify="left")
    for name in ("defense", "attack"):
        attacks.add_column(name)
    for name in cell_heads(matrix):
        attacks.add_column(name, justify="right")
    for row in matrix["rows"]:
        for place, cell in enumerate(row["cells"]):
            cells = cell_texts(row, cell, epsilons)
            shown = cells if len(cells) > 1 else [*cells, *[""] * (len(attacks.columns) - 3)]
            attacks.add_row(
                "" if place else row["name"],
                cell["attack"],
                *shown,
                style="bold" if any("*" in text for text in cells) else None,
                end_section=cell is row["cells"][-1],
            )
    rows = Table(title="what each defense costs, and is worth", title_justify="left")
    for name in ("defense", *(name for name, _ in cost_texts(matrix["rows"][0], epsilons))):
        rows.add_column(name, justify="left" if name == "defense" else "right")
    for row in matrix["rows"]:
        rows.add_row(row["name"], *(text for _, text in cost_texts(row, epsilons)))
    return attacks, rows


def matrix_lines(matrix: dict[str, Any]) -> Iterator[str]:
    """One line a row and attack, then one a row."""
    epsilons = matrix["epsilons"]
    heads = cell_heads(matrix)
    yield title(matrix)
    for row in matrix["rows"]:
        for cell in row["cells"]:
            texts = cell_texts(row, cell, epsilons)
            if len(texts) == 1:
                yield f"{row['name']} x {cell['attack']}: {texts[0]}"
                continue
            named = zip(heads, texts, strict=True)
            yield f"{row['name']} x {cell['attack']}: " + ", ".join(f"{n} {t}" for n, t in named if t != "-")
    for row in matrix["rows"]:
        yield f"{row['name']}: " + ", ".join(
            f"{name} {text}" for name, text in cost_texts(row, epsilons) if text != "-"
        )
