"""Tokens by regular expressions: fast, needs no grammar, and reads code that no parser accepts."""

from __future__ import annotations

import re
from functools import cache

from bbox.code.languages import named

__all__ = ["is_name", "lex", "subwords"]

_STRINGS = {
    "python": r"(?:\b[A-Za-z]{1,2})?(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')",
    "javascript": r"`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    "go": r"`[^`]*`|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
}
_PLAIN_STRINGS = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@cache
def _pattern(language: str) -> re.Pattern[str]:
    named(language)
    comment = r"#[^\n]*" if language == "python" else r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)"
    string = _STRINGS.get(language, _PLAIN_STRINGS)
    return re.compile(
        rf"(?P<comment>{comment})|(?P<string>{string})|(?P<name>[^\W\d][\w$]*)|(?P<number>\.?\d[\w.]*)"
        r"|(?P<operator>->|::|:=|\+\+|--|&&|\|\||<<|>>|[-+*/%&|^<>=!]=|[^\s\w])"
    )


def lex(code: str, language: str) -> list[str]:
    """The tokens of a program without comments; every string is ``'"'`` and every number ``'0'``.

    Example:
        >>> lex("total = count + 12  # so far", "python")
        ['total', '=', 'count', '+', '0']

    Raises:
        UsageError: the language is unknown.
    """
    stand_in = {"string": '"', "number": "0"}
    found = _pattern(language).finditer(code)
    return [stand_in.get(m.lastgroup or "", m.group()) for m in found if m.lastgroup != "comment"]


def is_name(token: str) -> bool:
    """Whether a token of ``lex`` is an identifier or a keyword."""
    return token[0].isalpha() or token[0] == "_"


def subwords(name: str) -> list[str]:
    """The words that a name is made of, in lower case.

    Example:
        >>> subwords("parseHTTPHeader_line2")
        ['parse', 'http', 'header', 'line', '2']
    """
    return [word.lower() for word in _SUBWORD.findall(name)]
