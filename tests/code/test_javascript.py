"""JavaScript's scopes: hand-written cases, and renamed programs run by node where there is one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bbox.code.bindings import resolve
from bbox.code.program import Program
from bbox.code.site import site_of
from tests.code.marked import refusal, variable

SAFE = {
    "properties": "function f(«a») { return «a».a + x.a + x['a'] + {a: «a»}.a }",
    "var is hoisted": "function f(b) { «a» = 1; if (b) { var «a» = 2 } return «a» }",
    "let is not": "function f(«a») { { let a = 1; a } return «a» }",
    "inner let": "function f(a) { { let «a» = 1; «a»++ } return a }",
    "loop": "function f(a) { for (let «a» = 0; «a» < 3; «a»++) g(«a»); return a }",
    "for of": "function f(a) { for (const «i» of a) { g(«i») } }",
    "for var": "function f(a) { for (var «i» in a) { } return «i» }",
    "right side of for of": "function f(«a») { for (const b of «a») { let a; a } }",
    "destructuring": "function f({a: «b», ...c}, [d = 1]) { return «b».b + c.b }",
    "default": "function f(«a», b = «a», c = () => «a») { return «a» }",
    "arrow": "const f = «a» => «a»",
    "closure": "function f(«a») { return function () { return () => «a» } }",
    "catch": "function f(a) { try { } catch («e») { g(«e») } return e }",
    "template": "function f(«a») { return `${«a»} $a a` + tag`a${«a»}` }",
    "label": "function f(«a») { a: for (;;) { «a»++; break a } }",
    "switch": "function f(b) { switch (b) { case 1: let «a» = 1; default: return «a» } }",
    "class": "function f(«a») { return class { a = «a»; #a = 1; m(a) { return a } get a() { return this.#a } } }",
    "generator": "function* f(«a») { yield* «a» }",
    "async": "async function f(b) { for await (const «a» of b) await «a» }",
    "assignment pattern": "function f() { let «a», b; [«a», b.a] = g; ({a: «a»} = g); return «a» }",
    "regex": "function f(«a») { return /a/.test(«a») }",
    "JSX": "function f(«a») { return <div a={«a»}>a {«a»}</div> }",
    "block of the program": "{ let «a» = 1; g(«a») }",
    "static block": "class A { static { var «a» = 1; «a» } }",
}
REFUSED = {
    "shorthand": ("function f(a) { return {a} }", "a", "shorthand"),
    "shorthand pattern": ("function f({a}) { return a }", "a", "shorthand"),
    "eval": ("function f(a) { return () => eval('a') }", "a", "eval"),
    "with": ("function f(a, b) { with (b) { return a } }", "a", "with"),
    "JSX name": ("function f(A) { return <A/> }", "A", "JSX"),
    "injected": ("function f($http) { return $http }", "$http", "its name"),
    "function in a block": ("function f(b) { if (b) { function a() {} } a() }", "a", "block"),
    "export": ("export function a() {}", "a", "exported"),
    "export list": ("function a() {}\nexport { a as b }", "a", "exported"),
    "stray token": ("function f(a) { return a } ) a ((", "a", "parser"),
}


@pytest.mark.parametrize("case", SAFE)
def test_safe(case: str) -> None:
    assert variable(SAFE[case], "javascript").refusal == ""


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, name, reason = REFUSED[case]
    assert reason in refusal(code, name, "javascript")


@pytest.mark.parametrize(
    "code",
    [
        "function f(e) { try {} catch (e) { var e = 1 } return e }",
        "function f(a, b = () => a) { var a = 1; return b() }",
    ],
)
def test_what_annex_b_makes_unclear_is_refused(code: str) -> None:
    assert all(b.refusal for b in resolve(code, "javascript").bindings if b.name in ("e", "a"))


def test_globals_are_no_bindings() -> None:
    code = "var a = 1; let b; const c = 2; import d from 'd'; class E {}; (f) => f; for (var g of a) {}"
    assert [b.name for b in resolve(code, "javascript").bindings] == ["E", "f"]


@pytest.mark.parametrize(
    "code",
    [
        "function «g»() { return «g» }",
        "function f() { const «g» = () => 1; return «g»() }",
        "function f() { let «g»; «g» = function () {}; return «g» }",
        "function f() { class «G» {} return new «G»() }",
        "const f = function «g»(n) { return «g»(n) }",
    ],
)
def test_what_names_a_function_is_one(code: str) -> None:
    assert variable(code, "javascript").kind == "function"


PROGRAM = """
function primes(limit) {
  const found = [];
  outer: for (let n = 2; n < limit; n++) {
    for (const p of found) { if (n % p === 0) continue outer; }
    found.push(n);
  }
  return found;
}
function zip([first, ...rest], {sep: separator = '-'} = {}) {
  var out = `${first}`;
  rest.forEach(function (first, i) { out += separator + first + i; });
  try { null.x } catch (err) { out += err.name }
  switch (out) { case 1: let out = 2; default: }
  return out;
}
class Counter { count = 0; add(step) { const self = this; return (() => { self.count += step; return self })(); } }
console.log(JSON.stringify([primes(30), zip(['a', 'b', 'c']), zip('xyz', {sep: '+'}), new Counter().add(3).count]));
"""


def test_a_renamed_program_does_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    for functions in (False, True):
        site = site_of(Program(PROGRAM, "javascript"), functions=functions)
        renamed = site.render({number: f"v{number}" for number in range(len(site.bindings))})
        assert len(site.bindings) >= 13
        outputs = [
            subprocess.run([node, "-e", code], capture_output=True, text=True, check=True, timeout=60).stdout
            for code in (PROGRAM, renamed.code)
        ]
        assert outputs[0] == outputs[1] != ""
