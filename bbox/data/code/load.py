"""``code:PATH``: which format a path has, and its options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bbox.code.languages import language_of
from bbox.data.base import CodeSet
from bbox.data.code.files import load_source_files, visible_files
from bbox.data.code.gcj import MARK, Escapes, Gcj
from bbox.data.code.jsonl import JsonLines
from bbox.data.code.pairs import load_pair_files
from bbox.data.code.records import CODE_KEYS, Fields, load_records
from bbox.data.code.rows import read_lines
from bbox.data.code.table import Table, column_names
from bbox.data.options import read_options
from bbox.errors import InputError, UsageError
from bbox.options import read_option

__all__ = ["load_code", "looks_like_code"]

FormatName = Literal["auto", "jsonl", "csv", "gcj", "pairs", "files"]

_EXPECTED = "a .jsonl or .csv, a .txt of pairs or of Google Code Jam, a source file or a folder of them"


def load_code(path: Path, *, format: FormatName = "auto", **options: str) -> CodeSet:
    """Load programs from a file or a folder; its ``origin`` writes programs back in the format they came in.

    Args:
        format: ``jsonl`` and ``csv`` (rows of code and label, or code1, code2 and label), ``gcj`` (``code <CODESPLIT>
            label``), ``pairs`` (ids of functions in data.jsonl), ``files``; ``auto`` tells it from the path.
        options: those of the format: ``language``, ``label``; ``code`` and ``partner`` where there are rows;
            ``escapes``; ``data`` for pairs.

    Raises:
        UsageError: an option is wrong.
        InputError: the path is missing or refused.
    """
    read_option(f"code:{path}: format", FormatName, format)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected {_EXPECTED}")
    name = _format_of(path) if format == "auto" else format
    if name is None:
        raise InputError(f"{path}: not a kind of code data that is told by its name; give format=NAME: {_EXPECTED}")
    if name != "files" and path.is_dir():
        raise UsageError(f"{path} is a folder, which format={name} does not read")
    loader = _LOADERS[name]
    return loader(path, **read_options(f"code:{path} ({name})", loader, options))


def looks_like_code(path: Path) -> bool:
    """Whether data without a prefix is code: a folder of images with a script in it is a folder of images."""
    from bbox.data.images import IMAGE_EXTENSIONS

    if path.is_dir():
        found = False
        for file in visible_files(path):
            if file.suffix.lower() in IMAGE_EXTENSIONS:
                return False
            found = found or language_of(file) is not None
        return found
    return path.is_file() and _format_of(path) is not None


def _format_of(path: Path) -> str | None:
    if path.is_dir() or language_of(path):
        return "files"
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix in (".csv", ".tsv"):
        known = {*CODE_KEYS, *(f"{key}1" for key in CODE_KEYS)}
        return "csv" if known & set(column_names(path)) else None
    if suffix == ".txt":
        line = next((line.raw for line in read_lines(path) if line.raw.strip()), b"")
        if f" {MARK} ".encode() in line:
            return "gcj"
        if re.fullmatch(rb"[^\t]+\t[^\t]+(\t[^\t]+)?", line.strip()) and (path.parent / "data.jsonl").is_file():
            return "pairs"
    return None


def _jsonl(
    path: Path,
    *,
    language: str | None = None,
    code: str | None = None,
    partner: str | None = None,
    label: str | None = None,
    escapes: Escapes = "auto",
) -> CodeSet:
    return load_records(path, JsonLines(), Fields(path, language, code, partner, label, escapes))


def _csv(
    path: Path,
    *,
    language: str | None = None,
    code: str | None = None,
    partner: str | None = None,
    label: str | None = None,
    escapes: Escapes = "auto",
) -> CodeSet:
    return load_records(path, Table(), Fields(path, language, code, partner, label, escapes))


def _gcj(path: Path, *, language: str | None = None, label: str | None = None, escapes: Escapes = "strings") -> CodeSet:
    loaded = load_records(path, Gcj(), Fields(path, language, None, None, label, escapes))
    return replace(loaded, class_names=loaded.class_names or _authors(path.parent / "classes.txt", loaded))


def _pairs(
    path: Path,
    *,
    language: str | None = None,
    code: str | None = None,
    label: str | None = None,
    data: Path | None = None,
) -> CodeSet:
    fields = Fields(path, language, code, None, label)
    return load_pair_files(path, path.parent / "data.jsonl" if data is None else data, fields)


def _authors(listing: Path, data: CodeSet) -> tuple[str, ...] | None:
    """Names from ALERT's ``classes.txt`` (``number<TAB>name``), where it lies beside and names every class."""
    if data.labels is None or not listing.is_file():
        return None
    lines = [line.raw.decode("utf-8", "replace").strip().partition("\t") for line in read_lines(listing)]
    named = {number: name for number, _, name in lines if name}
    names = tuple(named.get(str(place), "") for place in range(len(named)))
    return names if all(names) and int(data.labels.max()) < len(names) else None


_LOADERS: Mapping[str, Callable[..., CodeSet]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "gcj": _gcj,
    "pairs": _pairs,
    "files": load_source_files,
}
