"""Scopes of C, also the ground that C++ is built on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from bbox.code.bindings import Binding, Kind
from bbox.code.scopes.blocks import ClassScope, Step, identifiers, in_function, text
from bbox.code.scopes.declarators import Declarator, declarator_of
from bbox.code.scopes.preprocessor import PreprocessorWalker
from bbox.code.scopes.reserved import C_RESERVED, C_WORDS, names
from bbox.code.scoping import Scope

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["RESERVED", "CWalker", "bindings"]

RESERVED = C_RESERVED

_CONTAINERS = names(
    "translation_unit preproc_if preproc_ifdef preproc_elif preproc_elifdef preproc_else linkage_specification "
    "declaration_list namespace_definition template_declaration"
)
_MACRO = re.compile(r"[A-Za-z]{0,4}_?[A-Z0-9]*_[A-Z0-9_]+")
_STATEMENTS = names("break case continue delete do else goto return throw")
_CAPTURING = {"Py_VISIT": {"visit", "arg"}}  # macros that use locals which they are not given
_MEMBER_MACRO = re.compile(r"offset_?of|container_?of|list|queue|tailq|for_?each|entry|field|member", re.IGNORECASE)


def bindings(root: Node) -> Iterable[Binding]:
    """Parameters, locals and functions of a C program."""
    return CWalker().walk(root)


class CWalker(PreprocessorWalker):
    """Resolves C.

    Attributes:
        meaningful: names that mean something to the language or the preprocessor.
        reserved: those, and what the library declares.
    """

    meaningful = C_WORDS
    reserved = C_RESERVED
    opaque_nodes = names(
        "statement_identifier gnu_asm_goto_list gnu_asm_clobber_list comment preproc_include "
        "char_literal number_literal primitive_type preproc_defined"
    )

    def __init__(self) -> None:
        super().__init__()
        self.members: set[str] = set()
        self.member_arguments: set[str] = set()
        self.strings: set[str] = set()

    def prepare(self, root: Node) -> Scope:
        scope = Scope()
        for node in self._definitions(root):
            declarator = node.child_by_field_name("declarator")
            parts = declarator_of(declarator) if declarator is not None else Declarator()
            if parts.name is not None and parts.name.type == "identifier" and len(parts.parameters) < 2:
                self.declare(parts.name, scope, "function")
        return scope

    def _definitions(self, node: Node) -> Iterator[Node]:
        for child in node.named_children:
            if child.type == "function_definition":
                yield child
            elif child.type in _CONTAINERS:
                yield from self._definitions(child)

    def finish(self) -> None:
        super().finish()
        self.fixed |= self.members & self.member_arguments
        for variable in self.variables:
            if variable.name in (self.reserved if variable.kind == "function" else self.meaningful):
                variable.refuse("the language or its library gives this name a meaning")
            if variable.kind == "function" and variable.name in self.strings:
                variable.refuse("a string has this name")

    # Blocks.

    def visit_compound_statement(self, node: Node, scope: Scope) -> Iterable[Step]:
        if in_function(scope):
            return self.block(node, scope)
        self.broken.append((node.start_byte, node.end_byte))  # the body of a function whose head was not understood
        return self.each(node.named_children, Scope(scope, function=True))

    def visit_for_statement(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.block(node, scope)

    visit_if_statement = visit_for_statement
    visit_while_statement = visit_for_statement
    visit_switch_statement = visit_for_statement
    visit_parameter_list = visit_for_statement  # of a prototype: its names mean nothing outside

    def visit_ERROR(self, node: Node, scope: Scope) -> Iterable[Step]:  # noqa: N802
        heads = [child for child in node.named_children if child.type == "function_declarator"]
        if len(heads) != 1 or in_function(scope):
            return super().visit_ERROR(node, scope)
        inner = Scope(scope, function=True)  # a function that the parser gave up on somewhere
        parameters = [each for found in declarator_of(heads[0]).parameters for each in self._parameters(found, inner)]
        return [*parameters, *super().visit_ERROR(node, inner)]

    # Declarations.

    def visit_function_definition(self, node: Node, scope: Scope) -> Iterable[Step]:
        self.note_function(node, scope)
        body, head = node.child_by_field_name("body"), node.child_by_field_name("declarator")
        parts = declarator_of(head) if head is not None else Declarator()
        if head is not None and text(parts.name) in self.meaningful:
            # A macro without ";" before a statement: MACRO if (...) {...}
            return self.each([*identifiers(head), *(c for c in node.named_children if c != head)], scope)
        if head is not None and head.type in ("identifier", "type_identifier"):
            # A macro in the head of a type: struct PACKED name {...}
            inside = Scope(scope) if in_function(scope) else ClassScope(scope, inherits=True)
            return self.each(body.named_children if body is not None else (), inside)
        inner = Scope(scope, function=True)
        steps: list[Step] = []
        for child in node.named_children:
            if child == body:
                steps += self.each(child.named_children if child.type == "compound_statement" else [child], inner)
            elif child == head:
                if parts.name is not None:
                    steps += self.define(node, parts, scope)
                for parameters in parts.parameters:
                    steps += self._parameters(parameters, inner)
                steps += self.each(parts.others, inner)
            else:
                steps += self.each([child], inner)
        return steps

    def define(self, node: Node, parts: Declarator, scope: Scope) -> list[Step]:
        """Bind the name of a function that is defined here."""
        if parts.name is None or len(parts.parameters) > 1:
            return []
        return [partial(self._declare, parts.name, scope, "function")]

    def _parameters(self, node: Node, inner: Scope) -> list[Step]:
        steps: list[Step] = []
        for child in node.named_children:
            if child.type == "identifier":  # before C90: names here, types below
                steps.append(partial(self._declare, child, inner, "parameter"))
            else:
                steps += self.each([child], inner)
        return steps

    def _declare(self, node: Node, scope: Scope, kind: Kind | None, refusal: str = "") -> None:
        self.declare(node, scope, kind, refusal)

    def visit_parameter_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        if scope.function:
            return self.declaration(node, scope, "parameter")
        return self.declaration(node, scope, "parameter", "a parameter of a function that is not defined here")

    def visit_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        kind_of = node.child_by_field_name("type")
        if self.is_expression(node, kind_of, scope):
            return self.each(node.named_children, scope)
        storage = {text(child) for child in node.named_children if child.type == "storage_class_specifier"}
        hidden = "extern" in storage or text(kind_of) == "__label__" or not in_function(scope)
        return self.declaration(node, scope, None if hidden else "local")

    def is_expression(self, node: Node, kind_of: Node | None, scope: Scope) -> bool:
        """Whether a "declaration" is none: ``a * b;`` of two variables, or a macro without ``;`` before an assignment.

        To be wrong about it costs names, no more: without its declaration a variable stays what it is, and a
        declaration that hides another local is taken for one variable with it.
        """
        if any(child.is_error for child in node.children):
            return True
        head = (
            kind_of.child_by_field_name("name") if kind_of is not None and kind_of.type == "template_type" else kind_of
        )
        if head is None or head.type != "type_identifier":
            return False
        variable = scope.lookup(text(head))
        known = variable is not None and variable.kind != "function" and not self.is_hidden(variable)
        if known or text(head) in _STATEMENTS:
            return True
        first = node.child_by_field_name("declarator")
        if first is None or first.type != "init_declarator" or first.named_children[0].type != "identifier":
            return False
        return first.start_point.row > head.end_point.row or _MACRO.fullmatch(text(head)) is not None

    def declaration(self, node: Node, scope: Scope, kind: Kind | None, refusal: str = "") -> list[Step]:
        """Steps for a node with ``declarator`` children; a name is visible after its declarator."""
        if any(child.is_error for child in node.children):
            return self.each(node.named_children, scope)
        steps: list[Step] = []
        for place, child in enumerate(node.children):
            if not child.is_named:
                continue
            if node.field_name_for_child(place) != "declarator":
                steps += self.each([child], scope)
                continue
            inner = child.child_by_field_name("declarator") if child.type == "init_declarator" else child
            parts = declarator_of(inner or child)
            steps += self.each(parts.others, scope)
            if parts.name is not None:
                steps.append(partial(self.bind, parts, scope, kind, refusal))
            if child.type == "init_declarator":
                steps += self.each([child.child_by_field_name("value")], scope)
        return steps

    def bind(self, parts: Declarator, scope: Scope, kind: Kind | None, refusal: str) -> list[Step]:
        """Bind one declared name; a prototype is the function of that name, where it is defined here."""
        if parts.name is not None:
            known = scope.lookup(text(parts.name)) if parts.function and kind != "parameter" else None
            if known is not None and known.kind == "function":
                scope.names[known.name] = known
                known.spans.add((parts.name.start_byte, parts.name.end_byte))
            else:
                hidden = parts.function and kind != "parameter"
                self.declare(parts.name, scope, None if hidden else kind, refusal)
        return self.each(parts.parameters, scope)

    def visit_type_definition(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.declaration(node, scope, None)

    def visit_enumerator(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")
        return [
            *self.each([node.child_by_field_name("value")], scope),
            *([partial(self._declare, name, scope, None)] if name is not None else []),
        ]

    def visit_struct_specifier(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")  # tags have names of their own
        return self.each((child for child in node.named_children if child != name), scope)

    visit_union_specifier = visit_struct_specifier
    visit_enum_specifier = visit_struct_specifier

    # Uses.

    def visit_type_identifier(self, node: Node, scope: Scope) -> None:
        """A variable hides a type of its name: what the parser took for the type is the variable."""
        variable = self.use(node, scope)
        if variable is not None and variable.kind == "function":
            variable.refuse("a type has this name")

    def visit_field_identifier(self, node: Node, scope: Scope) -> None:
        self.members.add(text(node))

    def visit_string_literal(self, node: Node, scope: Scope) -> None:
        self.strings.add(text(node).strip('"'))

    def visit_call_expression(self, node: Node, scope: Scope) -> Iterable[Step]:
        function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if function is not None and arguments is not None and function.type == "identifier":
            name = text(function)
            self.calls.append((name, arguments))
            self.fixed |= _CAPTURING.get(name, set())
            if name in self.reserved:  # min(a, min): a macro beside a variable
                self.fixed.add(name)
            if _MEMBER_MACRO.search(name):  # QLIST_REMOVE(item, next): next may be a field, as in item->next
                self.member_arguments |= {
                    text(child) for child in arguments.named_children if child.type == "identifier"
                }
        return self.each(node.named_children, scope)

    def visit_pointer_expression(self, node: Node, scope: Scope) -> Iterable[Step] | None:
        argument = node.child_by_field_name("argument")
        if text(node).startswith("&&") and argument is not None and argument.type == "pointer_expression":
            return None  # GNU: the address of a label
        return self.each([argument], scope)

    def visit_gnu_asm_output_operand(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each([node.child_by_field_name("value")], scope)

    visit_gnu_asm_input_operand = visit_gnu_asm_output_operand
