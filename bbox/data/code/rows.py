"""Rows of a file that are read again when they are needed, rather than kept."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bbox.data.code.format import refuse_source
from bbox.errors import InputError
from bbox.files import write_whole

__all__ = ["BOM", "Line", "Places", "Row", "Syntax", "read_lines"]

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file as it stands there, with its end; counted from 1, ``start`` in bytes."""

    number: int
    start: int
    raw: bytes

    def text(self, path: Path) -> str:
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: line {self.number} is not UTF-8 (byte {error.start}: {error.reason})") from error


@dataclass(frozen=True, slots=True)
class Row:
    """One example: the line it starts at, and what it says."""

    line: Line
    fields: Mapping[str, object]


class Syntax(Protocol):
    """How a row's fields stand in a file."""

    @property
    def head(self) -> bytes:
        """What stands before the first row (a byte order mark, column names); known once rows are read."""

    def rows(self, path: Path) -> Iterator[Row]: ...

    def fields(self, raw: bytes) -> Mapping[str, object]:
        """What a row says that was read before."""

    def replace(self, raw: bytes, key: str, text: str) -> bytes:
        """The row with one field replaced, every other byte as it was."""


def read_lines(path: Path) -> Iterator[Line]:
    """Lines with their ends (cut at the newline byte only), without a byte order mark, streamed.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = 0
            for number, raw in enumerate(file, 1):
                skip = len(BOM) if number == 1 and raw.startswith(BOM) else 0
                yield Line(number, start + skip, raw[skip:])
                start += len(raw)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True)
class Places:
    """Where the rows of a file lie: 20 bytes a row, instead of the row."""

    path: Path
    _starts: array[int] = field(default_factory=lambda: array("q"))
    _lengths: array[int] = field(default_factory=lambda: array("q"))
    _sums: array[int] = field(default_factory=lambda: array("I"))

    def add(self, line: Line) -> None:
        self._starts.append(line.start)
        self._lengths.append(len(line.raw))
        self._sums.append(zlib.crc32(line.raw))

    def again(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The bytes of these rows.

        Raises:
            InputError: the file is gone or says something else by now.
        """
        try:
            with self.path.open("rb") as file:
                for row in rows:
                    file.seek(self._starts[row])
                    raw = file.read(self._lengths[row])
                    if zlib.crc32(raw) != self._sums[row]:
                        raise InputError(f"{self.path} changed since it was read; load it again")
                    yield raw
        except OSError as error:
            raise InputError(f"{self.path} cannot be read again ({error.strerror})") from error

    def write(self, folder: Path, head: bytes, rows: Sequence[bytes]) -> Path:
        """A file of this name made of these rows. A row that had no line end gets one where another follows."""
        target = folder / self.path.name
        refuse_source(target, self.path)
        end = b"\r\n" if any(row.endswith(b"\r\n") for row in rows) else b"\n"
        ended = [row if row.endswith(b"\n") or place == len(rows) - 1 else row + end for place, row in enumerate(rows)]
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(target, head + b"".join(ended))
        return target
