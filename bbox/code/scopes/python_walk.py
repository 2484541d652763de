"""Scopes, declarations and uses of a Python program, in one walk over its tree, and what makes renaming unsafe."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from bbox.code.bindings import Kind
from bbox.code.scoping import Scope, Variable, descendants, text

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Class", "Declaration", "Definition", "PythonScope", "Walk", "name_of"]

# What can see the names of local variables: named anywhere, called with no argument, or of whatever frame.
READS_LOCALS = frozenset(["locals", "eval", "exec", "execfile"])
READS_LOCALS_BARE = frozenset(["vars", "dir"])
READS_FRAMES = frozenset(["_getframe", "currentframe", "f_locals"])
# What can see the names of the module level, beside the first: named anywhere, or called.
READS_MODULE = frozenset(["globals", "modules", "__main__", "__globals__", "func_globals", "__annotations__"])
READS_MODULE_CALLED = frozenset(["import_module", "__import__", "timeit", "Timer", "runctx", "testmod"])
READS_PARAMETERS = frozenset(["signature", "getargspec", "getfullargspec", "getcallargs"])
# Decorators that do not look at the names of parameters.
_BLIND = (
    "abstractmethod cache cached_property classmethod contextmanager asynccontextmanager final lru_cache override"
    " property staticmethod total_ordering wraps setter getter deleter no_grad inference_mode"
)
BLIND = frozenset(_BLIND.split())
COMPREHENSIONS = frozenset(
    ["list_comprehension", "set_comprehension", "dictionary_comprehension", "generator_expression"]
)
_PATTERNS = (
    "pattern_list tuple_pattern list_pattern list_splat_pattern dictionary_splat_pattern tuple list expression_list"
    " parenthesized_expression list_splat as_pattern_target"
)
PATTERNS = frozenset(_PATTERNS.split())
SPLATS = frozenset(["list_splat_pattern", "dictionary_splat_pattern"])


@dataclass(eq=False)
class PythonScope(Scope):
    """``owner``: the class whose body defines this function, if one does."""

    sort: Literal["module", "class", "function", "comprehension"] = "function"
    owner: PythonScope | None = None


@dataclass(eq=False)
class Definition:
    """A ``def``, and the scope of its body. ``decorated``: by something that may look at its names."""

    name: str
    around: PythonScope
    body: PythonScope
    decorated: bool


@dataclass(eq=False)
class Class:
    """A ``class``, and the scope of its body. ``plain``: no base but ``object``, no metaclass, not decorated."""

    name: str
    body: PythonScope
    plain: bool


Step: TypeAlias = "Iterator[tuple[Node, PythonScope]]"


@dataclass(eq=False)
class Declaration:
    """A name token that binds in a scope. ``refusal`` as in ``Binding``."""

    scope: PythonScope
    name: Node
    kind: Kind
    refusal: str = ""


@dataclass
class Walk:
    """What a program declares and uses. A name is local wherever it is bound, so these are linked after the walk.

    Attributes:
        merged: list comprehensions have no scope of their own (Python 2, or nobody knows).
        outer: names of ``global`` and (``True``) ``nonlocal`` statements.
        exposed: scopes whose names something reads as strings.
        attributes: by name, the scope, the object and the name of every ``object.name``.
        calls: the names that are called; with ``**`` in unpacked.
        literals: the words of strings without white space.
        exported: the words of statements that set or extend ``__all__``.
        imported: the words of import statements.
        ambiguous: names that a class body binds and reads: where it has not bound them yet, it reads the module's.
        fixed: names that no binding may give up, and why.
        decorated: nodes of definitions whose decorators may look at names.
    """

    merged: bool
    module: PythonScope = field(default_factory=lambda: PythonScope(sort="module"))
    scopes: list[PythonScope] = field(default_factory=list)
    declared: list[Declaration] = field(default_factory=list)
    outer: list[tuple[PythonScope, Node, bool]] = field(default_factory=list)
    used: list[tuple[PythonScope, Node]] = field(default_factory=list)
    exposed: list[PythonScope] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    classes: list[Class] = field(default_factory=list)
    attributes: dict[str, list[tuple[PythonScope, Node, Node]]] = field(default_factory=lambda: defaultdict(list))
    keywords: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    unpacked: set[str] = field(default_factory=set)
    literals: set[str] = field(default_factory=set)
    fixed: dict[str, str] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    ambiguous: list[Variable] = field(default_factory=list)
    decorated: set[int] = field(default_factory=set)

    def visit(self, node: Node, scope: PythonScope) -> Step:
        handler = getattr(self, f"visit_{node.type}", None)
        if node.type in COMPREHENSIONS:
            yield from self.comprehension(node, scope)
        elif handler is not None:
            yield from handler(node, scope)
        else:
            for child in node.named_children:
                yield child, scope

    def visit_identifier(self, node: Node, scope: PythonScope) -> Step:
        self.used.append((scope, node))
        if text(node) in READS_LOCALS:
            self.exposed.append(scope)
        yield from ()

    def visit_function_definition(self, node: Node, scope: PythonScope) -> Step:
        name = node.child_by_field_name("name")
        body = self.nested(scope, "function")
        body.owner = scope if scope.sort == "class" else None
        if name is not None:
            self.declare(scope, name, "function")
            self.definitions.append(Definition(name_of(name), scope, body, node.id in self.decorated))
        outside = yield from self.type_parameters(node, scope, body)
        yield from self.parameters(node, outside, body)
        for part in ("return_type", "body"):
            child = node.child_by_field_name(part)
            if child is not None:
                yield child, body if part == "body" else outside

    def visit_lambda(self, node: Node, scope: PythonScope) -> Step:
        body = self.nested(scope, "function")
        yield from self.parameters(node, scope, body)
        child = node.child_by_field_name("body")
        if child is not None:
            yield child, body

    def parameters(self, node: Node, outside: PythonScope, body: PythonScope) -> Step:
        """Declare the parameters; their defaults and annotations belong to the scope around the function."""
        listed = node.child_by_field_name("parameters")
        named = False  # keyword-only from here on
        for parameter in listed.named_children if listed is not None else ():
            target, rest = parameter, []
            if parameter.type in ("default_parameter", "typed_parameter", "typed_default_parameter"):
                target, *rest = parameter.named_children
            splat = target.type in SPLATS
            if parameter.type == "keyword_separator" or target.type == "list_splat_pattern":
                named = True
            if parameter.type not in ("keyword_separator", "positional_separator", "comment"):
                refusal = "keyword-only: every caller writes its name" if named and not splat else ""
                yield from self.bind(target, body, "parameter", refusal)
            for child in rest:
                yield child, outside

    def type_parameters(
        self, node: Node, scope: PythonScope, body: PythonScope
    ) -> Generator[tuple[Node, PythonScope], None, PythonScope]:
        """A scope of their own around the definition, where it has type parameters; else the scope itself."""
        listed = node.child_by_field_name("type_parameters")
        if listed is None:
            return scope
        outside = self.nested(scope, "function")
        body.parent = outside
        for parameter in listed.named_children:
            first, *rest = [leaf for leaf in descendants(parameter) if leaf.type == "identifier"] or [parameter]
            self.declare(outside, first, "local", "a type parameter")
            for leaf in rest:
                yield leaf, outside
        return outside

    def visit_class_definition(self, node: Node, scope: PythonScope) -> Step:
        name = node.child_by_field_name("name")
        body = self.nested(scope, "class")
        bases = node.child_by_field_name("superclasses")
        plain = node.id not in self.decorated and (bases is None or text(bases) in ("()", "(object)"))
        if name is not None:
            self.declare(scope, name, "local", "a class")
            self.classes.append(Class(name_of(name), body, plain))
        outside = yield from self.type_parameters(node, scope, body)
        for part in ("superclasses", "body"):
            child = node.child_by_field_name(part)
            if child is not None:
                yield child, body if part == "body" else outside

    def visit_decorated_definition(self, node: Node, scope: PythonScope) -> Step:
        definition = node.child_by_field_name("definition")
        if definition is not None and any(_called(child) not in BLIND for child in _of(node, "decorator")):
            self.decorated.add(definition.id)
        for child in node.named_children:
            yield child, scope

    def comprehension(self, node: Node, scope: PythonScope) -> Step:
        shared = self.merged and node.type == "list_comprehension"
        inner = scope if shared else self.nested(scope, "comprehension")
        first = next(iter(_of(node, "for_in_clause")), None)
        for child in node.named_children:
            if child.type != "for_in_clause":
                yield child, inner
                continue
            left, right = child.child_by_field_name("left"), child.child_by_field_name("right")
            if left is not None:
                yield from self.bind(left, inner)
            if right is not None:
                # Only the first iterable is evaluated outside.
                yield right, scope if child == first else inner

    def visit_named_expression(self, node: Node, scope: PythonScope) -> Step:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        holder = scope
        while holder.sort == "comprehension" and isinstance(holder.parent, PythonScope):
            holder = holder.parent
        if name is not None:
            yield from self.bind(name, holder)
        if value is not None:
            yield value, scope

    def bound(self, node: Node, scope: PythonScope, part: str) -> Step:
        """A node one part of which is a target; the others are expressions."""
        target = node.child_by_field_name(part)
        for child in node.named_children:
            if child == target:
                yield from self.bind(child, scope)
            else:
                yield child, scope

    def visit_for_statement(self, node: Node, scope: PythonScope) -> Step:
        yield from self.bound(node, scope, "left")

    def visit_assignment(self, node: Node, scope: PythonScope) -> Step:
        self.exports(node, "left")
        yield from self.bound(node, scope, "left")

    def visit_augmented_assignment(self, node: Node, scope: PythonScope) -> Step:
        left = node.child_by_field_name("left")
        if left is not None and left.type == "identifier":
            self.used.append((scope, left))
        yield from self.visit_assignment(node, scope)

    def visit_as_pattern(self, node: Node, scope: PythonScope) -> Step:
        *values, target = node.named_children
        for child in values:
            yield child, scope
        yield from self.bind(target, scope)

    def visit_delete_statement(self, node: Node, scope: PythonScope) -> Step:
        for child in node.named_children:
            yield from self.bind(child, scope)

    def visit_except_clause(self, node: Node, scope: PythonScope) -> Step:
        values = node.children_by_field_name("value")
        for child in node.named_children:
            if child in values[1:] and child.type == "identifier":
                self.declare(scope, child, "local", "'except A, b' binds b in Python 2 only")
            else:
                yield child, scope

    def visit_import_statement(self, node: Node, scope: PythonScope) -> Step:
        for child in node.children_by_field_name("name"):
            alias = child.child_by_field_name("alias")
            target = alias if alias is not None else child.named_children[0]
            if target.type == "identifier":
                self.declare(scope, target, "local", "an import")
        self.imported.update(re.findall(r"\w+", text(node)))
        if any(child.type == "wildcard_import" for child in node.named_children):
            self.exposed.append(scope)
        yield from ()

    visit_import_from_statement = visit_import_statement
    visit_future_import_statement = visit_import_statement

    def visit_global_statement(self, node: Node, scope: PythonScope) -> Step:
        self.outer += ((scope, child, node.type == "nonlocal_statement") for child in _of(node, "identifier"))
        yield from ()

    visit_nonlocal_statement = visit_global_statement

    def visit_exec_statement(self, node: Node, scope: PythonScope) -> Step:
        self.exposed.append(scope)
        for child in node.named_children:
            yield child, scope

    def visit_attribute(self, node: Node, scope: PythonScope) -> Step:
        subject, name = node.child_by_field_name("object"), node.child_by_field_name("attribute")
        if subject is None or name is None:
            return
        self.attributes[text(name)].append((scope, subject, name))
        self.calls |= {text(name)} & READS_FRAMES
        yield subject, scope

    def visit_member_type(self, node: Node, scope: PythonScope) -> Step:
        yield node.named_children[0], scope

    def visit_keyword_argument(self, node: Node, scope: PythonScope) -> Step:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is not None:
            self.keywords.add(text(name))
        if value is not None:
            yield value, scope

    def visit_call(self, node: Node, scope: PythonScope) -> Step:
        called, arguments = _called(node), node.child_by_field_name("arguments")
        listed = arguments.named_children if arguments is not None else []
        self.calls.add(called)
        self.exports(node, "function")
        if any(child.type == "dictionary_splat" for child in listed):
            self.unpacked.add(called)
        if called in READS_LOCALS_BARE and not listed:
            self.exposed.append(scope)
        for child in node.named_children:
            yield child, scope

    def visit_type(self, node: Node, scope: PythonScope) -> Step:
        for string in (inner for inner in descendants(node) if inner.type == "string_content"):
            self.fix(text(string), "named in an annotation that is a string")
        for child in node.named_children:
            yield child, scope

    def visit_type_alias_statement(self, node: Node, scope: PythonScope) -> Step:
        self.fix(text(node), "part of a type alias")
        for child in node.named_children:
            yield child, scope

    def visit_string(self, node: Node, scope: PythonScope) -> Step:
        content = "".join(text(child) for child in node.named_children if child.type == "string_content")
        if not any(character.isspace() for character in content):
            self.literals.update(re.findall(r"\w+", content))
        if text(node.children[0]).endswith("`"):
            self.fix(content, "stands between backticks")
        for child in node.named_children:
            yield child, scope

    def visit_interpolation(self, node: Node, scope: PythonScope) -> Step:
        if any(child.type == "=" for child in node.children):
            self.fix(text(node), "printed by name in an f-string")
        for child in node.named_children:
            yield child, scope

    def visit_case_pattern(self, node: Node, scope: PythonScope) -> Step:
        """Also the other patterns: a plain name in one is a target, a dotted name a value."""
        for child in node.named_children:
            if child.type == "identifier":
                yield from self.bind(child, scope)
            else:
                yield child, scope

    visit_splat_pattern = visit_case_pattern

    def visit_class_pattern(self, node: Node, scope: PythonScope) -> Step:
        name, *patterns = node.named_children
        yield name.named_children[0] if name.type == "dotted_name" else name, scope
        for child in patterns:
            yield child, scope

    def visit_keyword_pattern(self, node: Node, scope: PythonScope) -> Step:
        for child in node.named_children[1:]:
            yield child, scope

    def visit_dotted_name(self, node: Node, scope: PythonScope) -> Step:
        first, *rest = node.named_children
        if rest:
            yield first, scope
        else:
            yield from self.bind(first, scope)

    def exports(self, node: Node, part: str) -> None:
        """Note what is put into ``__all__``."""
        changed = node.child_by_field_name(part)
        if changed is not None and re.match(r"__all__\b", text(changed)):
            self.exported.update(re.findall(r"\w+", text(node)))

    def bind(self, target: Node, scope: PythonScope, kind: Kind = "local", refusal: str = "") -> Step:
        """Declare the names of a target; parts of it that are expressions are visited."""
        stack = [target]
        while stack:
            node = stack.pop()
            if node.type == "identifier":
                self.declare(scope, node, kind, refusal)
            elif node.type in PATTERNS:
                stack += node.named_children
            else:
                yield node, scope

    def declare(self, scope: PythonScope, node: Node, kind: Kind, refusal: str = "") -> None:
        self.declared.append(Declaration(scope, node, kind, refusal))

    def nested(self, scope: PythonScope, sort: Literal["class", "function", "comprehension"]) -> PythonScope:
        """A new scope; names of a class body are not seen from the scopes in it."""
        around: Scope | None = scope
        while isinstance(around, PythonScope) and around.sort == "class":
            around = around.parent
        inner = PythonScope(around, function=sort == "function", sort=sort)
        self.scopes.append(inner)
        return inner

    def fix(self, source: str, reason: str) -> None:
        for word in re.findall(r"\w+", source):
            self.fixed.setdefault(word, reason)


def name_of(node: Node) -> str:
    """An identifier as Python sees it, NFKC-normalised."""
    return unicodedata.normalize("NFKC", text(node))


def _of(node: Node, *types: str) -> list[Node]:
    return [child for child in node.named_children if child.type in types]


def _called(node: Node) -> str:
    """The last name of what a call or a decorator calls."""
    inner: Node | None = node
    while inner is not None and inner.type in ("decorator", "call", "parenthesized_expression"):
        inner = inner.named_children[0] if inner.named_children else None
    if inner is not None and inner.type == "attribute":
        inner = inner.child_by_field_name("attribute")
    return text(inner) if inner is not None and inner.type == "identifier" else ""
