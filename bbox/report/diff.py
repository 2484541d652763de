"""Two programs side by side, each renamed identifier in a tint of its own, as HTML of which every word is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

from markupsafe import Markup

from bbox.code.bindings import decoded, encoded, resolve
from bbox.code.program import Program

__all__ = ["TINTS", "Line", "Part", "Row", "shown", "side_by_side", "size_of"]

TINTS = 8  # classes t0 to t7 of the page's style sheet; more bindings than that share them

_CONTEXT = 3  # unchanged lines that are shown around a change
_FOLD = 3  # fewer unchanged lines than this are not worth a fold

# Control characters would be dropped, or end a line for the browser alone: their pictures (U+2400 on) are shown.
_PICTURES = {**{code: 0x2400 + code for code in range(32) if code not in (9, 10)}, 127: 0x2421}


@dataclass(frozen=True)
class Line:
    """A line of one of the programs."""

    number: int
    html: Markup


@dataclass(frozen=True)
class Row:
    """What stands side by side; ``None`` where one program has no such line."""

    left: Line | None
    right: Line | None
    changed: bool


@dataclass(frozen=True)
class Part:
    """Rows one below the other; ``folded`` where they are unchanged and far from every change."""

    rows: tuple[Row, ...]
    folded: bool


def side_by_side(original: Program, adversarial: Program, *, equivalent: bool) -> list[Part]:
    """The rows of two programs, changed ones with three lines around them, the rest folded.

    Args:
        equivalent: the programs differ by renames alone (``bbox.code.equivalence``), which are then tinted.
    """
    left_marks, right_marks = _marks(original, adversarial) if equivalent else ({}, {})
    left, right = (_lines(p.code, marks) for p, marks in ((original, left_marks), (adversarial, right_marks)))
    before, after = (program.code.removesuffix("\n").split("\n") for program in (original, adversarial))
    rows = list(_aligned(before, after, left, right))
    changes = (place for place, row in enumerate(rows) if row.changed)
    near = {place for change in changes for place in range(change - _CONTEXT, change + _CONTEXT + 1)}
    parts: list[Part] = []
    for shows, members in groupby(range(len(rows)), key=near.__contains__):
        some = tuple(rows[place] for place in members)
        folded = not shows and len(some) >= _FOLD
        if parts and not folded and not parts[-1].folded:
            parts[-1] = Part(parts[-1].rows + some, folded=False)
        else:
            parts.append(Part(some, folded))
    return parts


def size_of(parts: Iterable[Part]) -> int:
    """Characters of the lines' HTML."""
    sides = (side for part in parts for row in part.rows for side in (row.left, row.right))
    return sum(len(side.html) for side in sides if side is not None)


def shown(text: str) -> str:
    """Text as a page can show it: line ends as they are, other control characters as pictures."""
    return text.replace("\r\n", "\n").translate(_PICTURES)


_Mark = tuple[int, str]  # tint, title


def _marks(original: Program, adversarial: Program) -> tuple[dict[tuple[int, int], _Mark], ...]:
    """The tokens of each program that were renamed, by their byte span."""
    before, after = (resolve(program.code, program.language) for program in (original, adversarial))
    pairs = zip(before.bindings, after.bindings, strict=True)
    renamed = [(old, new) for old, new in pairs if old.name != new.name]
    marks: tuple[dict[tuple[int, int], _Mark], ...] = ({}, {})
    names = list(dict.fromkeys((old.name, new.name) for old, new in renamed))
    for sides in renamed:
        number = names.index((sides[0].name, sides[1].name))
        title = f"{sides[0].name} \N{RIGHTWARDS ARROW} {sides[1].name}"
        for side, binding in enumerate(sides):
            marks[side].update(dict.fromkeys(binding.spans, (number % TINTS, title)))
    return marks


def _lines(code: str, marks: dict[tuple[int, int], _Mark]) -> list[Line]:
    """The program's lines. No token spans two of them."""
    source = encoded(code)
    pieces: list[str] = []
    place = 0
    for (start, end), (tint, title) in sorted(marks.items()):
        mark = Markup('<mark class="t{}" title="{}">{}</mark>').format(tint, title, _text(source[start:end]))
        pieces += _text(source[place:start]), mark
        place = end
    html = Markup("").join([*pieces, _text(source[place:])])
    return [Line(number, Markup(line)) for number, line in enumerate(html.removesuffix("\n").split("\n"), start=1)]


def _text(source: bytes) -> str:
    return shown(decoded(source))


def _aligned(before: Sequence[str], after: Sequence[str], left: Sequence[Line], right: Sequence[Line]) -> Iterator[Row]:
    if len(before) == len(after):  # renames add no line and take none away
        for old, new, one, other in zip(before, after, left, right, strict=True):
            yield Row(one, other, old != new)
        return
    for kind, a, b, c, d in SequenceMatcher(None, before, after).get_opcodes():
        for step in range(max(b - a, d - c)):
            yield Row(
                left[a + step] if a + step < b else None, right[c + step] if c + step < d else None, kind != "equal"
            )
