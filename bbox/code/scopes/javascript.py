"""Which names of a JavaScript program are the same variable.

Rules: ECMA-262, 8.2 "Scope Analysis", and its annex B.3 (functions in blocks, ``var`` in ``catch``). A name whose
meaning depends on whether the program is strict is refused.
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
    "abstract arguments as async await boolean break byte case catch char class const continue debugger default delete"
    " do double else enum eval export extends false final finally float for from function get goto if implements import"
    " in instanceof int interface let long native new null of package private protected public return set short static"
    " super switch synchronized this throw throws transient true try typeof undefined using var void volatile while"
    " with yield"
)
GLOBALS = (
    "AbortController Array ArrayBuffer Atomics BigInt Blob Boolean Buffer DataView Date Error Event EventTarget File"
    " FormData Function Headers Infinity Intl Iterator JSON Map Math NaN Number Object Promise Proxy RangeError React"
    " ReferenceError Reflect RegExp Request Response Set String Symbol SyntaxError TextDecoder TextEncoder TypeError"
    " URIError URL URLSearchParams WeakMap WeakRef WeakSet WebAssembly WebSocket XMLHttpRequest alert atob btoa"
    " clearImmediate clearInterval clearTimeout confirm console crypto decodeURI decodeURIComponent define document"
    " encodeURI encodeURIComponent escape event exports fetch global globalThis history isFinite isNaN jQuery"
    " localStorage location module name navigator parent parseFloat parseInt performance process prompt queueMicrotask"
    " require screen self sessionStorage setImmediate setInterval setTimeout structuredClone top unescape window"
    " __dirname __filename"
)
RESERVED = frozenset([*KEYWORDS.split(), *GLOBALS.split()])

FUNCTIONS = frozenset(
    [
        *("function_declaration", "function_expression", "generator_function", "generator_function_declaration"),
        *("arrow_function", "method_definition"),
    ]
)
# Their ``name`` is that of the variable they are first assigned to.
NAMED_AFTER = frozenset(["arrow_function", "function_expression", "generator_function", "class"])
SHORTHAND = frozenset(["shorthand_property_identifier", "shorthand_property_identifier_pattern"])
PATTERNS = frozenset(["object_pattern", "array_pattern", "rest_pattern", "formal_parameters"])
BLOCKS = frozenset(["statement_block", "switch_body", "for_statement"])

Step: TypeAlias = "Iterator[tuple[Node, Scope]]"


def bindings(root: Node) -> Iterable[Binding]:
    """The variables of functions and blocks, and the functions, of a JavaScript program."""
    found = _Walk()
    walk(root, found.program, found.visit)
    return found.linked()


@dataclass
class _Walk:
    """Names are hoisted to the head of their scope, so uses meet declarations after the walk.

    Attributes:
        inner: scopes but the program's own.
        hoisted: ``var`` declarations and the scopes in which they stand.
        bodies: scopes of parameters and of the bodies that belong to them, where they are not one.
        exposed: scopes whose names ``eval`` or ``with`` may look up.
        fixed: names that no binding may give up, and why.
    """

    program: Scope = field(default_factory=lambda: Scope(function=True))
    inner: list[Scope] = field(default_factory=list)
    hoisted: list[tuple[Scope, str]] = field(default_factory=list)
    used: list[tuple[Scope, Node]] = field(default_factory=list)
    named_after: list[tuple[Scope, Node]] = field(default_factory=list)
    bodies: list[tuple[Scope, Scope]] = field(default_factory=list)
    exposed: list[Scope] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)

    def visit(self, node: Node, scope: Scope) -> Step:
        handler = getattr(self, f"visit_{node.type}", None)
        if handler is not None:
            yield from handler(node, scope)
        elif node.type in FUNCTIONS:
            yield from self.function(node, scope)
        elif node.type in SHORTHAND:
            self.fixed.setdefault(text(node), "written as a shorthand property")
            self.used.append((scope, node))
        else:
            inside = self.nested(scope) if node.type in BLOCKS else scope
            for child in node.named_children:
                yield child, inside

    def visit_identifier(self, node: Node, scope: Scope) -> Step:
        self.used.append((scope, node))
        if text(node) == "eval":
            self.exposed.append(scope)
        yield from ()

    def function(self, node: Node, scope: Scope) -> Step:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        inside = self.nested(scope, function=True)
        if name is not None and node.type.endswith("declaration"):
            self.declare(scope, name, "function")
            if not scope.function:
                self.fixed.setdefault(text(name), "a function that is declared in a block")
        elif name is not None and node.type != "method_definition":
            around = self.nested(scope)
            inside.parent = around
            self.declare(around, name, "function")
        elif name is not None:
            yield name, scope
        listed = node.child_by_field_name("parameters") or node.child_by_field_name("parameter")
        if listed is not None:
            yield from self.bind(listed, inside, "parameter")
            if any(child.type != "identifier" for child in listed.named_children):
                # Defaults do not see the variables of the body.
                self.bodies.append((inside, self.nested(inside, function=True)))
                inside = self.bodies[-1][1]
        if body is not None and body.type == "statement_block":
            for child in body.named_children:
                yield child, inside
        elif body is not None:
            yield body, inside

    def visit_class_static_block(self, node: Node, scope: Scope) -> Step:
        inside = self.nested(scope, function=True)
        for child in node.named_children:
            yield child, inside

    def visit_class_declaration(self, node: Node, scope: Scope) -> Step:
        name = node.child_by_field_name("name")
        if name is not None:
            self.declare(scope, name, "function")
        for child in node.named_children:
            if child != name:
                yield child, scope

    def visit_class(self, node: Node, scope: Scope) -> Step:
        yield from self.visit_class_declaration(node, self.nested(scope))

    def visit_variable_declaration(self, node: Node, scope: Scope) -> Step:
        yield from self.declarators(node, scope, _function(scope))

    def visit_lexical_declaration(self, node: Node, scope: Scope) -> Step:
        yield from self.declarators(node, scope, scope)

    visit_using_declaration = visit_lexical_declaration

    def declarators(self, node: Node, scope: Scope, holder: Scope) -> Step:
        for declarator in node.named_children:
            name, value = declarator.child_by_field_name("name"), declarator.child_by_field_name("value")
            if name is not None:
                yield from self.bind(name, holder, "local", scope)
                self.follow(name, value, holder)
            if value is not None:
                yield value, scope

    def visit_for_in_statement(self, node: Node, scope: Scope) -> Step:
        inside = self.nested(scope)
        left, kind = node.child_by_field_name("left"), node.child_by_field_name("kind")
        for child in node.named_children:
            if child == left and kind is not None:
                yield from self.bind(child, _function(scope) if text(kind) == "var" else inside, "local", inside)
            else:
                yield child, scope if child == node.child_by_field_name("right") else inside

    def visit_catch_clause(self, node: Node, scope: Scope) -> Step:
        inside = self.nested(scope)
        parameter = node.child_by_field_name("parameter")
        for child in node.named_children:
            if child == parameter:
                yield from self.bind(child, inside, "local")
            else:
                yield child, inside

    def visit_with_statement(self, node: Node, scope: Scope) -> Step:
        self.exposed.append(scope)
        inside = self.nested(scope)
        self.exposed.append(inside)
        for child in node.named_children:
            yield child, inside

    def visit_assignment_expression(self, node: Node, scope: Scope) -> Step:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None:
            self.follow(left, right, scope)
        for child in node.named_children:
            yield child, scope

    def visit_export_statement(self, node: Node, scope: Scope) -> Step:
        declaration = node.child_by_field_name("declaration")
        name = declaration.child_by_field_name("name") if declaration is not None else None
        if name is not None:
            self.fixed.setdefault(text(name), "exported")
        for child in node.named_children:
            yield child, scope

    def visit_export_specifier(self, node: Node, scope: Scope) -> Step:
        for child in node.named_children:
            self.fixed.setdefault(text(child), "exported")
        yield from ()

    def visit_import_clause(self, node: Node, scope: Scope) -> Step:
        """Names of the module, which are not renamed: as if they were global."""
        yield from ()

    def visit_jsx_opening_element(self, node: Node, scope: Scope) -> Step:
        name = node.child_by_field_name("name")
        if name is not None:
            for word in re.findall(r"[\w$]+", text(name)):
                self.fixed.setdefault(word, "the name of a JSX element")
        for child in node.named_children:
            if child != name:
                yield child, scope

    visit_jsx_closing_element = visit_jsx_self_closing_element = visit_jsx_opening_element

    def bind(self, target: Node, scope: Scope, kind: Kind, stands: Scope | None = None) -> Step:
        """Declare the names of a pattern. ``stands``: the scope of a declaration that is hoisted out of it."""
        stack = [target]
        while stack:
            node = stack.pop()
            if node.type == "identifier" or node.type in SHORTHAND:
                self.declare(scope, node, kind)
                if stands is not None and stands is not scope:
                    self.hoisted.append((stands, text(node)))
                if node.type in SHORTHAND:
                    self.fixed.setdefault(text(node), "written as a shorthand property")
            elif node.type in PATTERNS:
                stack += node.named_children
            elif node.type in ("assignment_pattern", "object_assignment_pattern"):
                left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
                if left is not None and right is not None:
                    stack.append(left)
                    self.follow(left, right, scope)
                    yield right, stands or scope
            elif node.type == "pair_pattern":
                key, value = node.child_by_field_name("key"), node.child_by_field_name("value")
                if key is not None and value is not None:
                    stack.append(value)
                    yield key, stands or scope
            else:
                yield node, stands or scope

    def declare(self, scope: Scope, node: Node, kind: Kind) -> None:
        if not node.is_missing:
            variable = scope.declare(Variable(text(node), kind))
            variable.spans.add(span(node))
            variable.kind = "function" if kind == "function" else variable.kind

    def follow(self, target: Node, value: Node | None, scope: Scope) -> None:
        """A function without a name gets that of its variable, which is then a function's name."""
        if target.type == "identifier" and value is not None and value.type in NAMED_AFTER:
            self.named_after.append((scope, target))

    def nested(self, scope: Scope, function: bool = False) -> Scope:
        self.inner.append(Scope(scope, function))
        return self.inner[-1]

    def linked(self) -> list[Binding]:
        for scope, node in self.used:
            variable = scope.lookup(text(node))
            if variable is not None and not node.is_missing:
                variable.spans.add(span(node))
        for scope, node in self.named_after:
            variable = scope.lookup(text(node))
            if variable is not None:
                variable.kind = "function"
        for scope, name in self.hoisted:
            between = [outer for outer in scope.outward() if name in outer.names]
            if between and between[0] is not _function(scope):
                self.fixed.setdefault(name, "a var behind a variable of the same name")
        for parameters, body in self.bodies:
            for name in sorted(parameters.names.keys() & body.names.keys()):
                self.fixed.setdefault(name, "a var of the name of a parameter")
        for exposed in self.exposed:
            for scope in exposed.outward():
                for variable in scope.names.values():
                    variable.refuse("may be looked up by name (eval, with)")
        found = [variable for scope in self.inner for variable in scope.names.values()]
        found += [variable for variable in self.program.names.values() if variable.kind == "function"]
        for variable in found:
            if variable.name in self.fixed:
                variable.refuse(self.fixed[variable.name])
            if variable.kind == "parameter" and variable.name.startswith("$"):
                variable.refuse("a parameter with $ may be filled in by its name")
            if variable.name == "arguments":
                variable.refuse("its name means something")
        return [variable.frozen() for variable in found]


def _function(scope: Scope) -> Scope:
    return next(outer for outer in scope.outward() if outer.function)
