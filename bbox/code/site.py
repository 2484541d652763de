"""Where a program may be renamed: its safe bindings, the names they may take, and the rewriting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bbox.code.bindings import Binding, decoded, encoded, reserved, resolve
from bbox.code.program import Program
from bbox.errors import InternalError

__all__ = ["Site", "site_of"]

# ASCII, and one leading underscore at most before a small letter: what is left out means something of its own
# somewhere (Python's mangled names, C's reserved ones, "_").
IDENTIFIER = re.compile(r"(?:_(?=[a-z]))?[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Site:
    """A program, parsed once, and the bindings of it that may be renamed.

    Attributes:
        bindings: those that are safe to rename, in the order of their first token; the "identifiers" of an attack.
        taken: names that no new name may be (every word of the program, and the language's reserved names).

    Example:
        >>> site = site_of(Program("def area(w, h):\\n    return w * h\\n", "python"))
        >>> [binding.name for binding in site.bindings]
        ['w', 'h']
        >>> print(site.render({0: "width"}).code)
        def area(width, h):
            return width * h
        <BLANKLINE>
    """

    program: Program
    bindings: tuple[Binding, ...]
    taken: frozenset[str]

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The names that may be changed, each once."""
        return tuple(dict.fromkeys(binding.name for binding in self.bindings))

    def allows(self, new: str) -> bool:
        """Whether this is an identifier of the language that is fresh in the program."""
        return new not in self.taken and IDENTIFIER.fullmatch(new) is not None

    def usable(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are allowed, stripped, each once, in order."""
        return [name for name in dict.fromkeys(name.strip() for name in names) if self.allows(name)]

    def render(self, renames: Mapping[int, str]) -> Program:
        """The program with binding number i called ``renames[i]``; every edit spliced by byte offset, from one parse.

        Variables that share a name may get one new name as well: they shadow each other as they did.

        Raises:
            InternalError: a name is not allowed, or bindings of different names get the same one.
        """
        refused = [name for name in renames.values() if not self.allows(name)]
        if refused:
            raise InternalError(f"{refused[0]!r} is not a fresh identifier of this program; ask Site.usable first")
        pairs = {(self.bindings[number].name, name) for number, name in renames.items()}
        if len({name for _, name in pairs}) < len(pairs):
            raise InternalError(f"bindings of different names would get the same name: {sorted(pairs)}")
        source = encoded(self.program.code)
        edits = sorted((span, name) for number, name in renames.items() for span in self.bindings[number].spans)
        pieces: list[bytes] = []
        place = 0
        for (start, end), name in edits:
            pieces += source[place:start], name.encode()
            place = end
        code = decoded(b"".join([*pieces, source[place:]]))
        return Program(code, self.program.language, self.program.partner)


def site_of(program: Program, *, functions: bool = False) -> Site:
    """Parse a program. With ``functions``, what it defines itself may be renamed as well, not only what its functions
    keep to themselves: functions, methods and (in Python) variables of the module level.

    A program that cannot be parsed at all has no bindings.

    Raises:
        UsageError: the language is unknown, or its grammar is not installed.
    """
    resolution = resolve(program.code, program.language)
    safe = (binding for binding in resolution.bindings if not binding.refusal)
    chosen = tuple(binding for binding in safe if functions or binding.kind in ("parameter", "local"))
    return Site(program, chosen, resolution.words | reserved(program.language))
