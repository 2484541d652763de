"""Java's scopes: hand-written cases, and a whole program whose renamed form compiles to the same classes."""

from __future__ import annotations

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
    "parameter": "int f(final int «a») { return «a» + this.a + b.a + «a».a + a(«a»).a; }",
    "variable arity": "int f(int b, String... «a») { return «a».length; }",
    "array": "void f(int[] «a»[]) { int b[] = new int[«a».length], c = «a»[0][b[0]]; }",
    "shadows a field": "class C { int a = 1; int f(int «a») { return «a» + this.a; } int g() { return a; } }",
    "constructor": "class C { int a; C(int «a») { super(«a»); this.a = «a»; } }",
    "for": "class C { int a; void f() { for (int «a» = 0; «a» < 9; «a»++) g(«a»); g(a); } }",
    "enhanced for": "class C { int[] a; void f() { for (int «a» : a) g(«a»); g(a); } }",
    "iterated": "void f(int[] «a») { for (int b : «a») g(b); }",
    "resources": "void f() { try (R «a» = c(); S b = g(«a»); «a») { «a».g(); } catch (E e) { a(); } finally { h(); } }",
    "catch": "void f() { try { g(a); } catch (A | B «a») { throw «a»; } }",
    "switch": "void f(int b) { switch (b) { case 1: int «a»; break; case 2: «a» = 3; g(«a»); default: } g(a); }",
    "switch rule": "void f(int b) { switch (b) { case 1 -> { int «a» = 2; g(«a»); } default -> { int a; g(a); } } }",
    "labels": "void f(int «a») { a: for (;;) { if («a» > 0) break a; else continue a; } }",
    "lambda": "void f() { g(«a» -> «a».a()); h(a); }",
    "lambda with types": "void f(int «b») { g((int a, int c) -> a + «b» + c); }",
    "lambda's parameters": "void f() { g((«a», b) -> { int c = «a»; return c + b; }); }",
    "method reference": "void f(C «a») { g(«a»::a); h(this::a); }",
    "names of methods": "int a(int «a») { return a(«a») + this.a(«a»); }",
    "names of types": "void f(b.a x, int «a») { b.a y = (b.a) «a»; @a int z = «a»; }",
    "annotation's elements": "void f() { @A(a = 1) int «a» = 2; g(«a»); }",
    "pattern": "void f(Object b) { if (b instanceof A «a» && «a».c()) { «a».d(); } }",
    "pattern of a return": "boolean f(Object b) { return b instanceof A «a» && (1 > 0) && «a».c(); }",
    "pattern of a case": "int f(Object b) { return switch (b) { case A «a» when «a».c() -> «a».d(); default -> 0; }; }",
    "record pattern": "void f(Object b) { if (b instanceof P(int «a», var c)) g(«a», c); }",
    "anonymous class": "void f(int «a») { new Thread(new Runnable() { public void run() { g(«a»); } }); }",
    "field of an anonymous class": "void f(int «a») { g(«a», new Runnable() { int a; public void run() { g(a); } }); }",
    "local class": "void f(int «a») { class L { int g() { return «a»; } } new L(); }",
    "inner creation": "void f(C «a») { «a».new Inner(«a»); }",
    "initializer": "class C { static { int «a» = 1; g(«a»); } int a = 2; }",
    "lambda in a field": "class C { F a = «b» -> «b» + 1; }",
    "qualified": "void f(C «a») { «a».b.c(«a».d()); x.a.b(); }",
    "assert": "void f(int «a») { assert «a» > 0 : «a»; synchronized («a») { } }",
    "string, comment and text block": 'void f(int «a») { g("a", \'a\'); /* a */ h("""\n a """, «a»); // a\n}',
    "non-ASCII columns": 'void f(int b, int «a») { g("ü", «a»); }',
    "harmless annotation": "void f(@Nullable String «a») { g(«a»); }",
}

REFUSED = {
    "inherited": ("void f(int a) { g(new Base() { void h() { g(a); } }); }", "a", "inherit"),
    "subclass": ("void f(int a) { class L extends B { int g() { return a; } } }", "a", "inherit"),
    "case label": ("void f(E e) { final int A = 1; switch (e) { case A: g(); } }", "A", "enum"),
    "negated pattern": ("void f(Object b) { if (!(b instanceof A a)) return; a.c(); }", "a", "pattern"),
    "pattern or field": ("void f(Object b) { if (b instanceof A a || a.c()) g(); }", "a", "pattern"),
    "pattern's else": ("void f(Object b) { if (b instanceof A a) g(); else a.c(); }", "a", "pattern"),
    "annotated": ("void f(@RequestParam String a) { g(a); }", "a", "annotated"),
    "record's constructor": ("record P(int b) { P(int a) { this.b = a; } }", "a", "component"),
    "type of the name": ("void f(int A) { A b = null; g(A); }", "A", "type"),
    "abstract": ("interface I { void f(int a); }", "a", "not defined here"),
    "stray token": ("void f(int a) { g(b a c); h(a); }", "a", "pars"),
    "main": ("public static void main(String[] b) { }", "main", "meaning"),
    "override": ("@Override public int f() { return 1; }", "f", "override"),
    "subclass's method": ("class C extends D { int f() { return f(); } }", "f", "override"),
    "interface's method": ("interface I { int f(); }", "f", "override"),
    "of another object": ("class C { int f() { return b.f(); } }", "f", "through"),
    "method reference": ("class C { void f() { g(this::f); } }", "f", "through"),
    "overloaded": ("class C { int f() { return f(1); } int f(int b) { return b; } }", "f", "overloaded"),
    "reflection": ('class C { void f() { g("f"); } }', "f", "string"),
}


@pytest.mark.parametrize("case", SAFE)
def test_safe(case: str) -> None:
    assert variable(SAFE[case], "java").refusal == ""


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, name, reason = REFUSED[case]
    assert reason in refusal(code, name, "java")


def test_fields_components_and_constants_are_no_bindings() -> None:
    code = (
        "class C { int a = 1; enum E { B, D { int f; } } record P(int g) { P { g = 1; } } interface I { int H = a; } }"
    )
    assert resolve(code, "java").bindings == ()


def test_a_field_cut_out_with_its_method_is_not_renamed() -> None:
    code = "private int a = 1; int f() { return a; }"
    assert [b.name for b in resolve(code, "java").bindings] == ["f"]


def test_methods_and_the_calls_that_mean_them() -> None:
    code = "class C { int «f»(int b) { return «f»(b) + this.«f»(b) + f + b.f; } int g() { return «f»(1); } }"
    found = variable(code, "java")
    assert (found.kind, found.refusal) == ("function", "")


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs javac")
def test_renamed_programs_compile_to_the_same_classes(tmp_path: Path) -> None:
    original = Program((PROGRAMS / "Everything.java").read_text(), "java")
    site = site_of(original)
    new = site.render({number: f"renamed{number}" for number in range(len(site.bindings))})
    verdict = compare(original, new)
    assert verdict.equivalent and len(verdict.renames) > 40, verdict.reason
    assert classes(original, tmp_path / "original") == classes(new, tmp_path / "renamed")


def classes(program: Program, folder: Path) -> dict[str, bytes]:
    """What the compiler makes of it, without debug information: no local name is left."""
    folder.mkdir()
    (folder / "Everything.java").write_text(program.code)
    command = ["javac", "-J-Xmx300m", "-g:none", "-proc:none", "-d", str(folder), str(folder / "Everything.java")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    return {path.name: path.read_bytes() for path in folder.glob("*.class")}
