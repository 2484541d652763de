"""A program as a masked language model of code reads it: its tokens joined by spaces, without comments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bbox.code.bindings import decoded, encoded
from bbox.code.languages import parser
from bbox.code.program import Program

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Word", "words"]

_STRINGS = {
    "string",
    "string_literal",
    "raw_string_literal",
    "interpreted_string_literal",
    "template_string",
    "char_literal",
    "character_literal",
    "rune_literal",
}
_INSIDE = {"interpolation", "template_substitution"}


class Word(NamedTuple):
    """One token of a program and its byte offsets there."""

    start: int
    end: int
    text: str


def words(program: Program) -> list[Word]:
    """The tokens of a program, in order; comments and strings that stand for themselves (docstrings) are left out.

    A string is one token, unless names stand inside it (f-strings). Cutting is safe in every language: the text is
    read by the model alone, and offsets are those of the program as it is.

    Example:
        >>> [word.text for word in words(Program("def f(n):  # twice\\n    return n + n\\n", "python"))]
        ['def', 'f', '(', 'n', ')', ':', 'return', 'n', '+', 'n']

    Raises:
        UsageError: the language is unknown, or its grammar is not installed.
    """
    source = encoded(program.code)
    leaves = _leaves(parser(program.language).parse(source).root_node)
    return [Word(n.start_byte, n.end_byte, decoded(source[n.start_byte : n.end_byte])) for n in leaves]


def _leaves(root: Node) -> Iterator[Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        if "comment" in node.type or _stands_for_itself(node):
            continue
        whole = node.type in _STRINGS and not any(child.type in _INSIDE for child in node.children)
        if whole or not node.child_count:
            if node.end_byte > node.start_byte:
                yield node
        else:
            stack.extend(reversed(node.children))


def _stands_for_itself(node: Node) -> bool:
    return node.type == "expression_statement" and node.child_count == 1 and node.children[0].type == "string"
