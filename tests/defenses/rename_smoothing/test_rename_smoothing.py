"""Rename smoothing as a target: the same under every safe rename, counted, and refused where it makes no sense."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from bbox import targets
from bbox.code.bytecode import difference
from bbox.code.program import Program, Programs
from bbox.code.site import site_of
from bbox.defenses import DEFENSES, make_defense
from bbox.defenses.base import TrainedDefense
from bbox.defenses.bundle import load, parse_stack, save
from bbox.defenses.rename_smoothing import RenameSmoothing
from bbox.defenses.rename_smoothing.certificate import certified_identifiers
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.targets import Target
from tests.code_toys import SOURCES, Letters, programs

OTHERS = (
    Program("int area(int w, int h) {\n    int total = w * h; // w\n    return total + width;\n}\n", "c"),
    Program(
        "class A {\n  int f(int first, int second) {\n    int sum = first + second;\n    return sum;\n  }\n}\n", "java"
    ),
    Program("function f(a, b) {\n  const c = a + b;\n  return `${c} of ${b}`;\n}\n", "javascript"),
    Program("package p\n\nfunc f(a int, b int) int {\n\tc := a + b\n\treturn c\n}\n", "go"),
    Program(
        "int f(int a) {\n  for (int i = 0; i < a; ++i) { auto g = [i](int k) { return k + i; }; a += g(a); }\n"
        "  return a;\n}\n",
        "cpp",
    ),
    Program(
        "def outer(value, items):\n    def inner(x, *rest, key=None):\n        return [value + x for x in rest]\n"
        "    text = f'{value} of {len(items)!r}'  # item\n    return inner(text, *items)\n",
        "python",
    ),
)

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu"]
LONG = [
    Program(f"def f({', '.join(names)}):\n    return {' + '.join(names)}\n", "python")
    for names in (NAMES[:5], NAMES[:8], NAMES)
]


def _attacked(program: Program, seed: int, *, functions: bool = False) -> tuple[Program, list[int]]:
    """A safe rename of some identifiers, as an attacker could choose who knows which names the defense gives."""
    site, draw = site_of(program, functions=functions), random.Random(seed)
    chosen = draw.sample(range(len(site.bindings)), draw.randint(1, len(site.bindings)))
    pool = site.usable([*RenameSmoothing().vocabulary, *(f"name{i}" for i in range(2, 30)), "zz", "Value", "item2"])
    return site.render(dict(zip(chosen, draw.sample(pool, len(chosen)), strict=True))), chosen


@pytest.mark.parametrize("options", [{}, {"names": "numbered"}, {"functions": True}, {"answer": "mean"}, {"seed": 3}])
def test_every_safe_rename_gets_the_same_answer_to_the_last_bit(options: dict[str, Any]) -> None:
    originals = [*programs(5), *OTHERS]
    defended = make_defense("rename-smoothing", {"n": 4, **options}).wrap(Letters())
    functions = bool(options.get("functions"))
    renamed = [_attacked(program, seed, functions=functions)[0] for seed, program in enumerate(originals)]
    assert all(old != new for old, new in zip(originals, renamed, strict=True))
    bare = Letters()
    assert not torch.equal(bare(Programs(originals)), bare(Programs(renamed)))
    one_by_one = torch.cat([defended(Programs([program])) for program in renamed])
    assert torch.equal(defended(Programs(originals)), one_by_one)


def test_a_rename_changes_only_the_copies_that_keep_one_of_its_names() -> None:
    smoothing = RenameSmoothing(n=12, keep=0.4)
    touched = 0
    for program in [*programs(5), *OTHERS]:
        before = smoothing.copies(program)
        assert before.kept.sum(1).tolist() == [int(0.4 * before.kept.shape[1])] * 12
        for seed in range(5):
            attacked, chosen = _attacked(program, seed)
            after = smoothing.copies(attacked)
            assert (before.kept == after.kept).all()
            hit = before.kept[:, chosen].any(1)
            differs = [old != new for old, new in zip(before.programs, after.programs, strict=True)]
            assert not any(differ and not reached for differ, reached in zip(differs, hit, strict=True))
            touched += sum(differs)
    assert touched > 50


def test_copies_mean_the_same_and_have_other_names() -> None:
    smoothing = RenameSmoothing(n=6)
    for program in programs(5):
        copies = smoothing.copies(program).programs
        assert len(set(copies)) > 1
        for copy in copies:
            assert difference(program.code, copy.code, {}) == ""
    own = Program("def f(name, name2, name3):\n    return name - name2 * name3\n", "python")
    for copy in RenameSmoothing(n=20, keep=0.4, names="numbered").copies(own).programs:
        assert difference(own.code, copy.code, {}) == ""  # a new name is none of those that are kept
    kept = smoothing.copies(Program("a = 1\n", "python"))
    assert kept.programs == (Program("a = 1\n", "python"),) * 6 and kept.kept.shape == (6, 0)


def test_no_renaming_breaks_a_certificate_of_the_deployed_vote() -> None:
    """Programs are renamed at random, many times; answers that are not certified for so many identifiers do flip."""
    smoothing = RenameSmoothing(n=9, keep=0.2)
    certified = flipped = 0
    for weights, program in product(range(6), LONG):
        inner = Letters("labels", weights)
        defended = smoothing.wrap(inner)
        copies = smoothing.copies(program)
        votes = torch.nn.functional.one_hot(inner(Programs(copies.programs)), 3).double().numpy()
        bound = certified_identifiers(votes, copies.kept)
        attacked = [_attacked(program, seed) for seed in range(15)]
        answers = defended(Programs([program, *(row for row, _ in attacked)])).argmax(1)
        same = (answers[1:] == answers[0]).tolist()
        assert all(kept or len(chosen) > bound for kept, (_, chosen) in zip(same, attacked, strict=True))
        certified += bound > 0
        flipped += not all(same)
    assert certified >= 2 and flipped >= 2


def test_answers_are_shares_of_votes_and_every_copy_is_asked_once() -> None:
    target = Letters()
    defended = RenameSmoothing(n=8).wrap(target)
    rows = Programs([*programs(5), Program("a = 1\n", "python")])
    scores = defended(rows)
    assert len(target.seen) == len(set(target.seen)) == 5 * 8 + 1  # nothing to rename: eight equal copies
    assert torch.equal((scores * 8).round(), scores * 8) and torch.allclose(scores.sum(1), torch.ones(6))
    by_hand = Counter(target.labels(Programs(RenameSmoothing(n=8).copies(rows[0]).programs)).tolist())
    assert scores[0].tolist() == [by_hand[label] / 8 for label in range(3)]
    mean = RenameSmoothing(n=8, answer="mean").wrap(Letters())(rows[:1])
    expected = target.answer([copy.code for copy in RenameSmoothing(n=8).copies(rows[0]).programs]).double().mean(0)
    assert torch.allclose(mean[0].double(), expected, atol=1e-6)


def test_it_is_a_target_like_any_other(tmp_path: Path) -> None:
    inner = Letters()
    defended = RenameSmoothing(n=8).wrap(inner)
    assert (defended.takes, defended.access, defended.num_classes) == ("code", "scores", 3)
    assert defended.rows_per_query == 8 and defended.deterministic and defended.fresh() is defended
    oracle = Oracle(defended)
    oracle.ask(programs(3))
    assert oracle.books["attack"].queries == 3
    prints = {
        RenameSmoothing(**options).wrap(inner).fingerprint()
        for options in ({}, {"n": 4}, {"keep": 0.1}, {"names": "numbered"}, {"functions": True}, {"seed": 1})
    }
    assert len(prints) == 6
    names = tmp_path / "names.txt"
    names.write_text("alpha\nbeta\nno name\n")
    first = RenameSmoothing(names=str(names)).wrap(inner).fingerprint()
    names.write_text("alpha\ngamma\n")
    assert RenameSmoothing(names=str(names)).wrap(inner).fingerprint() != first


class _Half(Letters):
    """Answers nothing to every other program, or to all."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    def __call__(self, rows: Programs) -> torch.Tensor:
        scores = super().__call__(rows)
        scores[:: self.every] = torch.nan
        return scores


@pytest.mark.parametrize("answer", ["votes", "mean"])
def test_copies_without_an_answer_do_not_vote(answer: Any) -> None:
    scores = RenameSmoothing(n=8, answer=answer).wrap(_Half(2))(programs(1))
    assert torch.allclose(scores.sum(1), torch.ones(1))
    assert RenameSmoothing(n=8, answer=answer).wrap(_Half(1))(programs(1)).isnan().all()


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path) -> None:
    silent: Target = Letters("labels")
    silent.num_classes = None
    empty = tmp_path / "empty.txt"
    empty.write_text("1\n")
    refused: list[tuple[dict[str, Any], Any, type[Exception], str]] = [
        ({"n": 0}, Letters(), UsageError, "n is 0"),
        ({"keep": 1.5}, Letters(), UsageError, "keep is 1.5"),
        ({"answer": "mean"}, Letters("labels"), UsageError, "answers labels only"),
        ({}, silent, UsageError, "how many there are"),
        ({"names": "no/such"}, Letters(), InputError, "no/such cannot be read"),
        ({"names": str(empty)}, Letters(), InputError, "holds 0 identifiers"),
        ({}, targets.load("zoo:digits"), UsageError, "rename-smoothing defends targets of code, and .* takes images"),
    ]
    for options, target, kind, words in refused:
        with pytest.raises(kind, match=words) as caught:
            make_defense("rename-smoothing", options).wrap(target)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in DEFENSES.names() if name != "rename-smoothing"])
def test_defenses_of_images_refuse_code(name: str) -> None:
    defense = make_defense(name)
    if isinstance(defense, TrainedDefense):
        return  # refused when it is fitted: it has no images
    with pytest.raises(UsageError, match="defends targets of images, and letters takes code"):
        defense.wrap(Letters())


def test_a_stack_is_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = parse_stack("rename-smoothing:n=4:keep=0.5")
    target = Letters()
    save(tmp_path / "saved", layers, target)
    monkeypatch.setattr("bbox.targets.load", lambda *_, **__: target)
    again = load(str(tmp_path / "saved"), options={}, trust=False, device=None)
    rows = Programs(Program(code, "python") for code in SOURCES)
    assert torch.equal(again(rows), layers[0][1].wrap(target)(rows))
