"""Scopes of C++: those of C, with classes, lambdas, templates and references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from bbox.code.bindings import Binding, Kind
from bbox.code.scopes.blocks import ClassScope, Step, Walker, identifiers, in_function, text
from bbox.code.scopes.c import CWalker
from bbox.code.scopes.declarators import Declarator, declarator_of
from bbox.code.scopes.reserved import CPP_RESERVED, CPP_WORDS, names
from bbox.code.scoping import Scope

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["RESERVED", "bindings"]

RESERVED = CPP_RESERVED


def bindings(root: Node) -> Iterable[Binding]:
    """Parameters, locals and functions of a C++ program."""
    return CppWalker().walk(root)


class CppWalker(CWalker):
    """Resolves C++. Members are never renamed, and a function only where it has one signature."""

    meaningful = CPP_WORDS
    reserved = CPP_RESERVED
    opaque_nodes = CWalker.opaque_nodes | names(
        "namespace_identifier raw_string_literal destructor_name access_specifier operator_name"
    )

    def __init__(self) -> None:
        super().__init__()
        self.signatures: defaultdict[str, set[str]] = defaultdict(set)
        self.qualified: set[str] = set()
        self.directive = False

    def finish(self) -> None:
        super().finish()
        for variable in self.variables:
            if variable.kind == "function":
                if len(self.signatures[variable.name]) > 1:
                    variable.refuse("overloaded")
                if self.directive:
                    variable.refuse("a using-directive may bring functions of the same name")
                if variable.name in self.qualified | self.members:
                    variable.refuse("also reached through a class or a namespace")

    def define(self, node: Node, parts: Declarator, scope: Scope) -> list[Step]:
        name = parts.name
        if name is None or name.type != "identifier" or isinstance(scope, ClassScope):
            return self.each([name], scope) if name is not None else []
        self.signatures[text(name)].add(_signature(parts))
        return super().define(node, parts, scope)

    def bind(self, parts: Declarator, scope: Scope, kind: Kind | None, refusal: str) -> list[Step]:
        name = parts.name
        if name is None or name.type in ("qualified_identifier", "template_function", "operator_name", "operator_cast"):
            return self.each([name, *parts.parameters], scope)
        if name.type == "structured_binding_declarator":
            for part in name.named_children:
                self.declare(part, scope, kind, refusal)
            return []
        if parts.function and kind == "local" and self._is_initializer(parts, scope):  # T name(value);
            self.declare(name, scope, kind, refusal)
            return self.each([found for parameters in parts.parameters for found in identifiers(parameters)], scope)
        if parts.function:
            self.signatures[text(name)].add(_signature(parts))
        return super().bind(parts, scope, kind, refusal)

    def _is_initializer(self, parts: Declarator, scope: Scope) -> bool:
        """Whether what looks like a prototype has a variable where a prototype has a type."""
        for parameters in parts.parameters:
            for name in identifiers(parameters):
                variable = scope.lookup(text(name)) if name.type == "type_identifier" else None
                if variable is not None and variable.kind != "function" and not self.is_hidden(variable):
                    return True
        return False

    # Scopes that C does not have.

    def visit_compound_statement(self, node: Node, scope: Scope) -> Iterable[Step]:
        """Outside of functions, this is a class whose head was not understood (``class EXPORT Name : Base {``)."""
        return self.each(node.named_children, Scope(scope) if in_function(scope) else ClassScope(scope, inherits=True))

    def visit_ERROR(self, node: Node, scope: Scope) -> Iterable[Step]:  # noqa: N802
        return Walker.visit_ERROR(self, node, scope)

    def visit_function_definition(self, node: Node, scope: Scope) -> Iterable[Step]:
        declarator = node.child_by_field_name("declarator")
        name = declarator_of(declarator).name if declarator is not None else None
        if name is not None and name.type == "qualified_identifier":
            scope = ClassScope(scope, inherits=True)  # a member, defined outside: it sees its class first
        return super().visit_function_definition(node, scope)

    def visit_field_declaration_list(self, node: Node, scope: Scope) -> Iterable[Step]:
        inherits = (
            any(child.type == "base_class_clause" for child in node.parent.named_children) if node.parent else True
        )
        members = ClassScope(scope, inherits=inherits)
        for child in node.named_children:
            for declarator in child.children_by_field_name("declarator"):
                name = declarator_of(declarator).name
                if name is not None:
                    self.declare(name, members, None)
        return self.each(node.named_children, members)

    def visit_template_parameter_list(self, node: Node, scope: Scope) -> None:
        self.fixed |= {text(name) for name in identifiers(node)}

    def visit_lambda_expression(self, node: Node, scope: Scope) -> Iterable[Step]:
        inner = Scope(scope, function=True)
        steps: list[Step] = []
        captures = node.child_by_field_name("captures")
        initialized: set[str] = set()
        for child in captures.named_children if captures is not None else ():
            if child.type == "lambda_capture_initializer":
                left = child.child_by_field_name("left")
                steps += self.each([child.child_by_field_name("right")], scope)
                if left is not None:
                    initialized.add(text(left))
                    steps.append(partial(self._declare, left, inner, "local"))
            else:
                steps += self.each([child], scope)
        declarator = node.child_by_field_name("declarator")
        for child in declarator.named_children if declarator is not None else ():
            steps += self.each(child.named_children if child.type == "parameter_list" else [child], inner)
            if child.type == "trailing_return_type":  # C++23 looks names up among the captures, C++17 outside
                self.fixed |= initialized & {text(name) for name in identifiers(child)}
        body = node.child_by_field_name("body")
        steps += self.each([c for c in node.named_children if c not in (captures, declarator, body)], inner)
        return steps + self.each(body.named_children if body is not None else (), inner)

    def visit_for_range_loop(self, node: Node, scope: Scope) -> Iterable[Step]:
        inner = Scope(scope)
        right, body = node.child_by_field_name("right"), node.child_by_field_name("body")
        # The range comes before the variable: it does not see it.
        steps = self.each([node.child_by_field_name("initializer"), node.child_by_field_name("type"), right], inner)
        for declarator in node.children_by_field_name("declarator"):
            parts = declarator_of(declarator)
            steps.append(partial(self.bind, parts, inner, "local" if in_function(scope) else None, ""))
        return [*steps, *self.each([body], inner)]

    def visit_catch_clause(self, node: Node, scope: Scope) -> Iterable[Step]:
        inner = Scope(scope)
        steps: list[Step] = []
        for child in node.named_children:
            if child.type == "parameter_list":
                for caught in child.named_children:
                    steps += self.declaration(caught, inner, "local")
            else:
                steps += self.each([child], inner)
        return steps

    def visit_requires_expression(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.block(node, scope)

    visit_optional_parameter_declaration = CWalker.visit_parameter_declaration
    visit_variadic_parameter_declaration = CWalker.visit_parameter_declaration

    # Names that are no variables.

    def visit_struct_specifier(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")
        if name is not None and name.type == "type_identifier" and node.child_by_field_name("body") is not None:
            self.declare(name, scope, None)  # hides a variable of an outer block, as a tag in C does not
        return super().visit_struct_specifier(node, scope)

    visit_class_specifier = visit_struct_specifier
    visit_union_specifier = visit_struct_specifier

    def visit_enum_specifier(self, node: Node, scope: Scope) -> Iterable[Step]:
        scoped = any(child.type in ("class", "struct") for child in node.children)
        return self.visit_struct_specifier(node, Scope(scope) if scoped else scope)

    def visit_alias_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")
        if name is not None:
            self.declare(name, scope, None)
        return self.each([node.child_by_field_name("type")], scope)

    def visit_using_declaration(self, node: Node, scope: Scope) -> None:
        found = [name for name in identifiers(node) if name.type == "identifier"]
        if "namespace" in text(node).split():
            self.directive = True
        elif found:
            self.declare(found[-1], scope, None)
            self.qualified.add(text(found[-1]))

    def visit_namespace_definition(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each([node.child_by_field_name("body")], scope)

    def visit_friend_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        self.qualified |= {text(name) for name in identifiers(node)}
        return self.each(node.named_children, scope)

    def visit_concept_definition(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each(node.named_children[1:], scope)

    def visit_qualified_identifier(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")
        if name is not None and name.type == "identifier":
            self.qualified.add(text(name))
        return [partial(self.visit, part, scope) for part in _arguments(node)]

    visit_dependent_name = visit_qualified_identifier


def _arguments(node: Node) -> list[Node]:
    """The template argument lists inside a qualified name."""
    found, waiting = [], list(node.named_children)
    while waiting:
        here = waiting.pop(0)
        if here.type == "template_argument_list":
            found.append(here)
        else:
            waiting += here.named_children
    return found


def _signature(parts: Declarator) -> str:
    """The parameter types of a function, without names and default values."""
    types = []
    for parameter in (parameter for parameters in parts.parameters for parameter in parameters.named_children):
        written = text(parameter).split("=")[0]
        declarator = parameter.child_by_field_name("declarator")
        name = declarator_of(declarator).name if declarator is not None else None
        types.append("".join((written.replace(text(name), "", 1) if name is not None else written).split()))
    return ",".join(types)
