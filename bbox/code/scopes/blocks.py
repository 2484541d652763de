"""What the resolvers of C, C++ and Java share: a walk in source order that declares and looks up as it goes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bbox.code.bindings import Binding, Kind
from bbox.code.scoping import Scope, Variable

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["ClassScope", "Step", "Walker", "identifiers", "in_function", "text", "words"]

Step = Callable[[], "Iterable[Step] | None"]
"""A piece of the walk; gives the pieces to do next, in order."""

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass
class ClassScope(Scope):
    """The members of a class. ``inherits``: it may have members that this program does not show."""

    inherits: bool = False


def text(node: Node | None) -> str:
    """The source of a node."""
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""


def words(source: str) -> set[str]:
    """Everything in it that looks like an identifier."""
    return set(_WORD.findall(source))


def identifiers(node: Node) -> list[Node]:
    """Every identifier below a node, in order."""
    found, waiting = [], [node]
    while waiting:
        here = waiting.pop()
        if here.type in ("identifier", "type_identifier"):
            found.append(here)
        waiting += reversed(here.named_children)
    return found


def in_function(scope: Scope | None) -> bool:
    """Whether what is declared here is local to a function."""
    while scope is not None and not isinstance(scope, ClassScope):
        if scope.function:
            return True
        scope = scope.parent
    return False


class Walker:
    """Resolves names in one pass. A language adds ``visit_<node type>`` methods, as in ``ast.NodeVisitor``.

    The walk keeps its own stack: real programs nest deeper than Python's recursion goes.

    Attributes:
        opaque_nodes: types of nodes that are skipped whole: no variable stands in them.
        fixed: words that are seen by something that does not resolve names (directives, macro bodies, attributes).
        loose: names of tokens that could not be resolved.
        broken: byte ranges of functions that were not parsed cleanly.
    """

    opaque_nodes: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.variables: list[Variable] = []
        self.declared: Counter[str] = Counter()
        self.fixed: set[str] = set()
        self.loose: set[str] = set()
        self.broken: list[tuple[int, int]] = []
        self._hidden: set[int] = set()
        self._handlers = {name[6:]: getattr(self, name) for name in dir(self) if name.startswith("visit_")}

    def walk(self, root: Node) -> list[Binding]:
        """Resolve the program and give its bindings."""
        stack: list[Step] = [partial(self.visit, root, self.prepare(root))]
        while stack:
            stack.extend(reversed(list(stack.pop()() or ())))
        self.finish()
        for variable in self.variables:
            self._check(variable)
        return [variable.frozen() for variable in self.variables if variable.spans]

    def prepare(self, root: Node) -> Scope:
        """The outermost scope, with what is visible before its declaration."""
        return Scope()

    def finish(self) -> None:
        """Refusals that need the whole program."""

    def _check(self, variable: Variable) -> None:
        if variable.name in self.fixed:
            variable.refuse("a directive, macro, attribute or string of the program has this word")
        start = min(variable.spans, default=(0, 0))[0]
        if any(first <= start < last for first, last in self.broken) and (
            variable.name in self.loose or self.declared[variable.name] > 1
        ):
            # The parser lost its way in this function, and with it maybe the extent of a block: only a name that
            # means one thing in the whole program is certain.
            variable.refuse("the parse has errors and leaves open what this name refers to")

    def visit(self, node: Node, scope: Scope) -> Iterable[Step] | None:
        """Dispatch on the node's type; what has no method is only a place on the way to its children."""
        kind = node.type
        if kind in self._handlers:
            steps: Iterable[Step] | None = self._handlers[kind](node, scope)
            return steps
        if kind in self.opaque_nodes:
            return None
        return self.each(node.named_children, scope)

    def each(self, nodes: Iterable[Node | None], scope: Scope) -> list[Step]:
        """Steps that visit these nodes."""
        return [partial(self.visit, node, scope) for node in nodes if node is not None]

    def visit_ERROR(self, node: Node, scope: Scope) -> Iterable[Step]:  # noqa: N802
        """What the parser skipped: its tokens could mean anything, what it could group is still of use."""
        self.broken.append((node.start_byte, node.end_byte))
        self.loose |= {text(child) for child in node.children if not child.child_count}
        return self.each((child for child in node.named_children if child.child_count), scope)

    def visit_identifier(self, node: Node, scope: Scope) -> None:
        self.use(node, scope)

    def block(self, node: Node, scope: Scope) -> Iterable[Step]:
        """Visit the children in a scope of their own."""
        return self.each(node.named_children, Scope(scope))

    def declare(self, node: Node, scope: Scope, kind: Kind | None, refusal: str = "") -> Variable:
        """Bind the name that a node holds; with ``kind=None`` as something that is never renamed."""
        name = text(node)
        if not name:  # made up by the parser
            return Variable(name, "local")
        new = name not in scope.names
        variable = scope.declare(Variable(name, kind or "local", refusal=refusal))
        if new:
            self.declared[name] += 1
            if kind is None:
                self._hidden.add(id(variable))
            else:
                self.variables.append(variable)
        elif kind is None and not self.is_hidden(variable):
            variable.refuse("declared in one scope as a variable and as something else")
        variable.spans.add((node.start_byte, node.end_byte))
        return variable

    def is_hidden(self, variable: Variable) -> bool:
        """Whether this is nothing that can be renamed, only in the way of what can."""
        return id(variable) in self._hidden

    def use(self, node: Node, scope: Scope, key: str | None = None) -> Variable | None:
        """Add a token to the variable that it means, if that is declared in the program."""
        variable = self.find(key or text(node), scope)
        if variable is None:
            self.loose.add(text(node))
        else:
            variable.spans.add((node.start_byte, node.end_byte))
        return variable

    def find(self, name: str, scope: Scope | None) -> Variable | None:
        """Look a name up; where a class lies between that may have inherited it, the variable is refused."""
        inherits = False
        while scope is not None:
            if name in scope.names:
                variable = scope.names[name]
                if inherits:
                    variable.refuse("used inside a class that may inherit a member of this name")
                return variable
            inherits = inherits or (isinstance(scope, ClassScope) and scope.inherits)
            scope = scope.parent
        return None

    def note_function(self, node: Node, scope: Scope) -> None:
        """Remember an outermost function that was not parsed cleanly, or whose end may lie elsewhere."""
        whole = node.parent if node.parent is not None and node.parent.type == "template_declaration" else node
        after = whole.next_named_sibling
        while after is not None and after.type.endswith("comment"):
            after = after.next_named_sibling
        stray = after is not None and (after.has_error or after.type.endswith(("statement", "block")))
        if (node.has_error or stray) and not in_function(scope):
            self.broken.append((node.start_byte, node.end_byte))
