"""Go's scopes: hand-written cases."""

from __future__ import annotations

import pytest

from bbox.code.bindings import resolve
from tests.code.marked import refusal, variable

SAFE = {
    "fields": "func f(«a» T) { g(«a».a, x.a, p.a) }",
    "short declaration": "func f() { «a» := a; g(«a») }",
    "declared again": "func f() { «a» := 1; «a», b := 2, 3; g(«a», b) }",
    "parameter declared again": "func f(«a» int) { «a», b := 2, 3; g(«a», b) }",
    "inner": "func f(a int) { { «a» := a; g(«a») }; g(a) }",
    "outer": "func f(«a» int) { { a := «a»; g(a) }; g(«a») }",
    "if": "func f(a int) { if «a» := g(a); «a» > 0 { g(«a») } else if b := «a»; b { g(«a») }; g(a) }",
    "for": "func f(a int) { for «a» := 0; «a» < 3; «a»++ { g(«a») }; g(a) }",
    "range": "func f(a []int) { for «a» := range a { g(«a») } }",
    "range assigns": "func f(b []int) { var «a» int; for «a» = range b { }; g(«a») }",
    "switch": "func f() { switch «a» := g(); «a» { case 1: g(«a») } }",
    "case": "func f(b int) { switch b { case 1: «a» := 2; g(«a»); case 2: a := 3; g(a) } }",
    "type switch": "func f(a T) { switch «a» := a.(type) { case int: g(«a»); case string: g(«a») }; g(a) }",
    "select": "func f(c chan int) { select { case «a» := <-c: g(«a»); case c <- 1: } }",
    "receiver": "func («a» *T) f() { g(«a».a) }",
    "results": "func f() («a» int, err error) { «a» = 1; return }",
    "closure": "func f(«a» int) func() int { return func() int { «a»++; return «a» } }",
    "function type": "func f(«a» int) { var h func(a int) (b int); g(h(«a»)) }",
    "label": "func f(«a» int) { a: for { «a»++; break a } }",
    "map key": "func f(«a» int) { g(map[int]T{«a»: x}) }",
    "index key": "func f(«a» int) { g([]T{«a»: x, y}) }",
    "value": "func f(«a» int) { g(T{a1: «a»}) }",
    "constant": "func f() { const «a» = 1; var b = «a» }",
    "string": 'func f(«a» int) { g("a", `a`, «a») } // a',
    "variadic": "func f(«a» ...int) { g(«a»...) }",
    "non-ASCII": 'func f(é, «a» int) { g("ü", é, «a») }',
    "own function": "func «f»(n int) { «f»(n) }",
}
REFUSED = {
    "field key": ("func f(a int) { g(T{a: 1}) }", "a", "field"),
    "elided type": ("func f(a int) { g([]T{{a: 1}}) }", "a", "field"),
    "index read as a type": ("func f(a int) { g[a](1) }", "a", "type"),
    "type": ("func f() { type a int; { a := 1; g(a) } }", "a", "type"),
    "type parameter": ("func g[a any]() {}\nfunc f(a int) {}", "a", "type parameter"),
    "exported": ("func F() {}", "F", "exported"),
    "main": ("func main() {}", "main", "exported"),
    "directive": ("//go:noinline named f\nfunc f() {}", "f", "directive"),
}


@pytest.mark.parametrize("case", SAFE)
def test_safe(case: str) -> None:
    assert variable(f"package p\n\n{SAFE[case]}\n", "go").refusal == ""


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, name, reason = REFUSED[case]
    assert reason in refusal(f"package p\n\n{code}\n", name, "go")


def test_names_of_the_package_and_blanks_are_no_bindings() -> None:
    code = 'package p\nimport a "a"\nvar b, c = 1, 2\nconst d = 1\ntype e struct { g int }\n'
    code += "func (T) h(_ int, int) { _ = b }\n"
    assert resolve(code, "go").bindings == ()
