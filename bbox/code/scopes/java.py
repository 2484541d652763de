"""Scopes of Java."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from bbox.code.bindings import Binding, Kind
from bbox.code.scopes.blocks import ClassScope, Step, Walker, in_function, text, words
from bbox.code.scopes.reserved import JAVA_RESERVED, JAVA_WORDS, names
from bbox.code.scoping import Scope, Variable

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["RESERVED", "bindings"]

RESERVED = JAVA_RESERVED

_NO_FIELDS = names(
    "ActionListener Callable Comparator Consumer FileFilter Function Iterable Iterator Runnable Supplier Thread "
    "ChangeListener FilenameFilter ItemListener PrivilegedAction PrivilegedExceptionAction ListSelectionListener "
    "InvocationHandler Predicate BiFunction BiConsumer MouseListener KeyListener Object"
)
"""JDK types from which a class inherits no field that a local variable could be mistaken for."""

_HARMLESS = names("NonNull Nonnull NotNull Nullable CheckForNull SuppressWarnings Deprecated")


def bindings(root: Node) -> Iterable[Binding]:
    """Parameters, locals and methods of a Java program, or of a method cut out of one."""
    return JavaWalker().walk(root)


class JavaWalker(Walker):
    """Resolves Java. Methods have names of their own: they are kept under ``name()``."""

    opaque_nodes = names(
        "package_declaration import_declaration scoped_identifier scoped_type_identifier marker_annotation "
        "break_statement continue_statement receiver_parameter type_parameters superclass super_interfaces "
        "extends_interfaces permits throws line_comment block_comment underscore_pattern module_declaration"
    )

    def __init__(self) -> None:
        super().__init__()
        self.regions: list[tuple[Variable, int, int]] = []
        self.methods: Counter[str] = Counter()
        self.through: set[str] = set()
        self.strings: set[str] = set()

    def prepare(self, root: Node) -> Scope:
        scope = Scope()
        self._members(root, scope, inherits=False, abstract=False)
        return scope

    def finish(self) -> None:
        for name_, variable in [(v.name, v) for v in self.variables]:
            if name_ in JAVA_WORDS:
                variable.refuse("the language gives this name a meaning")
            if variable.kind == "function":
                self._check_method(variable)
        bounded = {id(variable): variable for variable, _, _ in self.regions}
        for key, variable in bounded.items():
            ranges = [(first, last) for v, first, last in self.regions if id(v) == key]
            if not all(any(first <= start < last for first, last in ranges) for start, _ in variable.spans):
                variable.refuse("a pattern's variable, used where it may not be the one that is meant")

    def _check_method(self, variable: Variable) -> None:
        if variable.name in RESERVED:
            variable.refuse("the language or its library gives this name a meaning")
        if self.methods[variable.name] > 1:
            variable.refuse("overloaded or overridden")
        if variable.name in self.through:
            variable.refuse("called through an object or a class whose type is not known")
        if variable.name in self.strings:
            variable.refuse("a string has this name")

    # Classes.

    def _members(self, body: Node, scope: Scope, *, inherits: bool, abstract: bool) -> None:
        """Bind the members of a class before any of them is visited: their order does not matter."""
        waiting = list(body.named_children)
        for child in waiting:
            if child.type == "enum_body_declarations":
                waiting += child.named_children
            elif child.type in ("field_declaration", "constant_declaration"):
                for declarator in child.children_by_field_name("declarator"):
                    self._bind(declarator.child_by_field_name("name"), scope, None)
            elif child.type == "enum_constant":
                self._bind(child.child_by_field_name("name"), scope, None)
            elif child.type == "method_declaration":
                name = child.child_by_field_name("name")
                if name is not None:
                    self._method(child, name, scope, inherits=inherits, abstract=abstract)

    def _method(self, node: Node, name: Node, scope: Scope, *, inherits: bool, abstract: bool) -> None:
        key = f"{text(name)}()"
        variable = scope.names.get(key)
        if variable is None:
            variable = scope.names[key] = Variable(text(name), "function")
            self.variables.append(variable)
        variable.spans.add((name.start_byte, name.end_byte))
        self.methods[variable.name] += 1
        annotated = any(
            part.type.endswith("annotation") and text(part.child_by_field_name("name")) not in _HARMLESS
            for child in node.named_children
            if child.type == "modifiers"
            for part in child.named_children
        )
        if annotated or inherits or abstract or node.child_by_field_name("body") is None:
            variable.refuse("may override, be overridden or be found by its name")

    def _bind(self, node: Node | None, scope: Scope, kind: Kind | None, refusal: str = "") -> Variable | None:
        return None if node is None or text(node) == "_" else self.declare(node, scope, kind, refusal)

    def _step(self, node: Node | None, scope: Scope, kind: Kind | None, refusal: str = "") -> Step:
        def bind() -> None:
            self._bind(node, scope, kind, refusal)

        return bind

    def visit_class_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        fields = {node.field_name_for_child(place): child for place, child in enumerate(node.children)}
        abstract = node.type in ("interface_declaration", "annotation_type_declaration")
        inherits = "superclass" in fields or "interfaces" in fields
        inherits = inherits or any(child.type == "extends_interfaces" for child in node.named_children)
        body, parameters = node.child_by_field_name("body"), node.child_by_field_name("parameters")
        members = ClassScope(scope, inherits=inherits)
        for component in parameters.named_children if parameters is not None else ():  # of a record
            self._bind(component.child_by_field_name("name"), members, None)
        if body is None:
            return []
        self._members(body, members, inherits=inherits, abstract=abstract)
        return self._body(body, members)

    visit_interface_declaration = visit_class_declaration
    visit_enum_declaration = visit_class_declaration
    visit_record_declaration = visit_class_declaration
    visit_annotation_type_declaration = visit_class_declaration

    def _body(self, body: Node, members: Scope) -> list[Step]:
        steps: list[Step] = []
        for child in body.named_children:  # an initializer block is like a method
            scope = Scope(members, function=True) if child.type in ("block", "static_initializer") else members
            steps += self.each([child], scope)
        return steps

    def visit_class_body(self, node: Node, scope: Scope) -> Iterable[Step]:
        """The body of an anonymous class or of an enum's constant."""
        parent = node.parent
        kind = parent.child_by_field_name("type") if parent is not None else None
        known = parent is not None and (parent.type == "enum_constant" or _head(kind) in _NO_FIELDS)
        members = ClassScope(scope, inherits=not known)
        self._members(node, members, inherits=True, abstract=False)
        return self._body(node, members)

    def visit_enum_constant(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each([node.child_by_field_name("arguments"), node.child_by_field_name("body")], scope)

    def visit_field_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        values = [declarator.child_by_field_name("value") for declarator in node.children_by_field_name("declarator")]
        return self.each([*(c for c in node.named_children if c.type == "modifiers"), *values], scope)

    visit_constant_declaration = visit_field_declaration

    # Methods.

    def visit_method_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        self.note_function(node, scope)
        inner = Scope(scope, function=True)
        parameters, body = node.child_by_field_name("parameters"), node.child_by_field_name("body")
        refusal = "" if body is not None else "a parameter of a method that is not defined here"
        if node.type == "constructor_declaration" and _in_record(node):
            refusal = "may have to be called like the record's component"
        steps = self.each((c for c in node.named_children if c.type in ("modifiers", "ERROR")), inner)
        steps += self._parameters(parameters, inner, refusal)
        return steps + self.each(body.named_children if body is not None else (), inner)

    visit_constructor_declaration = visit_method_declaration
    visit_compact_constructor_declaration = visit_method_declaration

    def _parameters(self, node: Node | None, inner: Scope, refusal: str = "") -> list[Step]:
        steps: list[Step] = []
        if node is not None and node.type == "identifier":  # x -> ...
            return [self._step(node, inner, "parameter")]
        for child in node.named_children if node is not None else ():
            name: Node | None = child if child.type == "identifier" else child.child_by_field_name("name")
            for part in child.named_children:
                if part.type == "variable_declarator":  # int... xs
                    name = part.child_by_field_name("name")
                elif part != name:
                    steps += self.each([part], inner)
            if name is None:
                steps += self.each([child], inner)
            else:
                steps.append(self._step(name, inner, "parameter", refusal or _annotated(child)))
        return steps

    def visit_lambda_expression(self, node: Node, scope: Scope) -> Iterable[Step]:
        inner = Scope(scope, function=True)
        return [
            *self._parameters(node.child_by_field_name("parameters"), inner),
            *self.each([node.child_by_field_name("body")], inner),
        ]

    # Locals.

    def visit_block(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.block(node, scope)

    visit_for_statement = visit_block
    visit_switch_block = visit_block
    visit_switch_rule = visit_block
    visit_catch_clause = visit_block

    def visit_local_variable_declaration(self, node: Node, scope: Scope) -> Iterable[Step]:
        kind: Kind | None = "local" if in_function(scope) else None  # outside of a method: a field, cut out
        return self._named(node, scope, kind)

    def _named(self, node: Node, scope: Scope, kind: Kind | None) -> list[Step]:
        """Bind the ``name`` of the node and of its declarators, each before its value is visited."""
        steps: list[Step] = []
        name = node.child_by_field_name("name")
        for child in node.named_children:
            if child == name:
                steps.append(self._step(name, scope, kind))
            elif child.type == "variable_declarator":
                steps += self._named(child, scope, kind)
            else:
                steps += self.each([child], scope)
        return steps

    def visit_resource(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self._named(node, scope, "local")

    visit_catch_formal_parameter = visit_resource

    def visit_enhanced_for_statement(self, node: Node, scope: Scope) -> Iterable[Step]:
        inner, name = Scope(scope), node.child_by_field_name("name")
        value, body = node.child_by_field_name("value"), node.child_by_field_name("body")
        outside = [child for child in node.named_children if child not in (name, body, value)]
        kind: Kind | None = "local" if in_function(scope) else None
        return [*self.each([*outside, value], scope), self._step(name, inner, kind), *self.each([body], inner)]

    def visit_try_with_resources_statement(self, node: Node, scope: Scope) -> Iterable[Step]:
        inner = Scope(scope)
        held = (node.child_by_field_name("resources"), node.child_by_field_name("body"))
        rest = [child for child in node.named_children if child not in held]
        return [*self.each(held, inner), *self.each(rest, scope)]

    # Patterns: their variables are in scope where the match is certain.

    def visit_instanceof_expression(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")
        steps = self.each((child for child in node.named_children if child != name), scope)
        return [*steps, partial(self._pattern, name, scope)] if name is not None else steps

    def visit_type_pattern(self, node: Node, scope: Scope) -> Iterable[Step]:
        kind, name = node.named_children[0], node.named_children[-1]
        return [*self.each([kind], scope), partial(self._pattern, name, scope)]

    visit_record_pattern_component = visit_type_pattern

    def visit_record_pattern(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each((child for child in node.named_children if child.type == "record_pattern_body"), scope)

    def _pattern(self, name: Node, scope: Scope) -> None:
        variable = (
            self._bind(name, scope, "local" if in_function(scope) else None) if name.type == "identifier" else None
        )
        if variable is not None:
            self.regions += [(variable, first, last) for first, last in _regions(name)]

    # Uses.

    def visit_type_identifier(self, node: Node, scope: Scope) -> None:
        variable = self.find(text(node), scope)
        if variable is not None:
            variable.refuse("a type has this name")

    def visit_string_literal(self, node: Node, scope: Scope) -> Iterable[Step]:
        self.strings.add(text(node).strip('"'))
        return self.each((child for child in node.named_children if child.type == "string_interpolation"), scope)

    def visit_annotation(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each([node.child_by_field_name("arguments")], scope)

    def visit_element_value_pair(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each([node.child_by_field_name("value")], scope)

    def visit_labeled_statement(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each(node.named_children[1:], scope)

    def visit_field_access(self, node: Node, scope: Scope) -> Iterable[Step]:
        return self.each([node.child_by_field_name("object")], scope)

    def visit_switch_label(self, node: Node, scope: Scope) -> Iterable[Step]:
        for child in node.named_children:
            variable = self.find(text(child), scope) if child.type == "identifier" else None
            if variable is not None:
                variable.refuse("may be an enum's constant in a case label")
        return self.each((child for child in node.named_children if child.type != "identifier"), scope)

    def visit_method_reference(self, node: Node, scope: Scope) -> Iterable[Step]:
        self.through |= words(text(node.named_children[-1]))
        return self.each(node.named_children[:1], scope)

    def visit_method_invocation(self, node: Node, scope: Scope) -> Iterable[Step]:
        name, target = node.child_by_field_name("name"), node.child_by_field_name("object")
        if name is not None and (target is None or target.type == "this"):
            self.use(name, scope, f"{text(name)}()")
        elif name is not None:
            self.through.add(text(name))
        return self.each((child for child in node.named_children if child != name), scope)


def _head(kind: Node | None) -> str:
    """The last name of a type, without its arguments."""
    return text(kind).split("<")[0].split(".")[-1].strip()


def _in_record(node: Node) -> bool:
    body = node.parent
    return body is not None and body.parent is not None and body.parent.type == "record_declaration"


def _annotated(parameter: Node) -> str:
    """A refusal where a framework may read the parameter's name through its annotation."""
    for modifiers in parameter.named_children:
        for part in modifiers.named_children if modifiers.type == "modifiers" else ():
            if text(part.child_by_field_name("name")) not in _HARMLESS:
                return "annotated"
    return ""


def _regions(name: Node) -> list[tuple[int, int]]:
    """Byte ranges where a pattern's variable is certainly in scope (JLS 6.3.1, 6.3.2, without negation)."""
    node = name
    while node.parent is not None and node.type != "instanceof_expression":
        node = node.parent
        if node.type in ("switch_rule", "switch_block_statement_group"):
            return [(node.start_byte, node.end_byte)]
    start = name.start_byte
    while (parent := node.parent) is not None:
        conjunction = parent.type == "binary_expression" and text(parent.child_by_field_name("operator")) == "&&"
        if not (conjunction or parent.type == "parenthesized_expression"):
            break
        node = parent
    found = [(start, node.end_byte)]
    if parent is not None and parent.child_by_field_name("condition") in (node, node.parent):
        branch = parent.child_by_field_name("consequence") or parent.child_by_field_name("body")
        if branch is not None:
            found.append((branch.start_byte, branch.end_byte))
    return found
