"""Python bytecode equal up to the names of variables: a check that shares nothing with the renamer."""

from __future__ import annotations

import ast
import dis
import warnings
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from types import CodeType
from typing import Any, TypeAlias

__all__ = ["difference"]

# Operations on cells whose order follows the alphabet of the names, and so may change when a name does.
CELLS = frozenset(["MAKE_CELL", "LOAD_CLOSURE", "LOAD_FAST", "LOAD_FAST_BORROW"])
# Operations on variables of the module level; the second kind means attributes of the class in a class body.
GLOBAL = frozenset(["LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"])
NAMED = frozenset(["LOAD_NAME", "STORE_NAME", "DELETE_NAME", "LOAD_FROM_DICT_OR_GLOBALS"])
# A variable: the path of the code object that owns it, and its name.
Owned: TypeAlias = tuple[tuple[int, ...], str]
MODULE = (-1,)  # no path: owns the variables of the module level


def difference(
    original: str,
    renamed: str,
    functions: Collection[tuple[str, str]],
    variables: Mapping[str, str] | None = None,
) -> str | None:
    """The first difference of two programs' bytecode beside names of variables; empty if there is none.

    ``None`` where the original does not compile under the running Python. Annotations are stripped and comprehensions
    compiled as generators first (Python 3.12 and later inline them, and give variables of one name one slot).
    ``functions`` are the functions that have new names, (old, new) each, and ``variables`` the new names of the module
    level's variables; those of local variables are found.
    """
    before, after = _compiled(original), _compiled(renamed)
    if before is None:
        return None
    if after is None:
        return "the original compiles, the renamed program does not"
    matching = _Matching(frozenset(functions), variables or {})
    try:
        matching.match(before, after, ())
        matching.closures()
    except _DifferenceError as different:
        return f"bytecode: {different}"
    return ""


def _compiled(code: str) -> CodeType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _Plain().visit(ast.parse(code))
            compiled: CodeType = compile(ast.fix_missing_locations(tree), "<program>", "exec", dont_inherit=True)
            return compiled
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


class _Plain(ast.NodeTransformer):
    """Strips annotations, and writes otherwise what the compiler would do in more ways than one."""

    _depth = 0  # of functions and classes

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self.inside(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.inside(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if not self._depth and isinstance(node.target, ast.Name):
            # Only the module's table of annotations names the variable.
            plain = ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
            return self.generic_visit(ast.copy_location(plain, node))
        node.annotation = ast.Constant(None)  # the statement stays: it makes its target a local variable
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # Python 3.11 calls methods in another way where the object has the name of an imported module, even if it is
        # a local variable; under a sign it never does.
        if isinstance(node.func, ast.Attribute):
            node.func = ast.copy_location(ast.UnaryOp(ast.UAdd(), node.func), node.func)
        return self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.AST:
        generator = ast.GeneratorExp(node.elt, node.generators)
        marked = ast.Tuple([ast.Constant(type(node).__name__), generator], ast.Load())
        return self.generic_visit(ast.copy_location(marked, node))

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        return self.visit_ListComp(node)

    def inside(self, node: ast.AST) -> ast.AST:
        self._depth += 1
        visited = self.generic_visit(node)
        self._depth -= 1
        return visited

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        pair = ast.Tuple([node.key, node.value], ast.Load())
        return self.visit_ListComp(ast.copy_location(ast.ListComp(pair, node.generators), node))


class _DifferenceError(Exception):
    """Carries what differs."""


@dataclass
class _Matching:
    """A bijection between the variables of two programs, found as their instructions are walked side by side."""

    functions: frozenset[tuple[str, str]]
    variables: Mapping[str, str]
    forward: dict[Owned, Owned] = field(default_factory=dict)
    backward: dict[Owned, Owned] = field(default_factory=dict)
    owners: list[tuple[tuple[int, ...], CodeType, CodeType]] = field(default_factory=list)
    runs: list[tuple[list[Owned], list[Owned]]] = field(default_factory=list)

    def match(self, before: CodeType, after: CodeType, path: tuple[int, ...]) -> None:
        self.owners = [owner for owner in self.owners if owner[0] == path[: len(owner[0])]]
        self.owners.append((path, before, after))
        for trait in ("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags"):
            self.equal(trait, getattr(before, trait, None), getattr(after, trait, None))
        self.equal("the number of local variables", before.co_nlocals, after.co_nlocals)
        self.named("the name of a function", before.co_name, after.co_name)
        if not self.functions:
            self.equal("the qualified name of a function", before.co_qualname, after.co_qualname)
        if not (self.functions or self.variables):
            self.equal("names", before.co_names, after.co_names)
        for old, new in zip(before.co_varnames, after.co_varnames, strict=True):
            self.pair(self.owner(old, 1), self.owner(new, 2))
        left, right = list(self.steps(before, 1)), list(self.steps(after, 2))
        self.equal("the number of instructions", len(left), len(right))
        for one, other in zip(left, right, strict=True):
            self.step(one, other)
        self.constants(before.co_consts, after.co_consts, path)

    def steps(self, code: CodeType, side: int) -> Iterable[tuple[str, Any, Any]]:
        """Operation, kind of argument, argument; consecutive operations on closure cells as one."""
        cells = {*code.co_cellvars, *code.co_freevars}
        variables, jumps = {*dis.haslocal, *dis.hasfree}, {*dis.hasjrel, *dis.hasjabs}
        bytecode = dis.Bytecode(code)
        # A name that is a variable and an attribute has one number until it is renamed: larger numbers take a prefix.
        instructions = [step for step in bytecode if step.opname != "EXTENDED_ARG"]
        offsets = [step.offset for step in instructions]
        for entry in getattr(bytecode, "exception_entries", ()):
            places = [bisect_left(offsets, offset) for offset in (entry.start, entry.end, entry.target)]
            yield "exception table", "value", (*places, entry.depth, entry.lasti)
        # What a class body binds is its own; without a class around it, the names are the module's.
        stored = {step.argval for step in instructions if step.opname == "STORE_NAME"}
        attributes = stored if len(self.owners) > 1 else ()

        def is_cell(step: dis.Instruction) -> bool:
            return step.opname in CELLS and step.argval in cells

        for closure, steps in groupby(instructions, key=is_cell):
            if closure:
                run = list(steps)
                yield " ".join(step.opname for step in run), "cells", [self.owner(step.argval, side) for step in run]
                continue
            for step in steps:
                if step.opcode in variables and step.opname != "COPY_FREE_VARS":
                    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
                    yield step.opname, "variables", [self.owner(name, side) for name in names]
                elif step.opcode in jumps:
                    yield step.opname, "value", bisect_left(offsets, step.argval)
                elif isinstance(step.argval, CodeType):
                    yield step.opname, "code", None
                elif step.opname in GLOBAL or (step.opname in NAMED and step.argval not in attributes):
                    yield step.opname, "global", step.argval
                else:
                    yield step.opname, "name" if step.opcode in dis.hasname else "value", step.argval

    def step(self, one: tuple[str, Any, Any], other: tuple[str, Any, Any]) -> None:
        self.equal("an operation", one[:2], other[:2])
        kind, old, new = one[1], one[2], other[2]
        if kind == "cells":
            self.runs.append((old, new))
        elif kind == "variables":
            self.equal("the number of variables", len(old), len(new))
            for left, right in zip(old, new, strict=True):
                self.pair(left, right)
        elif kind == "global":
            if old in self.variables:
                self.equal(f"the new name of {old}", self.variables[old], new)
            else:
                self.named("a name", old, new)
            self.pair((MODULE, old), (MODULE, new))
        elif kind == "name":
            if one[0] == "LOAD_NAME" and old in self.variables:
                raise _DifferenceError(f"{old} may be the class's or the module's, and the module's has a new name")
            self.named("a name", old, new)
        else:
            self.constant(old, new)

    def constants(self, before: tuple[Any, ...], after: tuple[Any, ...], path: tuple[int, ...]) -> None:
        self.equal("the number of constants", len(before), len(after))
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            if isinstance(old, CodeType) and isinstance(new, CodeType):
                self.match(old, new, (*path, number))
            else:
                self.constant(old, new)

    def constant(self, old: Any, new: Any) -> None:
        if isinstance(old, tuple) and isinstance(new, tuple):
            self.equal("the length of a constant", len(old), len(new))
            for left, right in zip(old, new, strict=True):
                self.constant(left, right)
        elif isinstance(old, frozenset) and isinstance(new, frozenset):
            self.equal("a constant", sorted(map(repr, old)), sorted(map(repr, new)))
        elif isinstance(old, str) and isinstance(new, str) and self.functions:
            # The qualified name of a class or a function stands among the constants of what is around it.
            parts, new_parts = old.split("."), new.split(".")
            self.equal("the parts of a constant", len(parts), len(new_parts))
            for part, new_part in zip(parts, new_parts, strict=True):
                self.named("a constant", part, new_part)
        else:
            self.equal("a constant", (type(old), repr(old)), (type(new), repr(new)))

    def owner(self, name: str, side: int) -> Owned:
        """The code object, from the innermost outwards, that makes this variable."""
        for owner in reversed(self.owners):
            code: CodeType = owner[side]  # type: ignore[assignment]
            if name in code.co_cellvars or (name in code.co_varnames and owner is self.owners[-1]):
                return owner[0], name
        return (), name

    def pair(self, old: Owned, new: Owned) -> None:
        if self.forward.setdefault(old, new) != new or self.backward.setdefault(new, old) != old:
            raise _DifferenceError(f"{old[1]} is {self.forward[old][1]} in one place and {new[1]} in another")

    def closures(self) -> None:
        """Cells that are made or handed on together: the same variables, in whatever order."""
        for old, new in self.runs:
            expected = sorted(self.forward.get(variable, variable) for variable in old)
            self.equal("the variables of a closure", expected, sorted(new))

    def named(self, what: str, old: str, new: str) -> None:
        if (old, new) not in self.functions:
            self.equal(what, old, new)

    def equal(self, what: str, old: Any, new: Any) -> None:
        if old != new:
            raise _DifferenceError(f"{what} was {old!r}, is {new!r}"[:300])
