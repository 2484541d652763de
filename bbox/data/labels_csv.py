"""A CSV file of labels: the columns file and label for a folder, or one label a row for arrays."""

from __future__ import annotations

import csv
from pathlib import Path

from bbox.errors import InputError
from bbox.registry import did_you_mean

__all__ = ["read_label_column", "read_labels"]

_FILE = ("file", "filename", "file_name", "path", "image", "name", "id")
_LABEL = ("label", "labels", "class", "class_id", "target", "y")


def read_labels(table: Path, folder: Path, names: list[str]) -> tuple[list[int], tuple[str, ...] | None]:
    """The label of each image of a folder, and the class names where labels are names.

    A first row of column names is detected. Labels that are all integers are class indices. Names get the
    indices of the folder's ``classes.txt`` (one name a line) where there is one, else of their sorted order.

    Raises:
        InputError: the file is missing or unreadable, names images that are not there or twice, leaves images
            out, or uses an unknown class name.
    """
    rows = _rows(table)
    head = [cell.lower() for cell in rows[0][1]]
    file_column, label_column, start = 0, 1, 0
    if set(head) & set(_LABEL) and set(head) & set(_FILE):
        file_column = next(i for i, cell in enumerate(head) if cell in _FILE)
        label_column = next(i for i, cell in enumerate(head) if cell in _LABEL)
        start = 1
    known, texts = set(names), dict[str, str]()
    for line, cells in rows[start:]:
        if len(cells) <= max(file_column, label_column) or not cells[label_column]:
            raise InputError(f"{table}: line {line} is {','.join(cells)!r}, expected file,label")
        name = cells[file_column].replace("\\", "/").removeprefix("./")
        if name not in known:
            raise InputError(f"{table}: line {line} names {name!r}, which is no image in {folder}")
        if name in texts:
            raise InputError(f"{table}: line {line} names {name!r} a second time")
        texts[name] = cells[label_column]
    left = [name for name in names if name not in texts]
    if left:
        raise InputError(
            f"{table}: labels {len(texts)} of {len(names)} images; {left[0]} has none (remove it or label it)"
        )
    return _numbers(table, [texts[name] for name in names], folder / "classes.txt")


def read_label_column(table: Path) -> list[int]:
    """Integer labels, one a row, from the column that is named label or from the only column.

    Raises:
        InputError: the file is missing or unreadable, or a label is no integer.
    """
    rows = _rows(table)
    head = [cell.lower() for cell in rows[0][1]]
    columns = [i for i, cell in enumerate(head) if cell in _LABEL]
    if not columns and len(head) != 1:
        raise InputError(f"{table}: has {len(head)} columns, expected one, or one named label")
    column, labels = (columns or [0])[0], []
    for line, cells in rows[1 if columns else 0 :]:
        text = cells[column] if column < len(cells) else ""
        if not _whole(text):
            raise InputError(f"{table}: line {line} has the label {text!r}, expected an integer")
        labels.append(int(text))
    return labels


def _rows(table: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, each with its line number."""
    if not table.is_file():
        raise InputError(f"labels {table}: no such file")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels {table}: not a readable UTF-8 CSV file ({error})") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise InputError(f"labels {table}: the file is empty")
    return rows


def _numbers(table: Path, texts: list[str], classes: Path) -> tuple[list[int], tuple[str, ...] | None]:
    listed: tuple[str, ...] | None = None
    if classes.is_file():
        lines = [line.strip() for line in classes.read_text(encoding="utf-8-sig").splitlines()]
        listed = tuple(line for line in lines if line)
    if all(_whole(text) for text in texts):
        numbers = [int(text) for text in texts]
        if listed is not None and max(numbers) >= len(listed):
            raise InputError(f"{table}: label {max(numbers)} is not below the {len(listed)} names in {classes}")
        return numbers, listed
    if listed is None:
        mixed = next((text for text in texts if _whole(text)), None)
        if mixed is not None:
            other = next(text for text in texts if not _whole(text))
            raise InputError(f"{table}: labels mix numbers and names, for example {mixed!r} and {other!r}")
        listed = tuple(sorted(set(texts)))
    for text in texts:
        if text not in listed:
            raise InputError(f"{table}: class {text!r} is not in {classes}{did_you_mean(text, listed)}")
    return [listed.index(text) for text in texts], listed


def _whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()
