"""Declarators of C and C++, from the outside in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bbox.code.scopes.reserved import names

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Declarator", "declarator_of"]

_NAMES = names(
    "identifier field_identifier type_identifier primitive_type qualified_identifier template_function operator_name "
    "destructor_name structured_binding_declarator operator_cast"
)


@dataclass
class Declarator:
    """A declarator, taken apart.

    Attributes:
        name: the node of the declared name.
        function: it declares a function, not an object (``int f(int)``; not ``int (*f)(int)``).
        parameters: the parameter lists of that function. More than one: the name is made by a macro, ``F(x)(int a)``.
        others: all else in it that can refer to names (array sizes, attributes, other parameter lists).
    """

    name: Node | None = None
    function: bool = False
    parameters: list[Node] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)


def declarator_of(node: Node) -> Declarator:
    """Follow a declarator inward to its name."""
    found = Declarator()
    here: Node | None = node
    while here is not None:
        if here.type in _NAMES:
            found.name = here
            return found
        inner = here.child_by_field_name("declarator")
        if inner is None:
            inner = next((c for c in here.named_children if c.type in _NAMES or c.type.endswith("declarator")), None)
        lists = []
        for child in here.named_children:
            if here.type == "function_declarator" and child.type == "parameter_list":
                lists.append(child)
            elif child != inner:
                found.others.append(child)
        if here.type == "function_declarator":
            if not found.function:
                found.others += found.parameters
                found.parameters = []
            found.parameters += lists
            found.function = True
        elif here.type != "parenthesized_declarator":
            found.function = False
        here = inner
    return found
