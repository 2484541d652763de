"""Which names of a Go program are the same variable.

Rules: The Go Programming Language Specification, "Declarations and scope". Names of the package are not resolved (other
files see them), except functions that are not exported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from bbox.code.bindings import Binding, Kind
from bbox.code.scoping import Scope, Variable, span, text, walk

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["RESERVED", "bindings"]

KEYWORDS = (
    "break case chan const continue default defer else fallthrough for func go goto if import interface map package"
    " range return select struct switch type var"
)
PREDECLARED = (
    "any append bool byte cap clear close comparable complex complex128 complex64 copy delete error false float32"
    " float64 imag int int16 int32 int64 int8 iota len make max min new nil panic print println real recover rune"
    " string true uint uint16 uint32 uint64 uint8 uintptr init main"
)
RESERVED = frozenset([*KEYWORDS.split(), *PREDECLARED.split()])

FUNCTIONS = frozenset(["function_declaration", "method_declaration", "func_literal"])
BLOCKS = frozenset(
    [
        *("block", "if_statement", "for_statement", "expression_switch_statement", "select_statement"),
        *("expression_case", "type_case", "default_case", "communication_case"),
    ]
)
PARAMETERS = frozenset(["parameter_declaration", "variadic_parameter_declaration"])
# A variable cannot stand where a type or a package does: the grammar guessed, as in ``f[i](x)``.
NOT_VALUES = frozenset(["type_identifier", "package_identifier"])
KEYED_BY_VALUE = frozenset(["map_type", "slice_type", "array_type", "implicit_length_array_type"])

Step: TypeAlias = "Iterator[tuple[Node, Scope]]"


def bindings(root: Node) -> Iterable[Binding]:
    """The variables of functions, and the functions, of a Go program."""
    found = _Walk()
    for child in root.named_children:
        name = child.child_by_field_name("name")
        if child.type == "function_declaration" and name is not None:
            variable = found.declare(found.package, name, "function")
            if variable is not None and (variable.name in ("main", "init") or not variable.name[0].islower()):
                variable.refuse("exported, or called by the language")
    walk(root, found.package, found.visit)
    for variable in found.variables:
        if variable.name in found.fixed:
            variable.refuse(found.fixed[variable.name])
    return [variable.frozen() for variable in found.variables]


@dataclass
class _Walk:
    """A name counts from its declaration on, so uses are resolved as they come; right sides come before left ones."""

    package: Scope = field(default_factory=Scope)
    variables: list[Variable] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)

    def visit(self, node: Node, scope: Scope) -> Step:
        handler = getattr(self, f"visit_{node.type}", None)
        if handler is not None:
            yield from handler(node, scope)
        elif node.type in FUNCTIONS:
            yield from self.function(node, scope)
        elif node.type in NOT_VALUES:
            self.refuse(node, scope, "stands where a type or a package does")
        elif node.type in PARAMETERS:
            # Of a function type: they name nothing.
            for kind in node.children_by_field_name("type"):
                yield kind, scope
        else:
            inside = Scope(scope) if node.type in BLOCKS else scope
            for child in node.named_children:
                yield child, inside

    def visit_identifier(self, node: Node, scope: Scope) -> Step:
        variable = scope.lookup(text(node))
        if variable is not None and not node.is_missing:
            variable.spans.add(span(node))
        yield from ()

    def visit_comment(self, node: Node, scope: Scope) -> Step:
        if text(node).startswith(("//go:", "//export")):
            self.fix(text(node), "named in a directive")
        yield from ()

    def function(self, node: Node, scope: Scope) -> Step:
        inside = Scope(scope, function=True)
        generic = node.child_by_field_name("type_parameters")
        if generic is not None:
            yield generic, inside
        for part in ("receiver", "parameters", "result"):
            listed = node.child_by_field_name(part)
            if listed is not None and listed.type != "parameter_list":
                yield listed, inside
                continue
            for parameter in listed.named_children if listed is not None else ():
                for kind in parameter.children_by_field_name("type"):
                    yield kind, scope
                for name in parameter.children_by_field_name("name"):
                    self.declare(inside, name, "parameter")
        body = node.child_by_field_name("body")
        for child in body.named_children if body is not None else ():
            yield child, inside

    def visit_short_var_declaration(self, node: Node, scope: Scope) -> Step:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if right is not None:
            yield right, scope
        for name in left.named_children if left is not None else ():
            self.declare(scope, name, "local")

    def visit_range_clause(self, node: Node, scope: Scope) -> Step:
        if any(child.type == ":=" for child in node.children):
            yield from self.visit_short_var_declaration(node, scope)
        else:
            for child in node.named_children:
                yield child, scope

    visit_receive_statement = visit_range_clause

    def visit_type_switch_statement(self, node: Node, scope: Scope) -> Step:
        inside = Scope(scope)
        alias = node.child_by_field_name("alias")
        for child in node.named_children:
            if child != alias:
                if child.type.endswith("_case") and alias is not None:
                    for name in alias.named_children:
                        self.declare(inside, name, "local")
                    alias = None
                yield child, inside

    def visit_var_spec(self, node: Node, scope: Scope) -> Step:
        names = node.children_by_field_name("name")
        for child in node.named_children:
            if child not in names:
                yield child, scope
        for name in names:
            if scope is not self.package:
                self.declare(scope, name, "local")

    visit_const_spec = visit_var_spec

    def visit_type_spec(self, node: Node, scope: Scope) -> Step:
        name = node.child_by_field_name("name")
        for child in node.named_children:
            if child == name:
                self.fix(text(child), "also a type")
            else:
                yield child, scope

    visit_type_alias = visit_type_spec

    def visit_composite_literal(self, node: Node, scope: Scope) -> Step:
        kind = node.child_by_field_name("type")
        body = node.child_by_field_name("body")
        for child in node.named_children:
            if child == body and kind is not None and kind.type in KEYED_BY_VALUE:
                for element in child.named_children:
                    if element.type == "keyed_element":
                        for part in element.named_children:
                            yield part, scope
                    else:
                        yield element, scope
            else:
                yield child, scope

    def visit_keyed_element(self, node: Node, scope: Scope) -> Step:
        """Of a literal whose type is not spelt out: a plain key may be a field or a variable."""
        key = node.child_by_field_name("key")
        for child in node.named_children:
            if child == key and child.named_child_count == 1 and child.named_children[0].type == "identifier":
                self.refuse(child.named_children[0], scope, "may be the key of a field")
            else:
                yield child, scope

    def visit_type_parameter_declaration(self, node: Node, scope: Scope) -> Step:
        names = node.children_by_field_name("name")
        for child in node.named_children:
            if child in names:
                self.fix(text(child), "also a type parameter")
            else:
                yield child, scope

    def visit_method_elem(self, node: Node, scope: Scope) -> Step:
        for part in ("parameters", "result"):
            listed = node.child_by_field_name(part)
            if listed is not None:
                yield listed, scope

    def declare(self, scope: Scope, node: Node, kind: Kind) -> Variable | None:
        """Bind a name here, or refer to the variable of this scope that has it already."""
        if node.type != "identifier" or node.is_missing or text(node) == "_":
            return None
        variable = scope.names.get(text(node))
        if variable is None:
            variable = scope.declare(Variable(text(node), kind))
            self.variables.append(variable)
        variable.spans.add(span(node))
        return variable

    def refuse(self, node: Node, scope: Scope, reason: str) -> None:
        variable = scope.lookup(text(node))
        if variable is not None:
            variable.refuse(reason)

    def fix(self, source: str, reason: str) -> None:
        for word in re.findall(r"\w+", source):
            self.fixed.setdefault(word, reason)
