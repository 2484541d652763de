"""Any text resolves, and what is found is consistent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbox.code.bindings import decoded, encoded, reserved, resolve
from bbox.code.languages import LANGUAGES, language_of
from bbox.errors import UsageError

PIECES = [
    "def f(a):",
    "\n",
    "    ",
    "return a",
    "{",
    "}",
    "(",
    ")",
    "function f(a)",
    "let x = 1",
    "func f(a int)",
    "x := a",
]
PIECES += [
    "int f(int a)",
    ";",
    "a",
    "x",
    "é",
    "\ud800",
    "\0",
    "\r\n",
    "'",
    '"',
    "`",
    "${",
    "class A",
    "=",
    ",",
    "//",
    "#",
]


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=25))
def test_any_text_resolves(language: str, pieces: list[str]) -> None:
    code = "".join(pieces)
    resolution = resolve(code, language)
    assert decoded(resolution.source) == code
    spans = sorted(span for binding in resolution.bindings for span in binding.spans)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    for binding in resolution.bindings:
        assert binding.spans
        assert all(resolution.source[start:end] == encoded(binding.name) for start, end in binding.spans)
        assert binding.name in resolution.words
    assert list(resolution.bindings) == sorted(resolution.bindings, key=lambda binding: binding.spans[0])


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("", []),
        ("\ufeffdef f(a): pass\n", ["f", "a"]),
        ("def f(a):\r\n    b = a\r\n    return b\r\n", ["f", "a", "b"]),
        ("def f(a):\n    return '\ud800' + a\n", ["f", "a"]),
    ],
)
def test_odd_texts(code: str, names: list[str]) -> None:
    assert [binding.name for binding in resolve(code, "python").bindings] == names


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "def f(a):\n    return " + "(" * 3000 + "a" + ")" * 3000 + "\n"),
        ("javascript", "function f(a) { return " + "[" * 3000 + "a" + "]" * 3000 + " }"),
        ("go", "package p\nfunc f(a int) { return " + "(" * 3000 + "a" + ")" * 3000 + " }"),
    ],
)
def test_deep_nesting(language: str, code: str) -> None:
    resolution = resolve(code, language)
    assert resolution.errors == 0
    assert [len(binding.spans) for binding in resolution.bindings if binding.name == "a"] == [2]


def test_words_are_taken_from_everywhere() -> None:
    words = resolve("def f(a):\n    # one two\n    return 'three' + a.four + f'{five}' + '$six'\n", "python").words
    assert {"one", "two", "three", "four", "five", "six", "$six"} <= words


def test_errors_are_counted() -> None:
    assert resolve("def f(a):\n    return a\n", "python").errors == 0
    assert resolve("def f(a:\n    return a\n", "python").errors > 0


def test_languages() -> None:
    assert [language_of(f"x{suffix}") for suffix in (".py", ".java", ".h", ".CC", ".mjs", ".go", ".txt", "")] == [
        *("python", "java", "c", "cpp", "javascript", "go"),
        *(None, None),
    ]
    assert all({"return", "if", "for"} <= reserved(language) for language in LANGUAGES)
    with pytest.raises(UsageError, match="unknown language 'pyton'"):
        resolve("x", "pyton")
