"""Which names of a Python program are the same variable (Python 3; Python 2 as far as its grammar goes).

Rules: the Python language reference, 4.2 "Naming and binding"; PEP 572 (walrus), PEP 695 (type parameters); list
comprehensions of Python 2 share the names of their function.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bbox.code.bindings import Binding
from bbox.code.scopes.python_safety import BUILTINS, refuse
from bbox.code.scopes.python_walk import Declaration, Walk, name_of
from bbox.code.scoping import Variable, descendants, span, walk

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["RESERVED", "bindings"]

RESERVED = BUILTINS | frozenset([*keyword.kwlist, *keyword.softkwlist, "self", "cls"])


def bindings(root: Node) -> Iterable[Binding]:
    """The variables of functions and of the module level, and the functions, of a Python program."""
    found = Walk(merged=root.has_error or _is_python2(root))
    walk(root, found.module, found.visit)
    _link(found)
    refuse(found)
    every = [(scope, v) for scope in (found.module, *found.scopes) for v in scope.names.values()]
    # Class attributes are no bindings: whoever has the class or an object of it may read them.
    listed = {id(v): v for scope, v in every if scope.sort != "class" or v.kind == "function"}
    return [variable.frozen() for variable in listed.values() if variable.spans]


def _link(found: Walk) -> None:
    """Declarations to scopes, uses to declarations."""
    shared = {(id(scope), name_of(node)) for scope, node, nearest in found.outer if nearest}
    first = [d for d in found.declared if (id(d.scope), name_of(d.name)) not in shared]
    last = [d for d in found.declared if (id(d.scope), name_of(d.name)) in shared]
    for scope, node, nearest in found.outer:
        if not nearest:
            scope.names[name_of(node)] = found.module.declare(Variable(name_of(node), "global"))
    for declaration in first:
        _declare(declaration)
    for scope, node, nearest in found.outer:
        around = scope.parent.lookup(name_of(node)) if nearest and scope.parent is not None else None
        if around is not None:
            scope.names[name_of(node)] = around
    for declaration in last:
        _declare(declaration)
    bound = {id(d.scope.names.get(name_of(d.name))) for d in found.declared}
    for known in found.module.names.values():
        if id(known) not in bound:
            known.refuse("declared global, and bound elsewhere")
    for scope, node in [*found.used, *((scope, node) for scope, node, _ in found.outer)]:
        variable = scope.lookup(name_of(node))
        if variable is not None and not node.is_missing:
            variable.spans.add(span(node))
            if scope.sort == "class" and scope.names.get(variable.name) is variable:
                found.ambiguous.append(variable)


def _declare(declaration: Declaration) -> None:
    if declaration.name.is_missing:
        return
    of_module = declaration.scope.sort == "module" and declaration.kind == "local"
    kind = "global" if of_module else declaration.kind
    variable = declaration.scope.declare(Variable(name_of(declaration.name), kind))
    variable.spans.add(span(declaration.name))
    if declaration.kind == "function":
        variable.kind = "function"
    if declaration.refusal:
        variable.refuse(declaration.refusal)


def _is_python2(root: Node) -> bool:
    return any(
        node.type in ("print_statement", "exec_statement", "<>")
        or (node.type == "except_clause" and len(node.children_by_field_name("value")) > 1)
        for node in descendants(root)
    )
