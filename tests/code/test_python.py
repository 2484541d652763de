"""Python's scopes: hand-written cases, and cross-checks by symtable, by rope and by running the renamed program."""

from __future__ import annotations

import ast
import importlib
import inspect
import symtable
import types
from collections import Counter
from pathlib import Path

import pytest

from bbox.code.bindings import resolve
from bbox.code.program import Program
from bbox.code.site import site_of
from tests.code.marked import refusal, variable

MODULES = ["bisect", "colorsys", "heapq", "statistics", "textwrap", "difflib", "calendar", "fractions", "shlex", "csv"]

SAFE = {
    "attributes": "def f(«a»):\n    return «a».a + x.a\n",
    "keyword arguments of a local": "def f(b):\n    «a» = 1\n    return g(a=«a»)\n",
    "defaults and annotations": "def f(«a»):\n    def g(b=«a», a: int = «a»):\n        return a\n    return «a»\n",
    "closures": "def f(«a»):\n    return lambda b: «a» + b\n",
    "nonlocal": "def f():\n    «a» = 1\n    def g():\n        nonlocal «a»\n        «a» += 1\n    return «a»\n",
    "f-string": "def f(«a», w):\n    return f'{«a»!r:>{w}} a {{a}}' + '{a}'\n",
    "f-string format": "def f(a, «w»):\n    return f'{a!r:>{«w»}}'\n",
    "comprehension": "def f(a):\n    return [«a» for «a» in a if «a»] + [a]\n",
    "first iterable": "def f(«a»):\n    return [a for a in «a»] + [«a»]\n",
    "walrus": "def f(b):\n    [(«a» := c) for c in b]\n    return «a»\n",
    "class body": "def f(«a»):\n    class C:\n        b = «a»\n        def g(self):\n            return «a»\n",
    "method of the name": "def f(«a»):\n    class C:\n        def a(self):\n            return «a»\n        b = a\n",
    "class attribute": "def f(«a»):\n    class C:\n        a = 1\n        b = a\n    return «a»\n",
    "except": "def f():\n    try:\n        g()\n    except E as «a»:\n        print(«a»)\n",
    "with": "def f():\n    with g() as («a», b), h() as c:\n        return «a»\n",
    "match": "def f(b):\n    match b:\n        case C(a=«a»):\n            return «a».a\n",
    "match sequence": "def f(b):\n    match b:\n        case [1, *«a»] | (x.a, «a»):\n            return «a»\n",
    "match mapping": "def f(b):\n    match b:\n        case {'a': 1, **«a»}:\n            return «a»\n",
    "del": "def f():\n    «a» = 1\n    del «a»\n",
    "star targets": "def f(b):\n    c, *«a» = b\n    return «a»\n",
    "annotated": "def f():\n    «a»: int = 1\n    return «a»\n",
    "lambda": "f = lambda «a», *b: «a»\n",
    "global elsewhere": "def f(«a»):\n    return «a»\ndef g():\n    global a\n    a = 1\n",
    "string and comment": "def f(«a»):\n    'a'  # a\n    return '\\a' + «a»\n",
    "non-ASCII columns": "def f(é, «a»):\n    return 'ü' + «a» + é\n",
    "non-ASCII name": "def f(«é»):\n    return «é»\n",
    "Python 2": "def f(«a»):\n    print >>b, «a», 'a'\n",
    "Python 2 comprehension": "def f(b):\n    print [«a» for «a» in b]\n    return «a»\n",
    "Python 2 tuple parameter": "def f((«a», b)):\n    print «a»\n",
    "module variable": "«a» = 1\nprint(«a»)\ndef f(b=«a»):\n    return g(a=«a») + b.a\n",
    "module variable, global": "def f():\n    global «a»\n    «a» = 1\n«a» += 1\ndef g(a):\n    return a\n",
    "module variable, first in a function": "def f():\n    return «a»\nfor «a» in b: f()\n",
    "module variable in a class body": "«a» = 1\nclass C:\n    b = «a»\n    def f(self, c=«a»):\n        return «a»\n",
    "module variable, class attribute": "«a» = 1\nclass C:\n    a = 2\n    def f(self):\n        return self.a + «a»\n",
    "module with": "with open(b) as «a»:\n    c = «a».read()\n",
    "module annotation": "«a»: int = 1\nb = 'a b'\nx = [a for a in «a»]\n",
    "module Python 2": "«a» = 1\nfor b in [«a» for «a» in c]:\n    print «a», b\n",
    "module del": "«a» = 1\ndel «a»\n",
    "async": "async def f(b):\n    async for «a» in b:\n        await «a»\n",
}

REFUSED = {
    "locals": ("def f(a):\n    return locals()\n", "a", "by name"),
    "eval inside": ("def f(a):\n    def g():\n        return eval('a')\n    return g\n", "a", "by name"),
    "vars": ("def f(a):\n    return '%(a)s' % vars()\n", "a", "by name"),
    "exec statement": ("def f(a):\n    exec b in c\n", "a", "by name"),
    "frames": ("import sys\ndef f(a):\n    return sys._getframe(1)\n", "a", "frames"),
    "f-string =": ("def f(a):\n    return f'{a=}'\n", "a", "f-string"),
    "backticks": ("def f(a):\n    print `a`\n", "a", "backticks"),
    "keyword": ("def f(a):\n    return a\nf(a=1)\n", "a", "keyword"),
    "keyword-only": ("def f(*, a):\n    return a\n", "a", "keyword-only"),
    "dictionary": ("def f(a):\n    return a\nf(**{'a': 1})\n", "a", "**"),
    "unknown callee": ("def f(a):\n    return a\ng = f\ng(**{'a': 1})\n", "a", "**"),
    "constructor": ("class C:\n    def __init__(self, a):\n        self.a = a\nC(**d)\n", "a", "**"),
    "decorator": ("@command\ndef f(a):\n    return a\n", "a", "decorator"),
    "self": ("class C:\n    def f(self):\n        return self\n", "self", "convention"),
    "mangled": ("class C:\n    def f(self):\n        __a = 1\n        return __a\n", "__a", "convention"),
    "import": ("def f():\n    import a\n    return a.b\n", "a", "import"),
    "class": ("def f():\n    class A:\n        pass\n    return A\n", "A", "class"),
    "string annotation": ("def f(a):\n    b: 'a.c' = 1\n    return b\n", "a", "annotation"),
    "except comma": ("def f():\n    try:\n        g()\n    except E, a:\n        print a\n", "a", "Python 2"),
    "module, globals": ("a = 1\ndef f():\n    return globals()['a']\n", "a", "modules"),
    "module, vars": ("a = 1\nb = vars()\n", "a", "by name"),
    "module, exec": ("a = 1\ndef f(b):\n    exec(b)\n", "a", "by name"),
    "module, sys.modules": ("import sys\na = 1\ngetattr(sys.modules[__name__], b)\n", "a", "modules"),
    "module, itself": ("import __main__ as m\na = 1\nb = m.a\n", "a", "modules"),
    "module, timeit": ("from timeit import timeit\na = 1\ntimeit('a + 1')\n", "a", "modules"),
    "module, star": ("from b import *\na = 1\n", "a", "by name"),
    "module, __all__": ("__all__ = 'a b'.split()\na = 1\n", "a", "__all__"),
    "module, more of __all__": ("__all__ = []\n__all__ += ['a']\na = 1\n", "a", "__all__"),
    "module, __all__ called": ("__all__ = []\n__all__.extend(['a'])\na = 1\n", "a", "__all__"),
    "module, dunder": ("__version__ = '1'\n", "__version__", "convention"),
    "module, import": ("try:\n    import a\nexcept E:\n    a = None\n", "a", "import"),
    "module, import in a function": ("def f():\n    global a\n    import a\n", "a", "import"),
    "module, built-in": ("print(max(b))\nmax = 1\n", "max", "built-in"),
    "module, Python 2 built-in": ("try:\n    unicode\nexcept NameError:\n    unicode = str\n", "unicode", "built-in"),
    "module, nowhere bound": ("def f():\n    global a\n    return a\n", "a", "elsewhere"),
    "module, class": ("class A: pass\n", "A", "a class"),
    "module, class body reads": ("a = 1\nclass C:\n    a = a\n", "a", "class body"),
    "module, class body augments": ("a = 1\nclass C:\n    a += 1\n", "a", "class body"),
    "module, f-string =": ("a = 1\nprint(f'{a=}')\n", "a", "f-string"),
    "module, frames": ("import sys\na = 1\nb = sys._getframe()\n", "a", "frames"),
    "stray token": ("def f(a):\n    return a\n)) a ((\n", "a", "parser"),
}


@pytest.mark.parametrize("case", SAFE)
def test_safe(case: str) -> None:
    assert variable(SAFE[case], "python").refusal == ""


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, name, reason = REFUSED[case]
    assert reason in refusal(code, name, "python")


def test_kinds_and_class_attributes_are_no_bindings() -> None:
    code = "a = 1\nclass B:\n    c = a\n    c += 1\ndef f(e):\n    global a\n    a = g = 2\nfor d in a: pass\n"
    kinds = {binding.name: binding.kind for binding in resolve(code, "python").bindings if not binding.refusal}
    assert kinds == {"a": "global", "f": "function", "e": "parameter", "g": "local", "d": "global"}


def test_functions_and_methods() -> None:
    helper = variable("def «helper»():\n    return «helper»\nx = a.helper, «helper»()\n", "python")
    assert (helper.kind, helper.refusal) == ("function", "")
    method = variable(
        "class A:\n    def «m»(self):\n        return self.«m»\n    def n(self):\n        self.«m»()\n", "python"
    )
    assert (method.kind, method.refusal) == ("function", "")
    nested = variable("def f():\n    def «g»():\n        return 1\n    return «g»()\n", "python")
    assert (nested.kind, nested.refusal) == ("function", "")


@pytest.mark.parametrize(
    ("code", "name", "reason"),
    [
        ("class A:\n    def m(self):\n        return other.m()\n", "m", "something else"),
        ("class A(B):\n    def m(self):\n        return self.m()\n", "m", "bases"),
        ("class A:\n    def m(self): pass\nclass B:\n    def n(self): self.m()\n", "m", "another class"),
        ("def f(): pass\ng = 'mod.f'\n", "f", "string"),
        ("@register\ndef f(): pass\n", "f", "decorated"),
        ("def f(): pass\neval(g + '()')\n", "f", "by name"),
        ("__all__ = 'f g'.split()\ndef f(): pass\n", "f", "__all__"),
        ("a = open\ndef open(): pass\n", "open", "built-in"),
        ("class A:\n    a = open\n    def open(self): pass\n", "open", "class body"),
    ],
)
def test_functions_refused(code: str, name: str, reason: str) -> None:
    assert reason in refusal(code, name, "python")


def source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


@pytest.mark.parametrize("module", MODULES)
def test_symtable_finds_the_same_local_variables(module: str) -> None:
    """Every local variable of every function, by Python's own analysis: the same names, as often."""
    code = source(module)
    expected: Counter[str] = Counter()
    tables = [symtable.symtable(code, module, "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        if isinstance(table, symtable.Function):
            # Comprehensions have a hidden parameter.
            expected.update(name for name in table.get_locals() if not name.startswith("."))
    bindings = resolve(code, "python").bindings
    module_level = {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
    found = Counter(b.name for b in bindings if b.kind in ("parameter", "local"))
    for name in module_level:
        expected.pop(name, None)
        found.pop(name, None)
    assert found == expected
    assert sum(found.values()) > 20


@pytest.mark.parametrize("module", MODULES)
def test_symtable_finds_the_same_variables_of_the_module(module: str) -> None:
    code = source(module)
    table = symtable.symtable(code, module, "exec")
    expected = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    bindings = resolve(code, "python").bindings
    at_module = {b.name for b in bindings if b.kind == "global"}
    functions = {b.name for b in bindings if b.kind == "function"}
    assert at_module <= expected <= at_module | functions


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rope_renames_the_same_tokens(tmp_path: Path) -> None:
    project_module = pytest.importorskip("rope.base.project")
    rename = pytest.importorskip("rope.refactor.rename")
    exceptions = pytest.importorskip("rope.base.exceptions")
    project = project_module.Project(str(tmp_path), ropefolder=None)
    try:
        compared = 0
        for module in ("bisect", "colorsys", "textwrap"):
            code = source(module)
            (tmp_path / f"{module}.py").write_text(code)
            resource = project.get_resource(f"{module}.py")
            site = site_of(Program(code, "python"))
            for number in range(0, len(site.bindings), 2):
                start = site.bindings[number].spans[0][0]
                ours = site.render({number: "renamed"}).code
                try:
                    changes = rename.Rename(project, resource, start).get_changes("renamed", docs=False).changes
                except exceptions.RefactoringError:
                    continue  # rope does not find every variable, and then says so or changes nothing
                for change in changes:
                    assert change.new_contents == ours
                    compared += 1
        assert compared > 20
    finally:
        project.close()


def renamed_module(module: str, functions: bool = False) -> types.ModuleType:
    site = site_of(Program(source(module), "python"), functions=functions)
    renames = {number: f"v{number}_{'ab'[number % 2]}" for number in range(len(site.bindings))}
    made = types.ModuleType("renamed")
    made.__dict__["__file__"] = module
    exec(compile(site.render(renames).code, f"renamed {module}", "exec"), made.__dict__)
    return made


CALLS = {
    "bisect": lambda m: [m.bisect_left([1, 2, 2, 5], 2), m.bisect_right([1, 2, 2, 5], 2)],
    "colorsys": lambda m: [m.rgb_to_hls(0.2, 0.4, 0.4), m.hsv_to_rgb(0.5, 0.5, 0.4), m.rgb_to_yiq(0.1, 0.2, 0.3)],
    "heapq": lambda m: [m.nsmallest(3, [5, 1, 4, 2, 9]), m.nlargest(2, "hello", str), list(m.merge([1, 4], [2, 3]))],
    "statistics": lambda m: [m.mean([1, 2, 4]), m.stdev([1, 2, 4]), m.quantiles(range(9)), m.mode("aab")],
    "textwrap": lambda m: [m.wrap("the quick brown fox jumps", 9), m.dedent("  a\n   b"), m.shorten("a b c d e f", 9)],
    "difflib": lambda m: [list(m.unified_diff("abc", "abd")), m.get_close_matches("appel", ["ape", "apple"])],
    "calendar": lambda m: [m.month(2024, 2), m.monthrange(2023, 2), m.TextCalendar(6).formatyear(2025, 2)],
    "shlex": lambda m: [m.split('a \'b c\' "d\\"e" f#g'), m.quote("it's")],
}


@pytest.mark.parametrize("module", CALLS)
def test_renamed_modules_do_the_same(module: str) -> None:
    calls = CALLS[module]
    assert calls(renamed_module(module)) == calls(importlib.import_module(module))


SCRIPT = """
import sys
limit = 4
cache = {}
def fill(n):
    global total
    for i in range(n):
        cache[i] = limit * i
        total = total + cache[i]
class Box:
    size = limit + 1
    def grow(self, by=limit):
        self.size += by + total
        return self.size
total = 0
fill(limit)
limit += 1
box = Box()
for i in range(limit):
    last = i, box.grow(by=i)
result = [limit for limit in cache.values() if limit > total / 9], last, Box.size, limit
"""


def test_a_renamed_script_does_the_same() -> None:
    site = site_of(Program(SCRIPT, "python"), functions=True)
    renames = {number: f"{binding.name}_new" for number, binding in enumerate(site.bindings)}
    assert {site.bindings[number].name for number in renames} > {
        "limit",
        "cache",
        "total",
        "box",
        "i",
        "last",
        "result",
    }
    before: dict[str, object] = {"__name__": "script"}
    after = dict(before)
    exec(SCRIPT, before)
    exec(site.render(renames).code, after)
    assert after["result_new"] == before["result"]
    assert not {"limit", "cache", "total", "box", "i", "last", "result"} & after.keys()
