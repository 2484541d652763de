"""``bbox.results.compare``: real runs of toys, and every figure computed again by other means."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import jsonschema
import pytest
import torch

import bbox
from bbox.errors import BboxError, InputError, UsageError
from bbox.results import compare as module
from bbox.results.compare import compare
from bbox.results.compared import reached
from bbox.results.run import figures
from bbox.results.store import RunFolder
from bbox.targets import wrap
from tests.motion_toys import MotionToy, motion_set, near_centres
from tests.results import code_runs
from tests.toys import Quadratic

SCHEMA = json.loads(Path(module.__file__).with_name("compare.schema.json").read_text(encoding="utf-8"))
COUNT, EPSILONS, CHECKPOINTS = 18, (0.6, 1.2), (20, 60)


class Shifted(Quadratic):
    """The toy with another class 0, which gets two more examples wrong from the start."""

    def __init__(self) -> None:
        super().__init__()
        self._weights = torch.tensor([20, 5, 4, 5])

    def fingerprint(self) -> str:
        return "shifted"


def run(path: Path, attack: str = "cgba", target: Any = None, *, budget: int = 150, **options: Any) -> Path:
    toy = Quadratic()
    noise = 0.12 * torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    inputs = (toy.centres[torch.arange(COUNT) % 4] + noise).clamp(0, 1)
    labels = toy.answer(inputs).argmax(1)
    labels[:2] = (labels[:2] + 1) % 4  # wrong from the start
    settings = {"epsilons": EPSILONS, "checkpoints": (*CHECKPOINTS, budget), "max_batch": 64, **options}
    bbox.attack(target or toy, inputs, labels, attack, budget=budget, out=path, **settings)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The reference, another seed and budget, another target, a fixed epsilon."""
    place = tmp_path_factory.mktemp("compare")
    return [
        run(place / "a"),
        run(place / "b", seed=1, budget=100),
        run(place / "c", target=Shifted()),
        run(place / "d", "square", options={"epsilon": 1.2}),
    ]


def on_disk(path: Path) -> list[dict[str, Any]]:
    """The examples as they lie in the journal, read without bbox."""
    with sqlite3.connect(path / "journal.sqlite") as db:
        found = [json.loads(row[0]) for row in db.execute("SELECT record FROM examples ORDER BY position")]
    db.close()
    return found


def distance(example: dict[str, Any], queries: int) -> float:
    return min((d for n, d in example["trace"] if n <= queries and example["success"]), default=math.inf)


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided, by counting the outcomes that are no more likely than what was seen."""
    n = lost + gained
    ways = [math.comb(n, k) for k in range(n + 1)]
    return sum(w for w in ways if w <= ways[lost]) / 2**n


def test_every_figure_by_other_means(runs: list[Path]) -> None:
    found = compare(runs)
    jsonschema.validate(found, SCHEMA)
    assert json.loads(json.dumps(found, allow_nan=False)) == found and found["examples"] == COUNT
    assert found["checkpoints"] == [20, 60, 100] and found["epsilons"] == list(EPSILONS)
    assert [told["attacked"] for told in found["runs"]] == [16, 16, 14, 16]
    first, tests = on_disk(runs[0]), []
    for told, path in zip(found["runs"], runs, strict=True):
        mine = sorted(on_disk(path), key=lambda e: e["index"])
        order = [e["index"] for e in first]
        mine = [mine[index] for index in order]
        right = [e["predicted"] == e["label"] for e in mine]
        assert told["clean_accuracy"] == pytest.approx(sum(right) / COUNT) and told["attacked"] == sum(right)
        assert told["attack_queries"] == sum(e["queries"] for e in mine)
        firsts = [e["trace"][0][0] if e["success"] else math.inf for e, r in zip(mine, right, strict=True) if r]
        assert (told["queries_to_success"] or math.inf) == median(firsts)
        for row in (*told["at"], told["at_own_budget"]):
            at = [distance(e, row["queries"]) for e in mine]
            kept = [d for d, r in zip(at, right, strict=True) if r]
            assert row["found"] == sum(map(math.isfinite, kept))
            assert (row["median_distance"] or math.inf) == pytest.approx(median(kept))
            for place, epsilon in enumerate(EPSILONS):
                hit = sum(d <= epsilon + 1e-5 for d in kept)
                assert row["asr"][place] == {"epsilon": epsilon, "value": pytest.approx(hit / len(kept))}
                assert row["robust_accuracy"][place]["value"] == pytest.approx((len(kept) - hit) / COUNT)
        if told["against"] is None:
            assert told["label"] == "a"
            continue
        before = [e["predicted"] == e["label"] for e in first]
        tests.append(told["against"]["clean_accuracy"])
        check_rate(tests[-1], before, right)
        rows = [row for row in (*told["against"]["at"], told["against"]["at_own_budget"]) if row]
        for row in rows:
            was = [distance(e, row["reference_queries"]) for e in first]
            now = [distance(e, row["queries"]) for e in mine]
            for cell in row["robust_accuracy"]:
                robust = [
                    [r and d > cell["epsilon"] + 1e-5 for r, d in zip(rights, at, strict=True)]
                    for rights, at in ((before, was), (right, now))
                ]
                check_rate(cell, *robust)
                tests.append(cell)
            if told["label"] == "d":
                assert row["distance"] is None and not told["minimises"]
            else:
                check_ratio(row["distance"], [p for p, *r in zip(zip(was, now), before, right) if all(r)])  # noqa: B905
                tests.append(row["distance"])
    assert found["tests"] == len(tests)
    check_holm([t["p"] for t in tests], [t["p_adjusted"] for t in tests])
    assert any(t["p_adjusted"] < 0.05 for t in tests)


def check_rate(cell: dict[str, Any], before: list[bool], now: list[bool]) -> None:
    lost = sum(b and not n for b, n in zip(before, now, strict=True))
    gained = sum(n and not b for b, n in zip(before, now, strict=True))
    assert (cell["n"], cell["lost"], cell["gained"]) == (COUNT, lost, gained)
    assert cell["difference"] == pytest.approx((sum(now) - sum(before)) / COUNT)
    assert cell["interval"][0] <= cell["difference"] <= cell["interval"][1]
    assert cell["p"] == pytest.approx(mcnemar(lost, gained))


def check_ratio(cell: dict[str, Any], pairs: list[tuple[float, float]]) -> None:
    ratios = [1.0 if a == b else math.inf if b == math.inf else b / a for a, b in pairs]
    closer, farther = sum(r < 1 for r in ratios), sum(r > 1 for r in ratios)
    assert (cell["n"], cell["closer"], cell["farther"]) == (len(pairs), closer, farther)
    assert cell["ties"] == len(pairs) - closer - farther
    assert (math.inf if cell["ratio"] is None else cell["ratio"]) == pytest.approx(median(ratios))
    assert cell["p"] == pytest.approx(mcnemar(closer, farther))


def check_holm(p: list[float], adjusted: list[float]) -> None:
    """By its definition: the largest of (m - j) p_j over all that are no larger."""
    ranked = sorted(p)
    for value, got in zip(p, adjusted, strict=True):
        wanted = max((len(p) - j) * ranked[j] for j in range(len(p)) if ranked[j] <= value)
        assert got == pytest.approx(min(1.0, wanted))


def test_the_same_figures_as_the_run_itself(runs: list[Path]) -> None:
    told = compare([runs[0], runs[2]])["runs"][1]
    with RunFolder.open(runs[2]) as folder:
        summary = figures(folder)["summary"]
    names = ("attacked", "already_wrong", "clean_accuracy", "succeeded", "stop_reasons", "attack_queries")
    assert {name: told[name] for name in names} == {name: summary[name] for name in names}
    for row, own in zip(told["at"], summary["checkpoints"], strict=True):
        for name in ("queries", "found", "median_distance", "asr", "robust_accuracy"):
            assert row[name] == own[name]


def test_a_run_against_itself_differs_in_nothing(runs: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(runs[0], tmp_path / "a")
    found = compare([runs[0], copy])
    assert found["differences"] == []
    assert {run["label"] for run in found["runs"]} == {f"{runs[0].parent.name}/a", f"{tmp_path.name}/a"}
    for row in found["runs"][1]["against"]["at"]:
        assert row["distance"]["ratio"] == 1 and row["distance"]["ties"] == row["distance"]["n"] == COUNT - 2
        assert all(cell["difference"] == 0 and cell["p_adjusted"] == 1 for cell in row["robust_accuracy"])
    assert found["runs"][1]["against"]["at_own_budget"] is None and found["runs"][0]["at_own_budget"] is None


def test_only_what_differs_is_said(runs: list[Path]) -> None:
    found = {row["name"]: row["values"] for row in compare(runs)["differences"]}
    assert found["seed"] == [0, 1, 0, 0] and found["budget"] == [150, 100, 150, 150]
    assert found["attack"] == ["cgba", "cgba", "cgba", "square"]
    assert found["attack option epsilon"] == [None, None, None, 1.2]
    assert found["target fingerprint"] == ["Quadratic", "Quadratic", "shifted", "Quadratic"]
    assert not {"data", "norm", "epsilons", "version of torch"} & found.keys()


def test_examples_that_not_all_have_finished_are_left_out(runs: list[Path], tmp_path: Path) -> None:
    cut = shutil.copytree(runs[1], tmp_path / "cut")
    with sqlite3.connect(cut / "journal.sqlite") as db:
        db.execute("DELETE FROM examples WHERE position IN (3, 7, 11)")
    db.close()
    found = compare([runs[0], cut, runs[2]])
    assert found["examples"] == COUNT - 3 and found["left_out"] == 3
    assert [run["complete"] for run in found["runs"]] == [True, False, True]
    assert not {3, 7, 11} & {each["index"] for each in found["each"]}
    assert found["runs"][0]["attack_queries"] == sum(
        e["queries"] for e in on_disk(runs[0]) if e["index"] not in (3, 7, 11)
    )
    with sqlite3.connect(cut / "journal.sqlite") as db:
        db.execute("DELETE FROM examples")
    db.close()
    with pytest.raises(InputError, match=r"cut has finished no example yet; go on with  bbox attack --resume .*cut$"):
        compare([runs[0], cut])
    renamed = shutil.copytree(runs[1], tmp_path / "renamed")
    with sqlite3.connect(renamed / "journal.sqlite") as db:
        db.execute("""UPDATE examples SET record = json_set(record, '$.id', 'x' || position)""")
    db.close()
    with pytest.raises(InputError, match=r"a and the others share no example by index and id"):
        compare([runs[0], renamed])


def test_a_bill_is_of_all_sessions(runs: list[Path], tmp_path: Path) -> None:
    billed = shutil.copytree(runs[0], tmp_path / "billed")
    entry = {"queries": 90, "calls": 9, "replayed": 3, "cached": 10, "requests": 11, "billed": 110, "retried": 20}
    asked = json.loads((billed / "run.json").read_text())
    asked["config"]["price_per_1k"] = 4.0
    (billed / "run.json").write_text(json.dumps(asked))
    with sqlite3.connect(billed / "journal.sqlite") as db:
        db.execute("DELETE FROM sessions")
        for _ in range(2):
            record = {"seconds": 1.5, "ledger": {"attack": entry, "verify": {**entry, "queries": 7}}}
            db.execute("INSERT INTO sessions (record) VALUES (?)", (json.dumps(record),))
    db.close()
    bare, costs = (run["costs"] for run in compare([runs[0], billed])["runs"])
    assert costs["queries"] == {"attack": 180, "verify": 14} and costs["seconds"] == 3
    assert (costs["cached"], costs["requests"], costs["billed"], costs["retried"]) == (40, 44, 440, 80)
    assert costs["cost"] == pytest.approx(440 * 4 / 1000)
    assert bare["cost"] is None and bare["billed"] == 0 and bare["queries"]["attack"] == 16 * 150


@pytest.mark.parametrize("queries", [(1,), (5, 60, 400)])
def test_reached_is_distance_at(runs: list[Path], queries: tuple[int, ...]) -> None:
    with RunFolder.open(runs[0]) as folder:
        examples = list(folder.examples().values())
    table = reached(examples, queries)
    for row, column in itertools.product(range(COUNT), range(len(queries))):
        assert table[row, column] == examples[row].distance_at(queries[column])


def test_programs(tmp_path: Path) -> None:
    for name, careless in (("one", False), ("two", True)):
        code_runs.run(tmp_path / name, code_runs.Greedy(careless=careless)).close()
    found = compare([tmp_path / "one", tmp_path / "two"])
    jsonschema.validate(found, SCHEMA)
    assert found["kind"] == "programs" and found["norm"] == "names"
    later = [run["queries_to_success"] for run in found["runs"]]
    assert later[1] == later[0] + 2  # it asks two programs first that mean something else


def test_motions(tmp_path: Path) -> None:
    toys = near_centres(MotionToy(), 4)
    like = motion_set(4, frames=20, bodies=2)
    motions = replace(like, inputs=toys.inputs, labels=toys.labels)
    for seed in (0, 1):
        bbox.attack(MotionToy(), motions, attack="cgba", budget=40, seed=seed, out=tmp_path / f"{seed}")
    found = compare([tmp_path / "0", tmp_path / "1"])
    assert found["kind"] == "motions" and found["epsilons"] == [0.01, 0.03, 0.05]
    assert found["runs"][1]["against"]["at"][0]["distance"]["n"] == 4


def test_what_cannot_be_compared_is_one_line(runs: list[Path], tmp_path: Path) -> None:
    other = run(tmp_path / "linf", "square", budget=20, norm="linf")
    few = tmp_path / "few"
    bbox.attack(wrap(Quadratic()), torch.rand(3, 1, 8, 8), attack="cgba", budget=20, out=few)
    suite = tmp_path / "suite"
    shutil.copytree(runs[0], suite / "none" / "cgba")
    (suite / "run.json").write_text('{"kind": "matrix"}')
    for kind in ("craft", "defend", "certify"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "run.json").write_text(json.dumps({"kind": kind}))
    code_runs.run(tmp_path / "code").close()
    refused: list[tuple[list[Path], type[BboxError], str]] = [
        ([runs[0]], UsageError, "1 run given, compare takes 2 to 8 folders"),
        ([runs[0]] * 9, UsageError, "9 runs given"),
        ([runs[0], runs[0] / ".." / "a"], UsageError, "is given twice"),
        ([runs[0], tmp_path / "none"], InputError, "none is not a run folder"),
        ([runs[0], other], UsageError, "a measures l2, and .*linf linf; compare runs of one norm"),
        ([runs[0], few], UsageError, "18 of inputs.* and .*few .3 of inputs. attack other examples; give both"),
        ([runs[0], tmp_path / "code"], UsageError, "attacks images, and .*code programs"),
        ([runs[0], suite], UsageError, r"suite holds several runs \(a matrix\); name .* such as .*none/cgba$"),
        ([runs[0], tmp_path / "craft"], UsageError, "craft is a no-box run.* bbox evaluate"),
        ([runs[0], tmp_path / "defend"], UsageError, "defend is a defend run.* bbox show"),
        ([runs[0], tmp_path / "certify"], UsageError, "certify is a certify run"),
    ]
    for paths, kind, text in refused:
        with pytest.raises(kind, match=text) as raised:
            compare(paths)
        assert "\n" not in str(raised.value)
