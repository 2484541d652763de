"""Pairs of programs by id, as CodeXGLUE keeps BigCloneBench: ``id1<TAB>id2<TAB>label``, and data.jsonl beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bbox.code.program import Program
from bbox.data.base import CodeSet
from bbox.data.code.format import code_set, number_labels
from bbox.data.code.jsonl import JsonLines
from bbox.data.code.records import Fields
from bbox.data.code.rows import BOM, Places, read_lines
from bbox.errors import InputError, UsageError

__all__ = ["Pairs", "load_pair_files"]

_IDS = ("idx", "id")


@dataclass(frozen=True)
class Pairs:
    """A file of pairs and one of functions, as a format (``bbox.data.code.Format``).

    A function that was changed in one pair is as it was in another, so it is written as a new function whose id is that
    of the old one and the pair's index (``17522011_adv4``).
    """

    functions: Functions
    places: Places
    head: bytes

    def write(self, folder: Path, chosen: Sequence[tuple[int, Program]]) -> Path:
        kept: set[int] = set()
        fresh: list[tuple[int, str, str]] = []
        pairs, taken = [], set(self.functions.row_of)
        for raw, (index, program) in zip(self.places.again(i for i, _ in chosen), chosen, strict=True):
            first, second = _ids(raw.decode("utf-8"))[:2]
            kept.add(self.functions.row_of[second])
            if self.functions.programs[self.functions.row_of[first]].code == program.code:
                kept.add(self.functions.row_of[first])
            else:
                new = f"{first}_adv{index}"
                while new in taken:
                    new += "_"
                taken.add(new)
                fresh.append((self.functions.row_of[first], new, program.code))
                raw = new.encode() + raw[raw.index(b"\t") :]
            pairs.append(raw)
        rows = list(self.functions.places.again(sorted(kept)))
        olds = self.functions.places.again(row for row, _, _ in fresh)
        rows += [self.functions.renamed(old, new, code) for old, (_, new, code) in zip(olds, fresh, strict=True)]
        self.functions.places.write(folder, self.functions.syntax.head, rows)
        return self.places.write(folder, self.head, pairs)


@dataclass(frozen=True)
class Functions:
    """The functions that pairs are made of; of a repeated id the last counts, as in CodeXGLUE."""

    syntax: JsonLines
    fields: Fields
    id_key: str
    places: Places
    programs: list[Program]
    row_of: dict[str, int]

    @classmethod
    def read(cls, path: Path, options: Fields) -> Functions:
        syntax, places, fields, id_key = JsonLines(), Places(path), None, ""
        programs: list[Program] = []
        row_of: dict[str, int] = {}
        for row in syntax.rows(path):
            where = f"{path}: line {row.line.number}"
            fields = fields or options.settled(where, row.fields)
            id_key = id_key or next((key for key in _IDS if key in row.fields), _IDS[0])
            if id_key not in row.fields:
                raise InputError(f"{where} has no {id_key!r}, which pairs are named by; it has {', '.join(row.fields)}")
            row_of[str(row.fields[id_key])] = len(programs)
            places.add(row.line)
            programs.append(fields.program(where, row.fields))
        if fields is None:
            raise InputError(f"{path}: no functions in it")
        return cls(syntax, fields, id_key, places, programs, row_of)

    def renamed(self, raw: bytes, new: str, code: str) -> bytes:
        """A row with another id and code."""
        raw = self.syntax.replace(raw, self.id_key, new)
        return self.syntax.replace(raw, str(self.fields.code), code)


def load_pair_files(path: Path, data: Path, options: Fields) -> CodeSet:
    """Load pairs whose functions lie in ``data``. The first of a pair is what an attack renames in.

    Raises:
        UsageError: an option is wrong.
        InputError: a file is refused, or a pair names a function that is not there.
    """
    if data.resolve().name == path.resolve().name:
        raise UsageError(f"{path} and its functions {data} are of one name; give two")
    functions = Functions.read(data, options)
    places, head = Places(path), b""
    programs: list[Program] = []
    labels: list[object] = []
    ids: list[str] = []
    for line in read_lines(path):
        if line.number == 1 and line.start:
            head = BOM
        text = line.text(path)
        if not text.strip():
            continue
        cells = _ids(text)
        if len(cells) not in (2, 3):
            raise InputError(f"{path}: line {line.number} is {text.strip()[:60]!r}, expected id1, id2, label (tabs)")
        missing = next((cell for cell in cells[:2] if cell not in functions.row_of), None)
        if missing is not None:
            raise InputError(f"{path}: line {line.number} names {missing!r}, which is not in {data}")
        first, second = (functions.programs[functions.row_of[cell]] for cell in cells[:2])
        places.add(line)
        programs.append(replace(first, partner=second.code))
        labels.append(cells[2] if len(cells) == 3 and options.label != "none" else None)
        ids.append(f"{cells[0]} {cells[1]}")
    if not programs:
        raise InputError(f"{path}: no pairs in it")
    numbers, names = number_labels(path, labels)
    return code_set(path, programs, numbers, names, ids, Pairs(functions, places, head))


def _ids(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip("\r\n").split("\t")]
