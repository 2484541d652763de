"""What every format of code shares: writing back, the language of a program, and classes from what a file says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from bbox.code.languages import LANGUAGES, language_of, named
from bbox.code.program import Program, Programs
from bbox.data.base import CodeSet
from bbox.errors import InputError, UsageError

__all__ = ["MAX_BYTES", "Format", "checked_code", "code_set", "find_language", "number_labels", "refuse_source"]

MAX_BYTES = 1_000_000
"""The longest program that is read, in bytes of UTF-8. Real sources are shorter; what is longer is data in disguise."""

_ALIASES = {"py": "python", "python3": "python", "c++": "cpp", "js": "javascript", "golang": "go"}
_LANGUAGE_KEYS = ("language", "lang", "programming_language")
_PATH_KEYS = ("path", "file", "filename", "file_name", "func_path")


class Format(Protocol):
    """The format that a ``CodeSet`` came in (its ``origin``): writes programs back with everything else untouched."""

    def write(self, folder: Path, chosen: Sequence[tuple[int, Program]]) -> Path:
        """Write these examples, each with its index in the source and its program now, in this order.

        Files get the names they have in the source. A program that did not change keeps its bytes. Returns the path
        that loads what was written.

        Raises:
            InputError: the source changed since it was read, or the format cannot hold a program.
            UsageError: ``folder`` is where the source lies.
        """


def code_set(
    path: Path,
    programs: Sequence[Program],
    numbers: Sequence[int] | None,
    names: tuple[str, ...] | None,
    ids: Sequence[str],
    origin: Format,
) -> CodeSet:
    """The examples of a source, in its order; ``numbers`` and ``names`` as ``number_labels`` gives them."""
    return CodeSet(
        name=str(path),
        inputs=Programs(programs),
        labels=None if numbers is None else torch.tensor(numbers, dtype=torch.int64),
        indices=torch.arange(len(programs)),
        ids=tuple(ids),
        class_names=names,
        origin=origin,
    )


def checked_code(where: str, code: object) -> str:
    """The code, where it is text that a parser can be given.

    Raises:
        InputError: it is no text, is longer than ``MAX_BYTES``, or holds a lone surrogate.
    """
    if not isinstance(code, str):
        raise InputError(f"{where}: the code is a {type(code).__name__}, expected text")
    try:
        size = len(code) if code.isascii() else len(code.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the code has a lone surrogate at character {error.start}") from error
    if size > MAX_BYTES:
        raise InputError(f"{where}: the code has {size} bytes, more than {MAX_BYTES}; leave it out")
    return code


def find_language(where: str, path: Path, language: str | None, fields: Mapping[str, object]) -> str:
    """The language by the option, else by a row's key ``language``, else by the file name in a row or ``path``.

    Raises:
        UsageError: the option names no known language.
        InputError: the row names no known language, or nothing says one.
    """
    if language is not None:
        name = _ALIASES.get(language.lower(), language.lower())
        named(name)
        return name
    for key in _LANGUAGE_KEYS:
        if isinstance(said := fields.get(key), str) and said:
            name = _ALIASES.get(said.lower(), said.lower())
            if name not in LANGUAGES:
                known = ", ".join(LANGUAGES)
                raise InputError(f"{where}: {key} is {said!r}; known are: {known} (language=NAME overrides it)")
            return name
    paths = [text for key in _PATH_KEYS if isinstance(text := fields.get(key), str)]
    found = next(filter(None, map(language_of, (*paths, path.name))), None)
    if found is None:
        raise InputError(
            f"{where}: nothing says the language; give one, as in code:{path},language=c ({', '.join(LANGUAGES)})"
        )
    return found


def number_labels(path: Path, labels: Sequence[object]) -> tuple[list[int] | None, tuple[str, ...] | None]:
    """Class indices, and class names where labels are names (sorted) or booleans (false, true).

    Whole numbers are class indices, be they numbers, text (``"3"``) or floats (``3.0``). No label at all: ``None``.

    Raises:
        InputError: only some rows have a label, kinds are mixed, or a label is none of these.
    """
    missing = [place for place, label in enumerate(labels) if label is None or label == ""]
    if len(missing) == len(labels):
        return None, None
    if missing:
        raise InputError(f"{path}: row {missing[0] + 1} has no label, but others do; label=none leaves labels out")
    if all(isinstance(label, bool) for label in labels):
        return [int(bool(label)) for label in labels], ("false", "true")
    numbers = [_whole(label) for label in labels]
    whole = [number for number in numbers if number is not None]
    if len(whole) == len(labels):
        return whole, None
    if whole or not all(isinstance(label, str) for label in labels):
        place = next(place for place, number in enumerate(numbers) if number is None)
        other = next((label for label, number in zip(labels, numbers, strict=True) if number is not None), None)
        beside = "" if other is None else f" beside {other!r}"
        raise InputError(
            f"{path}: row {place + 1} has the label {str(labels[place])[:60]!r}{beside}; expected all whole numbers, "
            "all names or all true/false"
        )
    names = tuple(sorted({str(label) for label in labels}))
    number = {name: place for place, name in enumerate(names)}
    return [number[str(label)] for label in labels], names


def refuse_source(target: Path, source: Path) -> None:
    """Refuse to write over what was read.

    Raises:
        UsageError: they are one file.
    """
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is the data that was read; write it to another folder")


def _whole(label: object) -> int | None:
    if isinstance(label, bool):
        return None
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if isinstance(label, str) and re.fullmatch(r"-?[0-9]{1,18}(\.0+)?", label.strip()):
        return int(label.strip().partition(".")[0])
    return label if isinstance(label, int) else None
