"""Lexical scopes for languages with block structure, shared by the resolvers of ``bbox.code.scopes``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from bbox.code.bindings import Binding, Kind

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Scope", "Variable", "descendants", "span", "text", "walk"]

S = TypeVar("S", bound="Scope")


@dataclass(eq=False)
class Variable:
    """A binding while its uses are being collected."""

    name: str
    kind: Kind
    spans: set[tuple[int, int]] = field(default_factory=set)
    refusal: str = ""

    def refuse(self, reason: str) -> None:
        """Note why it may not be renamed; the first reason stays."""
        self.refusal = self.refusal or reason

    def frozen(self) -> Binding:
        return Binding(self.name, self.kind, tuple(sorted(self.spans)), self.refusal)


@dataclass(eq=False)
class Scope:
    """A region in which names are looked up, inner first. ``function``: whether it is a function's outermost one."""

    parent: Scope | None = None
    function: bool = False
    names: dict[str, Variable] = field(default_factory=dict)

    def declare(self, variable: Variable) -> Variable:
        """Bind a name here. A second declaration in the same scope is the same variable."""
        return self.names.setdefault(variable.name, variable)

    def lookup(self, name: str) -> Variable | None:
        """The variable that this name means here, ``None`` where it is not declared in the program."""
        return next((scope.names[name] for scope in self.outward() if name in scope.names), None)

    def outward(self) -> Iterator[Scope]:
        """This scope and those around it, inner first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


def walk(root: Node, scope: S, visit: Callable[[Node, S], Iterator[tuple[Node, S]]]) -> None:
    """Visit a tree. ``visit`` yields each child that is to be visited next, with its scope, and goes on after that.

    The same as recursion, but a program may be nested as deeply as it likes.
    """
    stack = [visit(root, scope)]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        else:
            stack.append(visit(*step))


def descendants(root: Node) -> Iterator[Node]:
    """The node and everything below it, in the order of the text."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def text(node: Node) -> str:
    """The source text of a node."""
    return (node.text or b"").decode("utf-8", "replace")


def span(node: Node) -> tuple[int, int]:
    """The byte offsets (start, end) of a node."""
    return node.start_byte, node.end_byte
