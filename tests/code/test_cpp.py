"""C++'s scopes: hand-written cases, and a whole program whose renamed form compiles to the same assembly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bbox.code.bindings import resolve
from bbox.code.equivalence import compare
from bbox.code.program import Program
from bbox.code.site import site_of
from tests.code.marked import refusal, variable
from tests.code.test_c import SAFE as SAFE_IN_C
from tests.code.test_c import assembly

PROGRAMS = Path(__file__).with_name("programs")

# What C++ does not have, or means otherwise.
ONLY_C = {"K&R", "tags", "designators", "index designator", "generic", "array of parameters", "macro on the line"}
ONLY_C |= {"body without a head"}  # in C++ it may as well be a class

SAFE = {
    "reference": "void f(const T& «a», T&& b) { g(«a», b, x.a, y->a); }",
    "member initializers": "struct S { int a; S(int «a») : a(«a»), b{«a»} { this->a = «a»; } };",
    "member": "struct S { int a; int f() { return a; } int g(int «a») { return «a» + this->a + S::a; } };",
    "member of a local class": "void f(int «a») { struct L { int a; int g() { return a; } }; h(«a»); }",
    "defined outside": "int S::f(int «a») noexcept(noexcept(«a»)) { return «a» + b; }",
    "default argument": "void f(int «a» = a::b) { g(«a»); }",
    "constructor call": "void f(int «a») { std::string s(b, «a»); T t(«a»); T u(V(«a»)); T v{«a»}; T w = T(«a» + 1); }",
    "constructed": "void f(int b) { T «a»(b); T c(1); g(«a», c); }",
    "range-for": "void f(T a) { for (auto& «a» : b) g(«a»); h(a); }",
    "range of its own name": "void f(T «a») { for (auto a : «a») g(a); h(«a»); }",
    "range-for with initializer": "void f() { for (T «a» = b(); auto c : «a») g(c); }",
    "structured binding": "void f(T b) { auto [«a», c] = b; g(«a», c); for (auto& [a, d] : b) h(a, d); }",
    "if with initializer": "void f() { if (auto «a» = b(); «a» != c) g(«a»); else h(«a»); x(a); }",
    "condition": "void f() { while (T* «a» = b()) g(«a»); x(a); }",
    "catch": "void f() { try { g(a); } catch (const E& «a») { h(«a».a()); } }",
    "capture": "void f(int «a») { auto g = [«a»](int b) { return «a» + b; }; auto h = [&«a», &] { return «a»; }; }",
    "init-capture": "void f(int «a») { auto g = [a = «a»](int b) { return a + b; }; h(«a»); }",
    "init-capture inside": "void f(int a) { auto g = [«a» = a + 1] { return «a»; }; h(a); }",
    "lambda's parameter": "void f(int a) { auto g = [](auto «a») -> decltype(«a») { return «a»; }; h(a); }",
    "qualified": "void f(int «a») { ::a(); n::a = «a»; a::b c; std::array<int, «a»> d; x.a<«a»>(); }",
    "template arguments": "template <class T> void f(T «a») { g<T>(«a»); h<decltype(«a»)>(«a»); static_cast<T>(«a»); }",
    "parameter pack": "template <class... T> void f(T&&... «a») { g(F<T>(«a»)...); (b + ... + «a»); sizeof...(«a»); }",
    "new and delete": "void f(int «a») { auto p = new T(«a»); auto q = new (b) T[«a»]; delete[] q; throw E(«a»); }",
    "local type hides": "void f(int «a») { { struct a { int x; }; a b; g(b.x); } g(«a»); }",
    "using hides": "void f(int «a») { { using n::a; a(); } g(«a»); }",
    "alias hides": "void f(int «a») { { using a = int; a b = 1; g(b); } g(«a»); }",
    "trailing return type": "template <class T> auto f(T «a») -> decltype(«a» + 1) { return «a»; }",
    "raw string": 'void f(int «a») { g(R"(a)", "a", «a»); }',
    "functor": "void f() { std::function<int(int a)> «a» = b; g(«a»(1)); }",
    "scoped enum": "int f(int «a») { enum class E { a, b }; return «a» + (int)E::a; }",
    "destructor": "void f(T* «a») { «a»->~T(); «a»->T::a(); }",
    "namespace": "namespace a { int f(int «a») { return «a»; } }",
}

REFUSED = {
    "template parameter's name": ("template <int N> void f(int N) { g(N); }", "N", "word"),
    "prototype": ("struct S { virtual void f(int a) = 0; };", "a", "not defined here"),
    "init-capture in a return type": (
        "void f(int b) { auto g = [a = 1](int c) -> decltype(a + c) { return a; }; }",
        "a",
        "word",
    ),
    "overloaded": ("int f(int b) { return 1; } int f(long b) { return 2; }", "f", "overloaded"),
    "qualified": ("namespace n { int f() { return 1; } } int g() { return n::f(); }", "f", "class or a namespace"),
    "member": ("struct S { int f(); }; int f() { return 1; }", "f", "class or a namespace"),
    "friend": ("class C { friend int f(); }; int f() { return 1; }", "f", "class or a namespace"),
    "using-directive": ("using namespace std;\nint f() { return 1; }", "f", "using"),
    "maybe a member": ("int f() { return 1; }\nint C::g() { return f(); }", "f", "inherit"),
    "macro body": ("#define M (a + 1)\nint f(int a) { return M; }", "a", "macro"),
}


@pytest.mark.parametrize("case", sorted(SAFE_IN_C.keys() - ONLY_C))
def test_what_is_safe_in_c_is_safe(case: str) -> None:
    assert variable(SAFE_IN_C[case], "cpp").refusal == ""


@pytest.mark.parametrize("case", SAFE)
def test_safe(case: str) -> None:
    assert variable(SAFE[case], "cpp").refusal == ""


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, name, reason = REFUSED[case]
    assert reason in refusal(code, name, "cpp")


def test_members_are_no_bindings() -> None:
    code = (
        "class C : B { int a; static int b; C() : a(1) {} int f() { return a + b + c; } operator int() { return a; } };"
    )
    assert resolve(code, "cpp").bindings == ()


def test_functions_and_the_calls_that_mean_them() -> None:
    code = (
        "int «f»(int a); template <class T> int g(T a) { return «f»(a) + [] { return «f»(1); }(); }\nint «f»(int b) { }"
    )
    found = variable(code, "cpp")
    assert (found.kind, found.refusal) == ("function", "")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_renamed_programs_compile_to_the_same_assembly(tmp_path: Path) -> None:
    original = Program((PROGRAMS / "everything.cpp").read_text(), "cpp")
    site = site_of(original)
    new = site.render({number: f"renamed{number}" for number in range(len(site.bindings))})
    verdict = compare(original, new)
    assert verdict.equivalent and len(verdict.renames) > 40, verdict.reason
    options = ("-std=c++17", "-O0", "-fkeep-inline-functions")
    assert assembly("g++", original, tmp_path, *options) == assembly("g++", new, tmp_path, *options)
