"""Tables: CSV with a first row of column names, separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bbox.data.code.format import MAX_BYTES
from bbox.data.code.rows import BOM, Line, Row, read_lines
from bbox.errors import InputError

__all__ = ["Table", "column_names"]

_DELIMITERS = (",", "\t", ";")


class Table:
    """Rows as cells, quoted with ``"`` (RFC 4180). Columns of other data, quoting and line ends stay as they are."""

    def __init__(self) -> None:
        self.head = b""
        self._delimiter = ","
        self._names: list[str] = []

    def rows(self, path: Path) -> Iterator[Row]:
        for line, cells in self._records(path):
            if not self._names:
                self._names = cells
                self.head = (BOM if line.start else b"") + line.raw
                double = next((name for name in cells if cells.count(name) > 1), None)
                if double is not None:
                    raise InputError(f"{path}: two columns are called {double!r}; rename one")
                continue
            if len(cells) != len(self._names):
                raise InputError(
                    f"{path}: line {line.number} has {len(cells)} cells, but there are {len(self._names)} columns "
                    f"({', '.join(self._names)[:100]})"
                )
            yield Row(line, dict(zip(self._names, cells, strict=True)))

    def fields(self, raw: bytes) -> Mapping[str, object]:
        with _long_cells():
            cells = next(csv.reader([raw.decode("utf-8")], delimiter=self._delimiter))
        return dict(zip(self._names, cells, strict=True))

    def replace(self, raw: bytes, key: str, text: str) -> bytes:
        row, column, place = raw.decode("utf-8"), self._names.index(key), 0
        cell = re.compile(rf'"(?:[^"]|"")*"|[^{self._delimiter}\r\n]*')
        for _ in range(column):
            place = _end(cell, row, place) + 1
        end = _end(cell, row, place)
        if row.startswith('"', place) or re.search(rf'[{self._delimiter}"\r\n]', text):
            text = '"' + text.replace('"', '""') + '"'
        return (row[:place] + text + row[end:]).encode()

    def _records(self, path: Path) -> Iterator[tuple[Line, list[str]]]:
        """Each record that is not blank, with the lines it takes as one."""
        first = next(read_lines(path), None)
        if first is None:
            return
        self._delimiter = _delimiter(first.raw.decode("utf-8", "replace"))
        with path.open("rb") as file:
            file.seek(first.start)
            number, start = 1, first.start
            taken: list[str] = []
            texts = io.TextIOWrapper(file, "utf-8", newline="\n")
            reader = csv.reader(_noting(texts, taken), delimiter=self._delimiter, strict=True)
            while (cells := _next(reader, path, number)) is not None:
                raw = "".join(taken).encode()
                if cells:
                    yield Line(number, start, raw), cells
                number, start = number + len(taken), start + len(raw)
                taken.clear()


def column_names(path: Path) -> list[str]:
    """The names in the first row, for telling a table of code from another."""
    first = next(read_lines(path), None)
    header = "" if first is None else first.raw.decode("utf-8", "replace").rstrip("\r\n")
    return [cell.strip('"') for cell in header.split(_delimiter(header))]


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _end(cell: re.Pattern[str], row: str, place: int) -> int:
    match = cell.match(row, place)
    return match.end() if match else place


def _noting(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    """The same lines, each noted when it is taken."""
    for line in lines:
        taken.append(line)
        yield line


def _next(reader: Iterator[list[str]], path: Path, number: int) -> list[str] | None:
    try:
        with _long_cells():
            return next(reader, None)
    except UnicodeDecodeError as error:
        for line in read_lines(path):  # decoding in large pieces is fast, and does not know the line
            line.text(path)
        raise InputError(f"{path}: changed while it was read") from error
    except csv.Error as error:
        raise InputError(f"{path}: the row that starts at line {number} is no CSV ({error})") from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells as long as programs may be; the limit of the csv module is one for the whole process."""
    before = csv.field_size_limit(4 * MAX_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)
