"""Motion in text files: found, decoded and turned into numbers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bbox.data.code.files import visible_files
from bbox.errors import InputError

__all__ = ["motion_files", "read_numbers", "read_text"]


def motion_files(path: Path, suffix: str) -> tuple[list[Path], list[str]]:
    """The file itself, or those of this ending below a folder, sorted; and their names below it.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [path], [path.name]
    found = [file for file in visible_files(path) if file.suffix.lower() == suffix]
    if not found:
        raise InputError(f"{path}: no {suffix} file in it")
    found.sort(key=lambda file: file.relative_to(path).parts)
    return found, [file.relative_to(path).as_posix() for file in found]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it cannot be read, or is no such text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason})") from error


def read_numbers(path: Path, text: str) -> NDArray[np.float64]:
    """Numbers between blanks.

    Raises:
        InputError: a word is no finite number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is no number
            numbers = np.fromstring(text.strip(), sep=" ")
    except (DeprecationWarning, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        wrong = next((word for word in text.split() if not _is_finite(word)), "")
        raise InputError(f"{path}: {wrong[:40]!r} where a number is expected")
    return numbers


def _is_finite(word: str) -> bool:
    try:
        return abs(float(word)) < float("inf")
    except ValueError:
        return False
