"""The names a program binds, and every place that refers to them."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from bbox.code.languages import named, parser

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Binding", "Kind", "Resolution", "decoded", "encoded", "reserved", "resolve", "words_of"]

Kind = Literal["parameter", "local", "function", "global"]


@dataclass(frozen=True)
class Binding:
    """One declared name and every token that refers to it. Two variables of one name are two bindings.

    Attributes:
        name: as it stands in the program.
        kind: a function's parameter, a local variable of a function, a function or method that is defined here, or
            (in Python) a variable of the module level.
        spans: byte offsets (start, end) of the declaration and of every use, ascending.
        refusal: why renaming it is not safe in this program; empty where it is.
    """

    name: str
    kind: Kind
    spans: tuple[tuple[int, int], ...]
    refusal: str = ""


@dataclass(frozen=True)
class Resolution:
    """A parsed program with its names resolved.

    Attributes:
        source: the program in UTF-8; spans are offsets into it.
        bindings: in the order of their first token. Spans of two bindings never overlap.
        words: every word of the program that could be an identifier, wherever it stands (also fields, types, strings
            and comments): a new name that is none of them is fresh.
        errors: ERROR and MISSING nodes of the parse.
    """

    source: bytes
    language: str
    bindings: tuple[Binding, ...]
    words: frozenset[str]
    errors: int


@lru_cache(maxsize=4096)
def resolve(code: str, language: str) -> Resolution:
    """Parse a program and resolve its names.

    Raises:
        UsageError: the language is unknown, or its grammar is not installed.
    """
    source = encoded(code)
    root = parser(language).parse(source).root_node
    bindings: Iterable[Binding] = importlib.import_module(named(language).scopes).bindings(root)
    errors, stray = _broken(root) if root.has_error else (0, frozenset())
    # A token that the parser could not place may be any name of the program.
    bindings = (replace(b, refusal="the parser failed at it") if b.name in stray else b for b in bindings)
    # A token that the parser made up where one is missing has no place to be renamed in.
    bindings = (b for b in bindings if all(start < end for start, end in b.spans))
    return Resolution(source, language, _apart(bindings), words_of(code), errors)


def reserved(language: str) -> frozenset[str]:
    """Names that no new name may be in this language."""
    found: frozenset[str] = importlib.import_module(named(language).scopes).RESERVED
    return found


def encoded(code: str) -> bytes:
    """UTF-8, lone surrogates included: every ``str`` has a source, and comes back from it."""
    return code.encode("utf-8", "surrogatepass")


def decoded(source: bytes) -> str:
    """The inverse of ``encoded``."""
    return source.decode("utf-8", "surrogatepass")


def _apart(bindings: Iterable[Binding]) -> tuple[Binding, ...]:
    """In order of first tokens. A token that two bindings claim (in broken code) makes both unsafe; one keeps it."""
    ordered = sorted(bindings, key=lambda binding: binding.spans)
    claims = Counter(span for binding in ordered for span in binding.spans)
    taken: set[tuple[int, int]] = set()
    apart: list[Binding] = []
    for binding in ordered:
        spans = tuple(span for span in binding.spans if span not in taken)
        taken.update(spans)
        if spans and any(claims[span] > 1 for span in binding.spans):
            apart.append(replace(binding, spans=spans, refusal=binding.refusal or "a token of it may be another's"))
        elif spans:
            apart.append(binding)
    return tuple(sorted(apart, key=lambda binding: binding.spans))


def words_of(code: str) -> frozenset[str]:
    """Every word of a text that could be an identifier of some language, wherever it stands."""
    # With and without "$": it belongs to a name in some languages, and starts a name inside strings of others.
    words = {*re.findall(r"\w+", code), *re.findall(r"[\w$]+", code)}
    if not code.isascii():
        words |= {unicodedata.normalize("NFKC", word) for word in words}
    return frozenset(words)


def _broken(root: Node) -> tuple[int, frozenset[str]]:
    """How many nodes the parser had to make up or skip, and the tokens that stand directly in skipped text."""
    errors = 0
    stray: set[str] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            errors += 1
        if node.is_error:
            leaves = (child for child in node.children if not child.child_count)
            stray |= {leaf.text.decode("utf-8", "replace") for leaf in leaves if leaf.text}
        stack += (child for child in node.children if child.has_error or child.is_missing)
    return errors, frozenset(stray)
