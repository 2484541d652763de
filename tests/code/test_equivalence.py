"""The validity check: every safe renaming passes, everything else does not."""

from __future__ import annotations

import importlib
import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbox.code.equivalence import Rename, compare
from bbox.code.program import Program
from bbox.code.site import site_of
from bbox.errors import InternalError

MODULES = ["bisect", "colorsys", "fnmatch", "linecache", "reprlib", "sched", "shlex", "stat", "string", "textwrap"]
JS = "function f(a, b) { const c = {a: a, k: 'a'}; return c.a + b; }\n"
GO = 'package p\n\nfunc f(a, b int) T {\n\tc := a\n\tprintln("a", c)\n\treturn T{f: b}\n}\n'
PYTHON = "def f(a, b):\n    c = a.x + b\n    for item in g(c, k=a):\n        print('a', item)\n    return c\n"
PROGRAMS = {"python": PYTHON, "javascript": JS, "go": GO}

# What is replaced, by what: none is a safe renaming.
WRONG = {
    "capture": ("python", "for item in g(c", "for b in g(c"),
    "merge": ("python", "b", "a"),
    "swap in the head": ("python", "f(a, b)", "f(b, a)"),
    "field": ("python", "a.x", "a.y"),
    "keyword": ("python", "k=a", "q=a"),
    "string": ("python", "'a'", "'z'"),
    "global": ("python", "g(", "h("),
    "half of a variable": ("python", "return c", "return e"),
    "shadowing": ("python", "item", "print"),
    "existing name": ("python", "item", "x"),
    "white space": ("python", "a.x + b", "a.x  + b"),
    "function": ("python", "def f", "def q"),
    "broken": ("python", "f(a, b)", "f(a b)"),
    "property": ("javascript", "{a: a", "{z: a"),
    "property and variable": ("javascript", "a", "z"),
    "string in JavaScript": ("javascript", "'a'", "'z'"),
    "capture in JavaScript": ("javascript", "c", "b"),
    "field in Go": ("go", "f: b", "z: b"),
    "string in Go": ("go", '"a"', '"z"'),
    "type in Go": ("go", "T", "Z"),
    "redeclared in Go": ("go", "c := a", "b := a"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong(case: str) -> None:
    language, old, new = WRONG[case]
    code = PROGRAMS[language]
    verdict = compare(Program(code, language), Program(code.replace(old, new), language))
    assert not verdict.equivalent
    assert verdict.reason
    assert verdict.renames == ()


def test_verdict() -> None:
    verdict = compare(Program(PYTHON, "python"), Program(PYTHON.replace("c", "z"), "python"))
    assert verdict.equivalent
    assert verdict.renames == (Rename("c", "z", PYTHON.index("c"), 3),)
    assert verdict.checks == ("positions", "bytecode")
    assert compare(Program(JS, "javascript"), Program(JS, "javascript")).checks == ("positions",)
    python2 = "def f(a):\n    print a\n"
    assert compare(Program(python2, "python"), Program(python2.replace("a", "z"), "python")).checks == ("positions",)


def test_nothing_renamed() -> None:
    same = compare(Program(GO, "go"), Program(GO, "go"))
    assert (same.equivalent, same.renames) == (True, ())


def test_language_and_partner_count() -> None:
    assert not compare(Program(PYTHON, "python"), Program(PYTHON, "python", partner="x")).equivalent
    assert not compare(Program("", "python"), Program("", "go")).equivalent


def test_refused_binding_says_why() -> None:
    code = "def f(a):\n    return locals()\n"
    assert "by name" in compare(Program(code, "python"), Program(code.replace("f(a)", "f(z)"), "python")).reason


def test_functions_are_a_policy() -> None:
    before, after = Program("def f(): f()\n", "python"), Program("def z(): z()\n", "python")
    assert "function" in compare(before, after).reason
    assert compare(before, after, functions=True).equivalent


def test_variables_of_the_module() -> None:
    code = "a = 1\ndef f(b):\n    global a\n    a = a + b.a\nclass C:\n    c = a\nprint(a)\n"
    before = Program(code, "python")
    after = Program(code.replace("a ", "z ").replace(" a", " z").replace("(a", "(z").replace("zs", "as"), "python")
    assert "module level" in compare(before, after).reason
    verdict = compare(before, after, functions=True)
    assert (verdict.reason, verdict.renames) == ("", (Rename("a", "z", 0, 6),))
    assert verdict.checks == ("positions", "bytecode")
    for line in ("a = 1", "global a", "a = a + b.a", "c = a", "print(a)"):
        half = Program(code.replace(line, line.replace("a ", "z ").replace(" a", " z").replace("(a", "(z")), "python")
        assert not compare(before, half, functions=True).equivalent


@pytest.mark.parametrize("functions", [False, True])
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_random_safe_renames_of_the_standard_library(functions: bool, data: st.DataObject) -> None:
    code = inspect.getsource(importlib.import_module(data.draw(st.sampled_from(MODULES))))
    program = Program(code, "python")
    site = site_of(program, functions=functions)
    # Short and long, first and last in the alphabet: the order of closure cells follows names.
    words = st.from_regex(r"[a-z]{1,2}[A-Za-z0-9_]{0,6}", fullmatch=True).filter(site.allows)
    picked = data.draw(st.lists(st.integers(0, len(site.bindings) - 1), unique=True, max_size=12))
    names = data.draw(st.lists(words, unique=True, min_size=len(picked), max_size=len(picked)))
    verdict = compare(program, site.render(dict(zip(picked, names, strict=True))), functions=functions)
    assert verdict.reason == ""
    assert {rename.new for rename in verdict.renames} == set(names)
    assert verdict.checks == ("positions", "bytecode")


@pytest.mark.parametrize("functions", [False, True])
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_variables_of_one_name_renamed_together(functions: bool, data: st.DataObject) -> None:
    """They shadow each other as they did; whoever of the name may not be renamed keeps it."""
    code = inspect.getsource(importlib.import_module(data.draw(st.sampled_from(MODULES))))
    program = Program(code, "python")
    site = site_of(program, functions=functions)
    names = sorted({binding.name for binding in site.bindings})
    picked = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=12))
    words = st.from_regex(r"[a-z]{1,2}[A-Za-z0-9_]{0,6}", fullmatch=True).filter(site.allows)
    new = data.draw(st.lists(words, unique=True, min_size=len(picked), max_size=len(picked)))
    given_names = dict(zip(picked, new, strict=True))
    renames = {i: given_names[b.name] for i, b in enumerate(site.bindings) if b.name in given_names}
    verdict = compare(program, site.render(renames), functions=functions)
    assert verdict.reason == ""
    assert len(verdict.renames) == len(renames)
    assert {(rename.old, rename.new) for rename in verdict.renames} == set(given_names.items())
    assert verdict.checks == ("positions", "bytecode")


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_different_names_are_never_merged(data: st.DataObject) -> None:
    """Two variables of one function under one new name: refused before and after."""
    language = data.draw(st.sampled_from(sorted(PROGRAMS)))
    program = Program(PROGRAMS[language], language)
    site = site_of(program)
    one, other = data.draw(st.lists(st.integers(0, len(site.bindings) - 1), unique=True, min_size=2, max_size=2))
    with pytest.raises(InternalError, match="different names"):
        site.render({one: "fresh", other: "fresh"})
    merged = site.render({one: "fresh_one", other: "fresh_other"}).code
    for name in ("fresh_one", "fresh_other"):
        merged = merged.replace(name, "fresh")
    assert not compare(program, Program(merged, language)).equivalent


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_one_token_alone_is_always_caught(data: st.DataObject) -> None:
    """A variable of which only one of several tokens has the new name."""
    language = data.draw(st.sampled_from(sorted(PROGRAMS)))
    program = Program(PROGRAMS[language], language)
    site = site_of(program)
    binding = data.draw(st.sampled_from([binding for binding in site.bindings if len(binding.spans) > 1]))
    start, end = data.draw(st.sampled_from(binding.spans))
    name = data.draw(st.sampled_from(["fresh", *(other.name for other in site.bindings if other is not binding)]))
    edited = program.code[:start] + name + program.code[end:]
    assert not compare(program, Program(edited, language)).equivalent
