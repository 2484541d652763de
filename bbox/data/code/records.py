"""Rows with named fields as examples: which field is the code, its partner, the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bbox.code.program import Program
from bbox.data.base import CodeSet
from bbox.data.code.format import checked_code, code_set, find_language, number_labels
from bbox.data.code.gcj import Escapes, escape, unescape
from bbox.data.code.rows import Places, Syntax
from bbox.errors import InputError, UsageError
from bbox.registry import did_you_mean

__all__ = ["CODE_KEYS", "Fields", "Records", "load_records"]

CODE_KEYS = ("code", "func", "function", "source", "source_code", "text", "content")
_PAIR_KEYS = tuple(f"{key}1" for key in CODE_KEYS)
_LABEL_KEYS = ("label", "target", "class")
_ID_KEYS = ("idx", "id")


@dataclass(frozen=True)
class Fields:
    """Which field is what; the options of every format made of rows.

    Args:
        language: of all programs; default each row's ``language``, else its file name's.
        code: the field with the code; default the first of ``CODE_KEYS`` that is there, else with a 1 (``code1``).
        partner: the field with the second program of a pair; default the one called like ``code`` with 2 for a final 1.
        label: the field with the label, or ``none``; default label, target or class.
        escapes: how ``\\n`` in code is read (``bbox.data.code.gcj``); ``auto`` is ``strings`` for what ALERT escaped.
    """

    path: Path
    language: str | None = None
    code: str | None = None
    partner: str | None = None
    label: str | None = None
    escapes: Escapes = "auto"

    def settled(self, where: str, row: Mapping[str, object]) -> Fields:
        """The same with what was left open decided by the first row.

        Raises:
            UsageError: an option names a field that the row lacks.
            InputError: no field can be told to be the code.
        """
        for option, key in (("code", self.code), ("partner", self.partner), ("label", self.label)):
            if key is not None and key not in row and (option, key) != ("label", "none"):
                hint = did_you_mean(key, row) or ";"
                raise UsageError(f"{where} has no {key!r} ({option}={key}){hint} it has {_listed(row)}")
        code = self.code or next((key for key in (*CODE_KEYS, *_PAIR_KEYS) if key in row), None)
        if code is None:
            raise InputError(f"{where} has no code; it has {_listed(row)}: name one, as in code:{self.path},code=KEY")
        twin = f"{code[:-1]}2"
        label = self.label or next((key for key in _LABEL_KEYS if key in row and key != code), "none")
        escapes = self.escapes
        if escapes == "auto":  # only ALERT's substitutes for Google Code Jam are escaped within JSON
            text = str(row[code])
            escapes = "strings" if "substitutes" in row and "\n" not in text and r"\n" in text else "none"
        return replace(
            self,
            code=code,
            partner=self.partner or (twin if code.endswith("1") and twin in row else None),
            label=label,
            escapes=escapes,
        )

    def program(self, where: str, row: Mapping[str, object]) -> Program:
        """The program of a row.

        Raises:
            InputError: its code is missing or refused, or its language is unknown.
        """
        language = find_language(where, self.path, self.language, row)
        code = self._text(where, row, str(self.code), language)
        partner = None if self.partner is None else self._text(where, row, self.partner, language)
        return Program(code, language, partner)

    def label_of(self, row: Mapping[str, object]) -> object:
        return None if self.label in (None, "none") else row.get(str(self.label))

    def id_of(self, row: Mapping[str, object], place: int) -> str:
        if self.partner and "id1" in row and "id2" in row:
            return f"{row['id1']} {row['id2']}"
        return str(next((row[key] for key in _ID_KEYS if key in row), place))

    def _text(self, where: str, row: Mapping[str, object], key: str, language: str) -> str:
        if key not in row:
            raise InputError(f"{where} has no {key!r}; it has {_listed(row)}")
        return unescape(checked_code(where, row[key]), language, self.escapes)


@dataclass(frozen=True)
class Records:
    """A file of rows, as a format (``bbox.data.code.Format``)."""

    syntax: Syntax
    fields: Fields
    places: Places

    def write(self, folder: Path, chosen: Sequence[tuple[int, Program]]) -> Path:
        raws = self.places.again(index for index, _ in chosen)
        rows = [self._replaced(raw, program) for raw, (_, program) in zip(raws, chosen, strict=True)]
        return self.places.write(folder, self.syntax.head, rows)

    def _replaced(self, raw: bytes, program: Program) -> bytes:
        if self._code(raw) == program.code:
            return raw
        changed = self.syntax.replace(raw, str(self.fields.code), escape(program.code, self.fields.escapes))
        if self._code(changed) != program.code:
            raise InputError(
                f"{self.places.path}: its format cannot hold this program, which would be read as another: "
                f"{program.code[:60]!r}"
            )
        return changed

    def _code(self, raw: bytes) -> str:
        return self.fields.program(str(self.places.path), self.syntax.fields(raw)).code


def load_records(path: Path, syntax: Syntax, options: Fields) -> CodeSet:
    """Load a file of rows, each one example.

    Raises:
        UsageError: an option is wrong.
        InputError: the file is refused; its text names the line.
    """
    places, fields = Places(path), None
    programs: list[Program] = []
    labels: list[object] = []
    ids: list[str] = []
    for row in syntax.rows(path):
        where = f"{path}: line {row.line.number}"
        fields = fields or options.settled(where, row.fields)
        places.add(row.line)
        ids.append(fields.id_of(row.fields, len(ids)))
        programs.append(fields.program(where, row.fields))
        labels.append(fields.label_of(row.fields))
    if fields is None:
        raise InputError(f"{path}: no examples in it")
    numbers, names = number_labels(path, labels)
    return code_set(path, programs, numbers, names, ids, Records(syntax, fields, places))


def _listed(row: Mapping[str, object]) -> str:
    return ", ".join(map(repr, row))[:200] or "nothing"
