"""Sites: which names may be taken, and rewriting by byte offset."""

from __future__ import annotations

import pytest

from bbox.code.program import Program
from bbox.code.site import site_of
from bbox.errors import InternalError

CODE = "def f(count, é):\r\n    'count ü'  # size\r\n    total = count.size + é\r\n    return f'{total}'\r\n"


def test_render() -> None:
    site = site_of(Program(CODE, "python", partner="x"))
    assert [binding.name for binding in site.bindings] == ["count", "é", "total"]
    expected = CODE.replace("f(count", "f(n").replace("count.size", "n.size").replace("total", "result_of_it")
    assert site.render({2: "result_of_it", 0: "n"}) == Program(expected, "python", partner="x")
    assert site.render({}) == Program(CODE, "python", partner="x")


def test_usable() -> None:
    site = site_of(Program(CODE, "python"))
    names = [
        " value",
        "value",
        "count",
        "size",
        "ü",
        "while",
        "len",
        "2x",
        "a b",
        "__x",
        "_",
        "_x",
        "_X",
        "x$",
        "",
        "ok",
    ]
    assert site.usable(names) == ["value", "_x", "ok"]


@pytest.mark.parametrize("renames", [{0: "size"}, {0: "for"}, {0: "x y"}, {0: "x", 1: "x"}])
def test_render_refuses(renames: dict[int, str]) -> None:
    with pytest.raises(InternalError):
        site_of(Program(CODE, "python")).render(renames)


SAME_NAME = "def f(n, m):\n    return n + m\ndef g(n):\n    return lambda n: n\n"


def test_variables_of_one_name_may_be_renamed_together() -> None:
    site = site_of(Program(SAME_NAME, "python"))
    assert [binding.name for binding in site.bindings] == ["n", "m", "n", "n"]
    assert site.render({0: "size", 2: "size", 3: "size"}).code == SAME_NAME.replace("n)", "size)").replace(
        "(n", "(size"
    ).replace("return n", "return size").replace("lambda n: n", "lambda size: size")
    assert "def g(size)" in site.render({0: "count", 2: "size"}).code, "nor need they be"
    with pytest.raises(InternalError, match="different names"):
        site.render({1: "size", 2: "size"})  # m and another function's n: never in one scope, and refused still


def test_functions_are_a_policy() -> None:
    program = Program("def f(a):\n    def g():\n        return a\n    return g\n", "python")
    assert [binding.name for binding in site_of(program).bindings] == ["a"]
    assert [binding.name for binding in site_of(program, functions=True).bindings] == ["f", "a", "g"]


def test_variables_of_the_module_are_part_of_it() -> None:
    program = Program("import os\nfor line in os.stdin:\n    total = len(line)\n", "python")
    assert site_of(program).bindings == ()
    site = site_of(program, functions=True)
    assert [binding.name for binding in site.bindings] == ["line", "total"]
    assert site.render({0: "row"}).code == program.code.replace("line", "row")


@pytest.mark.parametrize("code", ["", "\0", "((((", "\ud800"])
def test_nothing_to_rename(code: str) -> None:
    site = site_of(Program(code, "python"))
    assert site.bindings == ()
    assert site.render({}).code == code
