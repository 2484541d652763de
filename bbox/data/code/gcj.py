r"""ALERT's format of Google Code Jam files: ``code <CODESPLIT> label``, a program a line with ``\n`` for its line ends.

The escape is ambiguous: a line end is written as backslash and n, and a backslash and n that stood in a string of the
source are left as they are. ALERT's own loader (``escapes=all``) makes a line end of both, so that strings fall apart:
of its 660 Python programs 523 then parse without an error (tree-sitter-python 0.25). Where those within one-line
strings are left alone (``escapes=strings``), 652 do. Writing puts both back to the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from bbox.data.code.rows import BOM, Row, read_lines
from bbox.errors import InputError

__all__ = ["MARK", "Escapes", "Gcj", "escape", "unescape"]

MARK = "<CODESPLIT>"
Escapes = Literal["auto", "none", "strings", "all"]

_STRING = r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'"
_PYTHON = re.compile(r"(?P<long>\"\"\".*?\"\"\"|'''.*?''')" + rf"|(?P<string>{_STRING})|#(?:(?!\\n).)*|\\n", re.DOTALL)
_OTHERS = re.compile(r"(?P<long>/\*.*?\*/|`[^`]*`)" + rf"|(?P<string>{_STRING})|//(?:(?!\\n).)*|\\n", re.DOTALL)


class Gcj:
    """Rows as the fields code (escaped as it stands) and label."""

    def __init__(self) -> None:
        self.head = b""

    def rows(self, path: Path) -> Iterator[Row]:
        for line in read_lines(path):
            if line.number == 1 and line.start:
                self.head = BOM
            text = line.text(path)
            if not text or text.isspace():
                continue
            if f" {MARK} " not in text:
                raise InputError(f"{path}: line {line.number} has no ' {MARK} ', expected: code {MARK} label")
            yield Row(line, _fields(text))

    def fields(self, raw: bytes) -> Mapping[str, object]:
        return _fields(raw.decode("utf-8"))

    def replace(self, raw: bytes, key: str, text: str) -> bytes:
        row = raw.decode("utf-8")
        return (text + row[row.rindex(f" {MARK} ") :]).encode()


def unescape(code: str, language: str, escapes: Escapes) -> str:
    r"""The program behind its escapes: ``all`` as ALERT reads it, ``strings`` leaves ``\n`` within one-line strings.

    Example:
        >>> unescape(r"print 'a\n'\nx = 1", "python", "strings")
        "print 'a\\n'\nx = 1"
    """
    if escapes == "none":
        return code
    if escapes == "all":
        return code.replace(r"\n", "\n")

    def read(match: re.Match[str]) -> str:
        return match[0] if match["string"] else match[0].replace(r"\n", "\n")

    return (_PYTHON if language == "python" else _OTHERS).sub(read, code)


def escape(code: str, escapes: Escapes) -> str:
    """The inverse of ``unescape``."""
    return code if escapes == "none" else code.replace("\n", r"\n")


def _fields(text: str) -> Mapping[str, object]:
    code, _, label = text.rpartition(f" {MARK} ")
    return {"code": code, "label": label.strip()}
