"""Source files: one, or a folder of them whose subfolders are the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bbox.code.languages import LANGUAGES, language_of
from bbox.code.program import Program
from bbox.data.base import CodeSet
from bbox.data.code.format import MAX_BYTES, checked_code, code_set, find_language, number_labels, refuse_source
from bbox.data.code.rows import BOM
from bbox.errors import InputError
from bbox.files import write_whole

__all__ = ["Files", "load_source_files", "visible_files"]


@dataclass(frozen=True)
class Files:
    """Files below a folder, as a format (``bbox.data.code.Format``).

    Attributes:
        root: the folder that was read, or that of the one file.
        names: each file below it.
        marked: the indices of files that start with a byte order mark, which is no part of their program.
        single: whether one file was read rather than a folder.
    """

    root: Path
    names: tuple[str, ...]
    marked: frozenset[int]
    single: bool

    def write(self, folder: Path, chosen: Sequence[tuple[int, Program]]) -> Path:
        for index, program in chosen:
            target = folder / PurePosixPath(self.names[index])
            refuse_source(target, self.root / PurePosixPath(self.names[index]))
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, (BOM if index in self.marked else b"") + program.code.encode())
        return folder / self.names[0] if self.single else folder


def load_source_files(path: Path, *, language: str | None = None, label: str | None = None) -> CodeSet:
    """Load one source file, or those of a folder, sorted by path; hidden files and ``__pycache__`` are passed over.

    Subfolders are the classes: by number where all names are whole numbers, else in sorted order. A folder without
    subfolders has no labels.

    Args:
        language: read files with an ending of this language (.h counts for C++ too), or, where there is none, those
            whose ending says no language; default every file whose ending says one.
        label: ``none`` takes no labels from subfolders, as for the tree of a project.

    Raises:
        UsageError: the language is unknown.
        InputError: no source, one that is too long or not UTF-8, or folders from which classes cannot be told.
    """
    single = path.is_file()
    root = path.parent if single else path
    files = [path] if single else _sources(path, language)
    names = [file.relative_to(root).as_posix() for file in files]
    folders = None if single or label == "none" else _folders(path, names)
    numbers, classes = (None, None) if folders is None else number_labels(path, folders)
    programs, marked = [], set()
    for place, file in enumerate(files):
        code, mark = _read(file)
        programs.append(Program(code, find_language(str(file), file, language, {}), None))
        if mark:
            marked.add(place)
    return code_set(path, programs, numbers, classes, names, Files(root, tuple(names), frozenset(marked), single))


def visible_files(path: Path) -> Iterator[Path]:
    """The files below a folder that are not hidden, in no order.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        for file in path.rglob("*"):
            parts = file.relative_to(path).parts
            if not any(part[0] == "." or part == "__pycache__" for part in parts) and file.is_file():
                yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _sources(path: Path, language: str | None) -> list[Path]:
    files = sorted(visible_files(path), key=lambda file: file.relative_to(path).parts)
    if language is None:
        found = [file for file in files if language_of(file)]
    else:
        name = find_language(str(path), path, language, {})
        endings = {*LANGUAGES[name].suffixes, *({".h"} if name == "cpp" else ())}
        found = [file for file in files if file.suffix.lower() in endings]
        found = found or [file for file in files if language_of(file) is None]
    if not found:
        wanted = f"{language} files" if language else f"source files ({', '.join(LANGUAGES)})"
        seen = f"; {len(files)} other files are in it (language=NAME reads those of any ending)" if files else ""
        raise InputError(f"{path}: no {wanted} found{seen}")
    return found


def _folders(path: Path, names: list[str]) -> list[str] | None:
    """Each file's class folder, ``None`` where no file lies in one."""
    flat = [name for name in names if "/" not in name]
    if len(flat) == len(names):
        return None
    if flat:
        raise InputError(
            f"{path}: {len(flat)} sources lie beside class folders, for example {flat[0]}; move them into one, or take "
            f"no labels with code:{path},label=none"
        )
    owners = [name.partition("/")[0] for name in names]
    there = [child.name for child in path.iterdir() if child.is_dir() and child.name[0] != "."]
    empty = sorted(set(there) - set(owners) - {"__pycache__"})
    if empty and not all(name.isascii() and name.isdigit() for name in owners):
        raise InputError(
            f"{path}: the class folder {empty[0]!r} holds no source, so class numbers are unclear; remove it, or take "
            f"no labels with code:{path},label=none"
        )
    return owners


def _read(file: Path) -> tuple[str, bool]:
    """The program in a file, and whether a byte order mark stands before it."""
    try:
        size = file.stat().st_size
        raw = file.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    if size > MAX_BYTES:
        raise InputError(f"{file}: {size} bytes, more than {MAX_BYTES}; leave it out")
    try:
        code = raw.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start}: {error.reason})") from error
    return checked_code(str(file), code), raw.startswith(BOM)
