"""Rename smoothing on data: figures against answers asked by hand, the budget, resume, and the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bbox import targets
from bbox.cli import main
from bbox.code.program import Program, Programs
from bbox.defenses import bundle
from bbox.defenses.rename_smoothing import RenameSmoothing
from bbox.errors import InputError, TargetError, UsageError
from bbox.results.smoothing_run import SmoothingConfig, SmoothingFolder, execute_smoothing, plan_smoothing
from tests.code_toys import SOURCES, Letters

BROKEN = "def f(a, b:\n    return a b\n"


class Dying(Letters):
    """Meters all that is asked of it, and fails after so many rows."""

    left: int | None = None

    def __call__(self, rows: Programs) -> torch.Tensor:
        if self.left is not None and self.rows + len(rows) > self.left:
            raise RuntimeError("gone")
        return super().__call__(rows)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Dying:
    found = Dying()
    monkeypatch.setattr(targets, "load", lambda *_, **__: found)
    return found


@pytest.fixture
def data(tmp_path: Path) -> str:
    codes = [*(code.replace("    ", " " * width) for width in (1, 2, 3, 4) for code in SOURCES), BROKEN]
    labels = Letters().labels(Programs(Program(code, "python") for code in codes)).tolist()
    labels[1] = 0 if labels[1] else 1
    rows = [json.dumps({"code": code, "label": label}) for code, label in zip(codes, labels, strict=True)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    return f"code:{tmp_path / 'data.jsonl'},language=python"


def _run(config: SmoothingConfig, out: Path) -> dict[str, Any]:
    plan = plan_smoothing(config)
    return execute_smoothing(plan, SmoothingFolder.create(out, plan.describe("")))


def test_all_names_replaced_certifies_every_program_that_parses(target: Dying, data: str, tmp_path: Path) -> None:
    results = _run(SmoothingConfig({"n": 5}, "letters", data=data), tmp_path / "run")
    defended = RenameSmoothing(n=5).wrap(Letters())
    for example in results["examples"]:
        code = [*(c.replace("    ", " " * w) for w in (1, 2, 3, 4) for c in SOURCES), BROKEN][example["index"]]
        row = Programs([Program(code, "python")])
        assert example["smoothed"] == int(defended(row).argmax())
        assert example["plain"] == int(Letters().labels(row))
        assert example["certified"] == (example["identifiers"] if example["parses"] else 0)
    assert results["parse"] == 24 and results["programs"] == 25
    assert results["accuracy"]["plain"]["value"] == pytest.approx(24 / 25)
    right = [e for e in results["examples"] if e["smoothed"] == e["label"] and e["parses"]]
    assert results["certified"]["all"]["value"] == pytest.approx(len(right) / 25)
    assert all(row["value"] == results["certified"]["all"]["value"] for row in results["certified"]["accuracy"])
    spent = sum(ledger["queries"] for ledger in results["ledger"].values())
    assert spent == target.rows <= 1 + 25 * 6 and results["ablation"] is None
    assert results["ledger"]["probe"]["queries"] == 1 and set(results["ledger"]) == {"probe", "evaluate"}


def test_the_budget_is_kept_and_what_is_left_samples_the_ablation(target: Dying, data: str, tmp_path: Path) -> None:
    config = SmoothingConfig({"n": 7, "keep": 0.34}, "letters", data=data, limit=5, budget=1 + 5 * (1 + 7 + 60))
    results = _run(config, tmp_path / "run")
    assert results["samples"] == 60 and target.rows <= config.budget
    assert results["ledger"]["certify"]["queries"] == target.rows - 1 - results["ledger"]["evaluate"]["queries"]
    assert results["ablation"] is not None and all(0 <= e["ablation"]["hits"] <= 60 for e in results["examples"])
    few = _run(SmoothingConfig({"n": 7}, "letters", data=data, budget=30), tmp_path / "few")
    assert few["programs"] == 3 and target.rows <= config.budget + 30


def test_a_run_whose_target_dies_goes_on_and_pays_nothing_twice(target: Dying, data: str, tmp_path: Path) -> None:
    config = SmoothingConfig({"n": 5, "keep": 0.5}, "letters", data=data, budget=1000)
    whole = _run(config, tmp_path / "whole")
    before = target.rows
    target.left = target.rows * 7 // 4
    plan = plan_smoothing(config)
    with pytest.raises(TargetError):
        execute_smoothing(plan, SmoothingFolder.create(tmp_path / "cut", plan.describe("")))
    kept = json.loads((tmp_path / "cut" / "examples.json").read_text())
    assert len(kept["examples"]) == 16
    target.left = None
    folder = SmoothingFolder.open(tmp_path / "cut")
    plan = plan_smoothing(folder.config())
    folder.check_same(plan)
    resumed = execute_smoothing(plan, folder)
    assert resumed["ledger"]["probe"]["queries"] == 2 and whole["ledger"]["probe"]["queries"] == 1
    asked = sum(ledger["queries"] for ledger in resumed["ledger"].values())
    assert asked == target.rows - before, "the ledger is of both sessions, what the lost slice took among it"
    assert before < asked <= before + 1 + 16 * (1 + 5 + plan.samples) and resumed["examples"] == whole["examples"]
    changed = plan_smoothing(SmoothingConfig({"n": 5}, "letters", data=data, limit=3))
    with pytest.raises(InputError, match="has changed"):
        folder.check_same(changed)


def test_what_does_not_fit_is_refused_before_anything_is_asked(target: Dying, data: str) -> None:
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: plan_smoothing(SmoothingConfig({"n": 16}, "letters", data=data, budget=17)), "takes 17 rows"),
        (lambda: SmoothingConfig({}, "letters", data=data, alpha=1.0), "alpha is 1"),
        (lambda: plan_smoothing(SmoothingConfig({}, "letters", data="zoo:digits", limit=2)), "takes code"),
    ]
    for make, words in refused:
        with pytest.raises(UsageError, match=words):
            make()
    assert target.rows == 0


def test_from_the_command_line_to_a_bundle(
    target: Dying, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def run(*words: str) -> tuple[Any, Any]:
        monkeypatch.setattr(sys, "argv", ["bbox", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr()

    out = str(tmp_path / "out")
    asked = ("--target", "letters", "--data", data, "--n", "5", "--threads", "1")
    code, shown = run("defend", "rename-smoothing", *asked, "--keep", "0.34", "--budget", "700", "--out", out, "--json")
    assert code == 0, shown.err
    found = json.loads(shown.out)
    assert "certified accuracy" in shown.err and "do not parse" in shown.err and found["samples"] > 0
    code, shown = run("defend", "--resume", out, "--json")
    assert code == 0 and json.loads(shown.out) == found
    code, shown = run("defend", "rename-smoothing", "--resume", out, "--n", "4")
    assert code == 2 and "--n cannot change" in shown.err
    defended = bundle.load(out, options={}, trust=False, device=None)
    rows = Programs([Program(SOURCES[0], "python")])
    assert torch.equal(defended(rows), RenameSmoothing(n=5, keep=0.34).wrap(Letters())(rows))
    code, shown = run("defend", "rename-smoothing", "--data", data)
    assert code == 2 and "give --target" in shown.err and "\n" not in shown.err.strip()
