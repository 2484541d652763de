"""Bytecode up to a bijection of names: what a strict checker must tell apart."""

import pytest

from bbox.code.bytecode import difference

SAME = {
    "parameter": ("def f(a):\n    return a\n", "def f(b):\n    return b\n"),
    "shadowing": ("def f(a):\n    return [a for a in a]\n", "def f(b):\n    return [c for c in b]\n"),
    "closure order": (
        "def f(a, z):\n    return lambda: a + z\n",
        "def f(y, b):\n    return lambda: y + b\n",
    ),
    "cells of three levels": (
        "def f(a):\n    b = 1\n    def g():\n        c = 2\n        return lambda: (a, b, c)\n    return g\n",
        "def f(z):\n    y = 1\n    def g():\n        x = 2\n        return lambda: (z, y, x)\n    return g\n",
    ),
    "nonlocal": (
        "def f():\n    a = z = 1\n    def g():\n        nonlocal a, z\n        a, z = z, a\n    return g\n",
        "def f():\n    y = b = 1\n    def g():\n        nonlocal y, b\n        y, b = b, y\n    return g\n",
    ),
    "class in a function": (
        "def f(a):\n    class C:\n        def g(self):\n            return super().g(a)\n    return C\n",
        "def f(b):\n    class C:\n        def g(self):\n            return super().g(b)\n    return C\n",
    ),
    "the name of a module": ("import a\ndef f(a):\n    a.b()\n", "import a\ndef f(c):\n    c.b()\n"),
    "annotation": ("def f(a: int) -> int:\n    b: int = a\n", "def f(x: int) -> int:\n    y: int = x\n"),
}
DIFFERENT = {
    "swap": ("def f(a, b):\n    return a - b\n", "def f(b, a):\n    return a - b\n"),
    "merge": ("def f(a):\n    b = 1\n    return a + b\n", "def f(a):\n    a = 1\n    return a + a\n"),
    "capture": ("def f(a):\n    return lambda b: a\n", "def f(a):\n    return lambda a: a\n"),
    "capture of a global": ("def f(a):\n    return g(a)\n", "def f(g):\n    return g(g)\n"),
    "global": ("def f(a):\n    return b\n", "def f(a):\n    return c\n"),
    "attribute": ("def f(a):\n    return a.b\n", "def f(a):\n    return a.c\n"),
    "keyword argument": ("def f(a):\n    return g(a=a)\n", "def f(b):\n    return g(b=b)\n"),
    "keyword-only": ("def f(*, a=1):\n    return a\n", "def f(*, b=1):\n    return b\n"),
    "f-string =": ("def f(a):\n    return f'{a=}'\n", "def f(b):\n    return f'{b=}'\n"),
    "string": ("def f(a):\n    return 'a'\n", "def f(b):\n    return 'b'\n"),
    "number type": ("def f():\n    return 1\n", "def f():\n    return True\n"),
    "negative zero": ("def f():\n    return 0.0\n", "def f():\n    return -0.0\n"),
    "local becomes global": ("def f():\n    a = 1\n", "def f():\n    global a\n    a = 1\n"),
    "wrong cell": (
        "def f(a, b):\n    def g(): return a\n    def h(): return b\n    return g, h\n",
        "def f(a, b):\n    def g(): return b\n    def h(): return a\n    return g, h\n",
    ),
    "wrong outer": (
        "def f(a):\n    def g(b):\n        return lambda: (a, b)\n    return g\n",
        "def f(a):\n    def g(b):\n        return lambda: (b, a)\n    return g\n",
    ),
    "kind of comprehension": ("def f(a):\n    return [b for b in a]\n", "def f(a):\n    return {b for b in a}\n"),
    "exception table": (
        "def f():\n    try:\n        g()\n    finally:\n        h()\n",
        "def f():\n    g()\n    h()\n",
    ),
    "function": ("def f(): pass\n", "def g(): pass\n"),
    "does not compile": ("def f(a): pass\n", "def f(1): pass\n"),
}


@pytest.mark.parametrize("case", SAME)
def test_same(case: str) -> None:
    assert difference(*SAME[case], []) == ""


@pytest.mark.parametrize("case", DIFFERENT)
def test_different(case: str) -> None:
    assert difference(*DIFFERENT[case], [])


def test_renamed_functions() -> None:
    before = "def f():\n    def g(): pass\n    class C:\n        def h(self): return self.h\n    return g\nf()\n"
    after = "def u():\n    def v(): pass\n    class C:\n        def h(self): return self.h\n    return v\nu()\n"
    assert difference(before, after, [("f", "u"), ("g", "v")]) == ""
    assert difference(before, after, [("f", "u")])
    assert difference(before, after, [])


SCRIPT = (
    "{a}: int = 1\ndef f(b, c={a}):\n    global {d}\n    {d} = {a} + b.a\n    return g(a=[{a} for x in b])\n"
    "class C:\n    e = {a}\nclass D:\n    def a(self): return self.a, {a}\nprint({a}, C.e)\ndel {a}\n"
)
PLAIN = SCRIPT.format(a="a", d="d")
RENAMED = {
    "itself": ("a", "d", {}, True),
    "renamed": ("z", "d", {"a": "z"}, True),
    "two": ("z", "y", {"a": "z", "d": "y"}, True),
    "renamed, and not said": ("z", "d", {}, False),
    "said, and not renamed": ("a", "d", {"a": "z"}, False),
    "another than said": ("y", "d", {"a": "z"}, False),
    "merged": ("z", "z", {"a": "z", "d": "z"}, False),
    "merged with one that stays": ("a", "a", {"d": "a"}, False),
    "merged with a built-in": ("print", "d", {"a": "print"}, False),
}


@pytest.mark.parametrize("case", RENAMED)
def test_variables_of_the_module(case: str) -> None:
    a, d, variables, same = RENAMED[case]
    assert (difference(PLAIN, SCRIPT.format(a=a, d=d), [], variables) == "") is same


@pytest.mark.parametrize("place", range(SCRIPT.count("{a}")))
def test_one_token_of_a_variable_of_the_module(place: int) -> None:
    pieces = SCRIPT.format(a="{a}", d="d").split("{a}")
    for one, others in (("z", "a"), ("a", "z")):
        names = [others] * (len(pieces) - 1)
        names[place] = one
        code = pieces[0] + "".join(name + piece for name, piece in zip(names, pieces[1:], strict=True))
        assert difference(PLAIN, code, [], {"a": "z"})


@pytest.mark.parametrize("text", ["b.a", "g(a", "e =", "def a", "self.a", "C.e"])
def test_what_is_no_variable_of_the_module(text: str) -> None:
    other = text.replace("a", "z") if "a" in text else text.replace("e", "z")
    assert difference(PLAIN, SCRIPT.replace(text, other).format(a="z", d="d"), [], {"a": "z"})


def test_a_class_body_that_reads_what_it_binds_later() -> None:
    before = "a = 1\nclass C:\n    b = a\n    a = 2\n"
    assert difference(before, "z = 1\nclass C:\n    b = z\n    a = 2\n", [], {"a": "z"})
    assert difference(before, "z = 1\nclass C:\n    b = a\n    a = 2\n", [], {"a": "z"})


def test_more_names_than_fit_a_byte() -> None:
    """A name that is a variable and an attribute has one number, and two once it is renamed: jumps grow longer."""
    many = "".join(f"o.x{number}\n" for number in range(300))
    code = f"a = o.a\n{many}try:\n    while a:\n        if o.y: o.x1\nexcept E:\n    a = o.z\n"
    assert difference(code, code.replace("a =", "b =").replace("while a", "while b"), [], {"a": "b"}) == ""
    assert difference(code, code.replace("while a", "while o"), [], {})


@pytest.mark.parametrize("code", ["print 'a'\n", "  x = 1\n y = 2\n", "a\0b\n", "(" * 500 + ")" * 500, "return\n)"])
def test_what_does_not_compile_is_not_compared(code: str) -> None:
    assert difference(code, code, []) is None
