"""The languages bbox can rename in: their grammars, file suffixes and words that no identifier may be."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING

from bbox.errors import UsageError
from bbox.registry import did_you_mean

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["LANGUAGES", "Language", "language_of", "named", "parser"]


@dataclass(frozen=True)
class Language:
    """One language.

    Attributes:
        grammar: the module of its tree-sitter wheel.
        scopes: the module of bbox that resolves its names (``bbox.code.scopes``).
        suffixes: file name endings, the first one is what files are written with.
    """

    grammar: str
    scopes: str
    suffixes: tuple[str, ...]


LANGUAGES = {
    "python": Language("tree_sitter_python", "bbox.code.scopes.python", (".py", ".pyi")),
    "java": Language("tree_sitter_java", "bbox.code.scopes.java", (".java",)),
    "c": Language("tree_sitter_c", "bbox.code.scopes.c", (".c", ".h")),
    "cpp": Language("tree_sitter_cpp", "bbox.code.scopes.cpp", (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx")),
    "javascript": Language("tree_sitter_javascript", "bbox.code.scopes.javascript", (".js", ".mjs", ".cjs")),
    "go": Language("tree_sitter_go", "bbox.code.scopes.go", (".go",)),
}


def named(name: str) -> Language:
    """The language of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in LANGUAGES:
        hint = did_you_mean(name, LANGUAGES) or ";"
        raise UsageError(f"unknown language {name!r}{hint} known are: {', '.join(LANGUAGES)}")
    return LANGUAGES[name]


def language_of(path: str | PurePath) -> str | None:
    """The language that a file's name says, ``None`` where it says none."""
    suffix = PurePath(path).suffix.lower()
    return next((name for name, language in LANGUAGES.items() if suffix in language.suffixes), None)


@cache
def parser(name: str) -> tree_sitter.Parser:
    """A tree-sitter parser of the language.

    Raises:
        UsageError: the language is unknown, or its grammar is not installed.
    """
    language = named(name)
    try:
        import tree_sitter

        grammar = importlib.import_module(language.grammar)
    except ImportError as error:
        raise UsageError(f"{name} code needs a parser: pip install 'bbox-toolkit[code]' ({error})") from error
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))
