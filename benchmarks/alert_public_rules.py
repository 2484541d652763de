"""What the public code of ALERT does, restated for comparison: its renaming rules and its way to run the searches.

The rules are read from soarsmu/attack-pretrain-models-of-code at d421695 (2024-08-17) and from ALERT's section 3
(Yang et al., ICSE 2022), and are written anew. They are no part of the toolkit, because a program renamed by them need
not mean what it meant: every token with the text of a name is renamed, also fields, attributes, methods and other
scopes' variables, and two names may become one.

Three defects are left out, each to the public code's advantage: substitutes are stripped, escapes in string
literals stay, and offsets are bytes.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from bbox.attacks.alert.driver import Example
from bbox.attacks.alert.genetic import Genetic
from bbox.attacks.alert.greedy import Greedy
from bbox.attacks.alert.mhm import MHM
from bbox.attacks.alert.objective import values
from bbox.attacks.alert.space import Choice, Reply, Searcher, Space
from bbox.code.bindings import Binding
from bbox.code.equivalence import compare
from bbox.code.languages import parser
from bbox.code.program import Program, Programs

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["Method", "Outcome", "TextSite", "TextSpace", "extract", "run_public"]

Method = Literal["greedy", "greedy+ga", "mhm"]

_BOUND = {  # node types of the three grammars that bind or change a name, and the fields that hold it
    "assignment": ("left",),
    "augmented_assignment": ("left",),
    "for_statement": ("left",),
    "for_in_clause": ("left",),
    "named_expression": ("name",),
    "default_parameter": ("name",),
    "parameters": ("*",),
    "lambda_parameters": ("*",),
    "init_declarator": ("declarator",),
    "parameter_declaration": ("declarator",),
    "declaration": ("declarator",),
    "assignment_expression": ("left",),
    "update_expression": ("argument", "*"),
    "variable_declarator": ("name",),
    "formal_parameter": ("name",),
    "enhanced_for_statement": ("name",),
    "method_declaration": ("name",),
}
_NAMES = {"identifier", "field_identifier"}
_OPAQUE = {"string", "string_literal", "char_literal", "character_literal", "comment", "line_comment", "block_comment"}
_WORDS = {
    "java": "abstract assert boolean break byte case catch char class const continue default do double else enum "
    "extends final finally float for goto if implements import instanceof int interface long native new package "
    "private protected public return short static strictfp super switch synchronized this throw throws transient try "
    "void volatile while true false null main args String List System Object Exception Integer Map Set",
    "c": "auto break case char const continue default do double else enum extern float for goto if inline int long "
    "register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while "
    "NULL EOF printf scanf malloc calloc realloc free memset memcpy memmove memcmp strlen strcpy strncpy strcmp "
    "strcat strchr strstr fopen fclose fread fwrite fprintf sprintf snprintf stdin stdout stderr exit abort abs main "
    "size_t FILE errno assert",
}


def extract(program: Program) -> list[str]:
    """Names that the program assigns, declares or takes, wherever they stand (also fields, and Java's methods)."""
    found: dict[str, None] = {}
    for node in _walk(parser(program.language).parse(program.code.encode()).root_node):
        for place in _BOUND.get(node.type, ()):
            for child in node.named_children if place == "*" else node.children_by_field_name(place):
                for leaf in _leaves(child):
                    if leaf.type in _NAMES and leaf.text is not None:
                        found.setdefault(leaf.text.decode(), None)
    return [name for name in found if _valid(name, program.language)]


def _valid(name: str, language: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in _WORDS.get(language, "").split()


def _walk(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _leaves(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """Tokens; a string is one token and a comment none, so names in an f-string's braces are not seen."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.type in _OPAQUE:
            continue
        if node.child_count == 0:
            yield node
        stack.extend(reversed(node.children))


@dataclass(frozen=True)
class TextSite:
    """A program whose names are texts: a binding is every token that reads the same. Stands in for ``Site``."""

    program: Program
    names: tuple[str, ...]

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        spans: dict[str, list[tuple[int, int]]] = {name: [] for name in self.names}
        root = parser(self.program.language).parse(self.program.code.encode()).root_node
        for leaf in _leaves(root):
            text = (leaf.text or b"").decode()
            if text in spans:
                spans[text].append((leaf.start_byte, leaf.end_byte))
        return tuple(Binding(name, "local", tuple(places)) for name, places in spans.items() if places)

    @property
    def taken(self) -> frozenset[str]:
        return frozenset(self.names)

    def allows(self, new: str) -> bool:
        return _valid(new, self.program.language) and new not in self.taken

    def usable(self, names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(name.strip() for name in names) if self.allows(name)]

    def render(self, renames: Mapping[int, str]) -> Program:
        edits = sorted(
            ((span, new) for number, new in renames.items() for span in self.bindings[number].spans), reverse=True
        )
        source = self.program.code.encode()
        for (start, end), new in edits:
            source = source[:start] + new.encode() + source[end:]
        return Program(source.decode(), self.program.language, self.program.partner)


@dataclass(frozen=True)
class TextSpace(Space):
    """A space in which two names may become one."""

    def allows(self, choice: Choice) -> bool:
        return True


@dataclass(frozen=True)
class Outcome:
    """What the public rules reached on one program.

    Attributes:
        first: the query of the first adversarial program, valid or not; ``None`` without one.
        valid: whether that program is a safe renaming of the original (``compare``).
        queries: all in all.
        program: that program.
    """

    first: int | None
    valid: bool
    queries: int
    program: Program | None = None


def run_public(
    target: Callable[[Programs], Tensor],
    programs: Programs,
    labels: Sequence[int],
    substitutes: Callable[[Program], Mapping[str, Sequence[str]]],
    *,
    method: Method = "greedy",
    budget: int = 800,
    seed: int = 0,
    functions: bool = False,
) -> list[Outcome]:
    """Attack each program by the public rules, with the paper's objective and no pruning.

    A program that was asked before is not asked again, which the public code does.

    Args:
        target: programs to (m, classes) scores.
        substitutes: new names by name, of a program, as ALERT's files list them; their names are those renamed.
    """
    found = []
    for number, (program, label) in enumerate(zip(programs, labels, strict=True)):
        names = substitutes(program)
        site = TextSite(program, tuple(names))
        space = TextSpace.of(site, [site.usable(names[binding.name]) for binding in site.bindings])
        search = _SEARCHES[method].run(space, np.random.default_rng([seed, number]))
        found.append(_attack(target, Example(space, search), label, budget, functions))
    return found


_SEARCHES: dict[Method, Searcher] = {
    "greedy": Greedy(),
    "greedy+ga": Genetic(),
    "mhm": MHM(released=True),
}


def _attack(
    target: Callable[[Programs], Tensor], example: Example, label: int, budget: int, functions: bool
) -> Outcome:
    original, asked = example.space.site.program, 0
    while wanted := example.wanted()[: budget - asked + 1]:
        rows = wanted[: budget - asked]
        scores = target(Programs(rows)) if rows else torch.empty(0, 2)
        lowest = values(scores, torch.full((len(rows),), label), "probability").tolist() if rows else []
        broken = [] if example.probes or not rows else (scores.argmax(1) != label).nonzero().flatten().tolist()
        if broken:
            hit = rows[broken[0]]
            valid = compare(original, hit, functions=functions).equivalent
            return Outcome(asked + broken[0] + 1, valid, asked + broken[0] + 1, hit)
        asked += len(rows)
        replies = [Reply(adversarial=False, value=value) for value in lowest]
        example.learn(wanted, [*replies, *[None] * (len(wanted) - len(rows))])
    return Outcome(None, False, asked)
