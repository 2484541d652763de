"""JSON lines: one object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from bbox.data.code.rows import BOM, Row, read_lines
from bbox.errors import InputError

__all__ = ["JsonLines"]

_SPACE = re.compile(r"[ \t\r\n]*")


class JsonLines:
    """Rows as JSON objects. Blank lines are passed over.

    Example:
        >>> JsonLines().replace(b'{"func": "int a;", "target":  1}', "func", "int b;")
        b'{"func": "int b;", "target":  1}'
    """

    def __init__(self) -> None:
        self.head = b""

    def rows(self, path: Path) -> Iterator[Row]:
        for line in read_lines(path):
            if line.number == 1 and line.start:
                self.head = BOM
            text = line.text(path)
            if not text or text.isspace():
                continue
            try:
                fields = json.loads(text)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path}: line {line.number} is no JSON ({error.msg} at column {error.colno})"
                ) from error
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}: line {line.number} is no JSON that is read ({error})"[:300]) from error
            if not isinstance(fields, dict):
                raise InputError(
                    f"{path}: line {line.number} is {text.strip()[:60]!r}, expected an object as in "
                    '{"code": ..., "label": ...}'
                )
            yield Row(line, fields)

    def fields(self, raw: bytes) -> Mapping[str, object]:
        found: Mapping[str, object] = json.loads(raw)
        return found

    def replace(self, raw: bytes, key: str, text: str) -> bytes:
        """Whether characters beyond ASCII are escaped is as in the rest of the row."""
        row = raw.decode("utf-8")
        start, end = _span(row, key)
        return (row[:start] + json.dumps(text, ensure_ascii=row.isascii()) + row[end:]).encode()


def _span(row: str, key: str) -> tuple[int, int]:
    """Where the value of a key stands in the text of a JSON object; of a repeated key the last, which counts."""
    decode, found = json.JSONDecoder().raw_decode, (0, 0)
    place = row.index("{")
    while row[place] != "}":
        name, place = decode(row, _skip(row, place + 1))
        start = _skip(row, _skip(row, place) + 1)
        _, place = decode(row, start)
        if name == key:
            found = (start, place)
        place = _skip(row, place)
    return found


def _skip(row: str, place: int) -> int:
    match = _SPACE.match(row, place)
    return match.end() if match else place
