"""Directives, macros and attributes of C and C++: what replaces or reads words, whatever they mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bbox.code.scopes.blocks import Step, Walker, text, words
from bbox.code.scoping import Scope

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["PreprocessorWalker"]


class PreprocessorWalker(Walker):
    """Fixes every word that the preprocessor sees.

    Attributes:
        macros: bodies of the macros that the program defines.
        calls: what may be a macro's invocation: the name, and the node of the arguments.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macros: dict[str, str] = {}
        self.calls: list[tuple[str, Node]] = []

    def finish(self) -> None:
        """Fix what goes through ``#`` or ``##``, and every name that ``##`` could have made."""
        pasting = {name for name, body in self.macros.items() if "#" in body}
        for _ in self.macros:  # a macro that hands its argument on to one that pastes
            pasting |= {name for name, body in self.macros.items() if words(body) & pasting}
        parts = {word for name in pasting for word in words(self.macros[name])}
        for name, arguments in self.calls:
            if name in pasting:
                self.fixed |= words(text(arguments))
                parts |= words(text(arguments))
        if any("##" in body for body in self.macros.values()):
            glued = tuple(parts)
            self.fixed |= {v.name for v in self.variables if v.name.startswith(glued) or v.name.endswith(glued)}

    def visit_preproc_def(self, node: Node, scope: Scope) -> None:
        self._macro(node, set())

    def visit_preproc_function_def(self, node: Node, scope: Scope) -> None:
        self._macro(node, words(text(node.child_by_field_name("parameters"))))

    def _macro(self, node: Node, parameters: set[str]) -> None:
        name = text(node.child_by_field_name("name"))
        body = text(node.child_by_field_name("value"))
        self.macros[name] = self.macros.get(name, "") + " " + body
        self.fixed |= {name} | (words(body) - parameters)

    def visit_preproc_call(self, node: Node, scope: Scope) -> None:
        self.fixed |= words(text(node))

    def visit_preproc_ifdef(self, node: Node, scope: Scope) -> Iterable[Step]:
        name = node.child_by_field_name("name")
        self.fixed.add(text(name))
        return self.each((child for child in node.named_children if child != name), scope)

    visit_preproc_elifdef = visit_preproc_ifdef

    def visit_preproc_if(self, node: Node, scope: Scope) -> Iterable[Step]:
        condition = node.child_by_field_name("condition")
        self.fixed |= words(text(condition))
        return self.each((child for child in node.named_children if child != condition), scope)

    visit_preproc_elif = visit_preproc_if

    def visit_attribute_specifier(self, node: Node, scope: Scope) -> None:
        self.fixed |= words(text(node))

    visit_attribute_declaration = visit_attribute_specifier
    visit_ms_declspec_modifier = visit_attribute_specifier
