"""Substitutes that were computed before, in the format of ALERT's public code: one JSON object a line.

Each line carries an example's own fields and ``"substitutes": {name: [new names]}``. What one machine with a GPU has
computed (``write_substitutes``) is so used on any other.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bbox.code.bindings import encoded
from bbox.code.site import Site
from bbox.code.substitutes.base import Provider, Resources
from bbox.errors import InputError, UsageError
from bbox.files import write_whole
from bbox.options import build

__all__ = ["MissingSubstitutes", "Options", "SubstitutesFile", "load", "write_substitutes"]

_CODE_KEYS = ("func", "code", "code1", "source")


class MissingSubstitutes(UserWarning):
    """A program is attacked that the substitutes file does not hold; it has no candidates."""


@dataclass(frozen=True)
class Options:
    """Options of ``file``: there are none."""


class SubstitutesFile(Provider):
    """Substitutes by program and by old name.

    A program is found by its text without white space and without escaped line ends, because files of one data set
    differ in those. A name that is not listed has no candidates. Nor has a program that is not in the file: the first
    such one is warned of, once.

    Raises:
        InputError: a line is no JSON object, or lacks the code or the substitutes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lists: dict[bytes, dict[str, list[str]]] = {}
        digest = hashlib.sha256()
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    digest.update(line)
                    if line.strip():
                        code, lists = _read(f"{path}, line {number}", line)
                        # Of a program that comes twice (pairs of clones), the first line counts.
                        self._lists.setdefault(_key(code), lists)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        if not self._lists:
            raise InputError(f"{path}: holds no substitutes")
        self._digest = digest.hexdigest()[:16]
        self._warned = False

    def suggest(self, site: Site, *, avoid: int | None = None, wanted: int | None = None) -> list[list[str]]:
        del avoid, wanted
        lists = self._lists.get(_key(site.program.code))
        if lists is None and not self._warned:
            self._warned = True
            start = site.program.code.strip()[:40]
            warnings.warn(f"{self.path} has no substitutes for {start!r}...", MissingSubstitutes, stacklevel=2)
        return [site.usable((lists or {}).get(binding.name, [])) for binding in site.bindings]

    def fingerprint(self) -> str:
        return self._digest


def write_substitutes(
    path: Path,
    suggested: Iterable[tuple[Site, Sequence[Sequence[str]]]],
    fields: Iterable[Mapping[str, object]] | None = None,
) -> None:
    """Save what a provider suggests for some programs as a file that ``file:PATH`` and ALERT's public code read.

    Two variables of one name share an entry, as the format has one a name: the union of theirs, the first one's first.

    Args:
        fields: of each program what else its line shall hold, for example its label; the format of each task has its
            own.

    Raises:
        OSError: the file cannot be written.
    """
    lines = []
    extra = iter(fields) if fields is not None else None
    for site, lists in suggested:
        program = site.program
        text = {"func": program.code} if program.partner is None else {"code1": program.code, "code2": program.partner}
        names: dict[str, dict[str, None]] = {}
        for binding, new in zip(site.bindings, lists, strict=True):
            names.setdefault(binding.name, {}).update(dict.fromkeys(new))
        substitutes = {old: list(new) for old, new in names.items()}
        own = next(extra) if extra is not None else {}
        lines.append(json.dumps({**text, "language": program.language, **own, "substitutes": substitutes}) + "\n")
    write_whole(path, "".join(lines))


def _read(where: str, line: bytes) -> tuple[str, dict[str, list[str]]]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: no JSON ({' '.join(str(error).split())})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: a JSON object is expected, found {type(row).__name__}")
    code = next((row[key] for key in _CODE_KEYS if isinstance(row.get(key), str)), None)
    if code is None:
        raise InputError(f"{where}: no code; expected one of {', '.join(_CODE_KEYS)}, found {', '.join(row)}")
    lists = row.get("substitutes")
    if not isinstance(lists, dict) or not all(map(_is_list_of_names, lists.values())):
        raise InputError(f"{where}: 'substitutes' is no object of lists of names; make one with write_substitutes")
    return code, lists


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _key(code: str) -> bytes:
    return hashlib.sha256(encoded(re.sub(r"\\n|\s+", "", code))).digest()


def load(path: str, options: dict[str, str], given: Resources) -> SubstitutesFile:
    """See ``load_provider``."""
    del given
    build("file", Options, options)
    if not path:
        raise UsageError("substitutes 'file' name no file; write file:PATH.jsonl")
    return SubstitutesFile(Path(path).expanduser())
