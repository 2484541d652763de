"""C's scopes: hand-written cases, and whole programs whose renamed form compiles to the same assembly."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bbox.code.bindings import resolve
from bbox.code.equivalence import compare
from bbox.code.program import Program
from bbox.code.site import site_of
from tests.code.marked import refusal, variable

PROGRAMS = Path(__file__).with_name("programs")

SAFE = {
    "parameter": "int f(int «a») { return «a» + 1; }",
    "fields": "int f(struct s *«a») { return «a»->a + «a»[0].a + b.a; }",
    "designators": "void f(int «a») { struct s v = {.a = «a», a: 1}; g((struct s){.a = «a»}); }",
    "index designator": "void f(int «a») { int v[9] = {[«a»] = 1}; }",
    "nested block": "int f(int a) { { int «a» = 1; g(«a»); } return a; }",
    "outer of a nested block": "int f(int «a») { { int a = 1; g(a); } return «a»; }",
    "own initializer": "int f(int a) { { int «a» = «a»; } return a; }",
    "sequential declarators": "int f(void) { int «a» = 1, b = «a», c[«a»]; return b + c[0]; }",
    "for": "int f(int a) { for (int «a» = 0; «a» < 9; «a»++) g(«a»); return a; }",
    "for body": "int f(void) { for (int «a» = 0; «a» < 9; «a»++) { int a = 1; g(a); } }",
    "labels": "int f(int «a») { a: if («a»--) goto a; return «a»; }",
    "address of a label": "void f(int «a») { void *p = &&a; goto *p; a: g(«a»); }",
    "tags": "struct a { int a; }; int f(struct a *«a») { return sizeof(struct a) + «a»->a; }",
    "tag of a local's name": "void f(void) { struct s *«s» = g(); const struct s *t = «s» ? «s» : 0; h(t); }",
    "sizeof": "int f(int «a») { return sizeof «a» + sizeof(«a») + sizeof(«a»[0]); }",
    "casts": "int f(int «a») { return («a»)(b) + («a») - b + (T)«a» + («a») * b + («a») & b; }",
    "multiplication": "void f(int «a», int b) { «a» * b; «a» * b; }",
    "K&R": "int f(«a», b) char *«a»; int b; { return *«a» + b; }",
    "function pointer": "int f(int (*«a»)(int a, int b), int b) { return «a»(b, b); }",
    "returns a function pointer": "int (*f(int «a»))(int a) { return g(«a»); }",
    "name by a macro": "static void FUNC(put)(int *«a», int b) { «a»[b] = 1; }",
    "array of parameters": "int f(int n, int «a»[n][n]) { return «a»[n][0]; }",
    "variable length": "int f(int «a») { int b[«a»]; return b[0]; }",
    "prototype's names": "int g(int a); int f(int «a») { int h(int a); return g(«a») + h(«a»); }",
    "statement expression": "int f(int «a») { return ({ int b = «a»; b + «a»; }); }",
    "nested statement expression": "int f(int a) { return ({ int «a» = 1; «a»; }) + a; }",
    "asm": 'int f(int «a») { __asm__ volatile("x %[a]" : [a] "=r"(«a») : "r"(«a»)); return «a»; }',
    "offsetof": "int f(int «a») { return offsetof(struct s, a) + «a»; }",
    "generic": "int f(int «a») { return _Generic(«a», int: «a», default: 1); }",
    "conditional compilation": "int f(int «a») {\n#ifdef B\n«a»++;\n#else\n«a»--;\n#endif\nreturn «a»; }",
    "declared twice": "int f(void) {\n#ifdef B\nint «a» = 1;\n#else\nlong «a» = 2;\n#endif\nreturn «a»; }",
    "macro's parameter": "#define M(a) ((a) + 1)\nint f(int «a») { return M(«a»); }",
    "unknown macro": "int f(int «a») { return FOO(«a») + BAR; }",
    "loop macro": "int f(T *«a») { QLIST_FOREACH(«a», &head, next) { g(«a»); } return 0; }",
    "macro before an assignment": "void f(void) { int «a»; if (b) {\nBEGIN_THREADS\n«a» = 1;\n} g(«a»); }",
    "macro on the line": "void f(void) { int «a»; if (b) { Py_BEGIN_ALLOW_THREADS «a» = 1; } g(«a»); }",
    "local enum": "void f(int a) { { enum { a }; g(a); } { int «a» = 2; g(«a»); } }",
    "local typedef": "void f(int «a») { { typedef int a; a b = 1; g(b); } g(«a»); }",
    "local extern": "int f(int «a») { { extern int a; g(a); } return «a»; }",
    "string and comment": "void f(int «a») { g(\"a\\n\", 'a'); /* a */ h(«a»); // a\n}",
    "non-ASCII columns": 'void f(int b, int «a») { g("ü", «a»); }',
    "static": "int f(void) { static int «a»; return «a»++; }",
    "switch": "int f(int «a») { switch («a») { case 1: return «a»; default: break; } return 0; }",
    "do": "void f(void) { int «a»; do { int a = 1; g(a); } while («a»); }",
    "body without a head": "av_cold BAD int f(int b) int c { int «a» = 1; g(«a»); }",
}

REFUSED = {
    "macro body": ("#define M (a + 1)\nint f(int a) { return M; }", "a", "macro"),
    "macro name": ("#define a b\nint f(int a) { return a; }", "a", "macro"),
    "stringification": ("#define S(x) #x\n#define T(x) S(x)\nint f(int a) { return g(T(a)); }", "a", "macro"),
    "pasting": ("#define P(x) x ## 0\nint f(int a0) { return P(a); }", "a0", "macro"),
    "pragma": ("void f(int a) {\n#pragma omp parallel for private(a)\nfor (;;) g(a); }", "a", "directive"),
    "condition": ("void f(int a) {\n#if defined(B) && a > 2\ng(a);\n#endif\n}", "a", "directive"),
    "attribute": ("void f(void) { int a __attribute__((aligned(a))); }", "a", "attribute"),
    "field of a list macro": ("void f(T *next) { QLIST_REMOVE(x, next); g(x->next, next); }", "next", "macro"),
    "macro beside a variable": ("int f(int max) { return max(max, 2); }", "max", "macro"),
    "capturing macro": ("int f(T *s, visitproc visit, void *arg) { Py_VISIT(s->x); return 0; }", "visit", "macro"),
    "prototype": ("int f(int a);", "a", "not defined here"),
    "stray token": ("int f(int a) { g(b a c); return a; }", "a", "pars"),
    "main": ("int main(void) { return 0; }", "main", "meaning"),
    "library function": ("void *malloc(int n) { return n; }", "malloc", "meaning"),
    "function in a string": ('void f(void) { }\nvoid g(void) { dlsym("f"); }', "f", "string"),
}


@pytest.mark.parametrize("case", SAFE)
def test_safe(case: str) -> None:
    assert variable(SAFE[case], "c").refusal == ""


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, name, reason = REFUSED[case]
    assert reason in refusal(code, name, "c")


@pytest.mark.parametrize(
    "code",
    [
        "int a; void f(void) { a = 1; extern int b; b = a; }",
        "void f(void) { enum { a, b }; typedef int c; g(a, b, (c)1); }",
        "void f(void) { a: goto a; __label__ a; }",
        "void f(void) { MACRO\n a = 1; g(a); }",
        "struct s { int a; int (*b)(int); };",
        "void f(void) {\nBEGIN\nb = g();\nEND\nif ((b == 0) || (b == 1)) {\ng();\ngoto error;\n}\nerror: h(); }",
        "struct PACKED s { int a; int b; };",
    ],
)
def test_no_variables(code: str) -> None:
    assert [b.name for b in resolve(code, "c").bindings if b.kind != "function" and not b.refusal] == []


def test_functions_and_the_calls_that_mean_them() -> None:
    code = "int «f»(int); int g(int b) { int «f»(int); return «f»(b) + x.f; }"
    code += " int «f»(int a) { int (*f)(int) = g; return f(a); }"
    found = variable(code, "c")
    assert (found.kind, found.refusal) == ("function", "")


def test_only_unambiguous_names_of_a_broken_function_are_safe() -> None:
    code = "void f(int a) { int b = 1; { int c = b; g(c) } } int c; h(c); }"
    refused = {b.name: bool(b.refusal) for b in resolve(code, "c").bindings if b.kind != "function"}
    assert refused == {"a": False, "b": False, "c": True}


def test_deep_nesting_is_no_problem() -> None:
    code = "int f(int a) { return " + " + ".join(["a"] * 5000) + "; }"
    assert len(site_of(Program(code, "c")).bindings[0].spans) == 5001


def renamed(program: Program) -> Program:
    site = site_of(program)
    return site.render({number: f"renamed_{number}" for number in range(len(site.bindings))})


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("optimization", ["-O0", "-O2"])
def test_renamed_programs_compile_to_the_same_assembly(tmp_path: Path, optimization: str) -> None:
    original = Program((PROGRAMS / "everything.c").read_text(), "c")
    new = renamed(original)
    verdict = compare(original, new)
    assert verdict.equivalent and len(verdict.renames) > 50, verdict.reason
    assert assembly("gcc", original, tmp_path, optimization) == assembly("gcc", new, tmp_path, optimization)


def assembly(compiler: str, program: Program, folder: Path, *options: str) -> str:
    """What the compiler makes of it, without debug information: no local name is left."""
    source = folder / ("program.c" if program.language == "c" else "program.cpp")
    source.write_text(program.code)
    command = [compiler, "-S", "-g0", "-w", *options, "-o", "-", str(source)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    return re.sub(r"\b\w+\.\d+\b", "STATIC", made.stdout)  # a static local: its name and a number
