"""The check that a renamed program means what the original means: alpha-equivalence by position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bbox.code.bindings import Resolution, resolve
from bbox.code.bytecode import difference
from bbox.code.program import Program
from bbox.code.site import site_of

__all__ = ["Rename", "Verdict", "compare"]


@dataclass(frozen=True)
class Rename:
    """One binding under its new name. ``start`` is the byte offset of its first token in the original."""

    old: str
    new: str
    start: int
    occurrences: int


@dataclass(frozen=True)
class Verdict:
    """Whether two programs differ by a safe renaming alone.

    Attributes:
        reason: the first thing that differs, in one sentence; empty where they are equivalent.
        renames: the bindings that have another name; empty where they are not equivalent.
        checks: what has been checked, for example ``("positions", "bytecode")``.
    """

    equivalent: bool
    reason: str = ""
    renames: tuple[Rename, ...] = ()
    checks: tuple[str, ...] = ()

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The old names that changed, each once: variables of one name count as one identifier, as in the papers."""
        return tuple(dict.fromkeys(rename.old for rename in self.renames))


@lru_cache(maxsize=4096)
def compare(original: Program, renamed: Program, *, functions: bool = False) -> Verdict:
    """Compare two programs, both parsed anew.

    Cut out of both texts every token of every resolved binding: what is left must be the same bytes, and the n-th
    token cut out must belong to the same binding on both sides (numbered by first token). What differs in name must be
    safe to rename in the original, under a name that is fresh there. The renamed program has no more parse errors.
    For Python that compiles, the bytecode is equal up to a bijection of names as well (``checks`` says whether it did).

    Args:
        functions: whether functions, methods and variables of the module level may have new names (``site_of``).

    Example:
        >>> one = Program("def f(a, b):\\n    return a - b\\n", "python")
        >>> compare(one, Program("def f(x, b):\\n    return x - b\\n", "python")).renames
        (Rename(old='a', new='x', start=6, occurrences=2),)
        >>> compare(one, Program("def f(b, a):\\n    return a - b\\n", "python")).reason
        'token 4 belongs to another variable: a'
    """
    if (original.language, original.partner) != (renamed.language, renamed.partner):
        return Verdict(False, "the language or the second program of the pair differs")
    before, after = resolve(original.code, original.language), resolve(renamed.code, renamed.language)
    if after.errors > before.errors:
        return Verdict(False, f"{after.errors} parse errors, {before.errors} in the original", checks=("positions",))
    reason = _misplaced(before, after) or _unsafe(original, before, after, functions)
    if reason:
        return Verdict(False, reason, checks=("positions",))
    pairs = zip(before.bindings, after.bindings, strict=True)
    changed = [(old, new) for old, new in pairs if old.name != new.name]
    renames = tuple(Rename(old.name, new.name, old.spans[0][0], len(old.spans)) for old, new in changed)
    if original.language != "python":
        return Verdict(True, "", renames, ("positions",))
    functions_renamed = [(old.name, new.name) for old, new in changed if old.kind == "function"]
    variables_renamed = {old.name: new.name for old, new in changed if old.kind == "global"}
    found = difference(original.code, renamed.code, functions_renamed, variables_renamed)
    if found is None:
        return Verdict(True, "", renames, ("positions",))
    if found:
        return Verdict(False, found, checks=("positions", "bytecode"))
    return Verdict(True, "", renames, ("positions", "bytecode"))


def _misplaced(before: Resolution, after: Resolution) -> str:
    """What differs beside names, or in which token belongs to which binding."""
    (kept, owners), (kept_after, owners_after) = _cut(before), _cut(after)
    if len(owners) == len(owners_after):
        for number, (old, new) in enumerate(zip(owners, owners_after, strict=True), start=1):
            if kept[number - 1] != kept_after[number - 1]:
                break
            if old != new:
                return f"token {number} belongs to another variable: {after.bindings[new].name}"
    for old_text, new_text in zip(kept, kept_after, strict=False):
        if old_text != new_text:
            return f"{_short(old_text)} has become {_short(new_text)}"
    if len(owners) != len(owners_after):
        return f"{len(owners_after)} tokens are variables, {len(owners)} in the original"
    return ""


def _cut(program: Resolution) -> tuple[list[bytes], list[int]]:
    """The text between the tokens of bindings, and the number of the binding of each token."""
    tokens = sorted((span, number) for number, binding in enumerate(program.bindings) for span in binding.spans)
    edges = [0, *(edge for span, _ in tokens for edge in span), len(program.source)]
    kept = [program.source[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return kept, [number for _, number in tokens]


def _unsafe(original: Program, before: Resolution, after: Resolution, functions: bool) -> str:
    """Why one of the renames is not allowed."""
    site = site_of(original, functions=functions)
    for old, new in zip(before.bindings, after.bindings, strict=True):
        if old.name == new.name:
            continue
        if old.refusal:
            return f"{old.name} may not be renamed: {old.refusal}"
        if old not in site.bindings:
            return f"{old.name} may not be renamed: functions and variables of the module level keep their names here"
        if not site.allows(new.name):
            return f"{old.name} may not be called {new.name}: that is no fresh identifier of the original"
    return ""


def _short(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace"))
