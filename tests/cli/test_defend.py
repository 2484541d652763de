"""``bbox defend NAME`` from the command line to a target that can be attacked and certified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bbox.cli import cli
from bbox.errors import BboxError, InputError, TargetError, UsageError
from bbox.results.defend_run import DefendConfig, DefendFolder, execute_defend, plan_defend
from bbox.targets.torch_module import TorchTarget

# No autoencoder, a short start: seconds, and every stage runs.
QUICK = ["--space", "dct", "--dim", "16", "--denoiser", "dncnn", "--warmup", "3", "--gradient", "zo"]
QUICK += ["--selection", "0.1", "--limit", "60", "--budget", "1500", "--threads", "1"]


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["defend", *arguments], catch_exceptions=True)


def test_a_fit_writes_a_bundle_that_is_attacked_like_any_target(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = _run("zo-ae-ds", *QUICK, "--certify", "0.4", "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    spent = {purpose: entry["queries"] for purpose, entry in found["ledger"].items()}
    assert spent["fit"] + spent["select"] + spent["probe"] + spent["certify"] <= 1500
    assert spent["certify"] == found["certificate"]["queries"] <= 600
    assert {path.name for path in out.iterdir()} >= {"run.json", "defense.json", "fit.json", "results.json"}
    attack = ["attack", "cgba", "--target", f"defended:{out}", "--limit", "2", "--budget", "40", "--threads", "1"]
    attack += ["--out", str(tmp_path / "attack"), "--no-report", "--json"]
    attacked = CliRunner().invoke(cli, attack)
    assert attacked.exit_code == 0, attacked.output
    assert json.loads(attacked.stdout)["target"] == f"defended:{out}"


def test_a_finished_fit_is_printed_again_and_asks_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = _run("zo-ae-ds", *QUICK, "--certify", "0", "--out", str(out), "--json")
    again = _run("--resume", str(out), "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == json.loads(first.stdout)
    shown = CliRunner().invoke(cli, ["show", str(out), "--json"])
    assert json.loads(shown.stdout) == json.loads(first.stdout)
    table = CliRunner().invoke(cli, ["show", str(out)])
    assert "zo-ae-ds on zoo:digits" in table.output and "budget 1,500" in table.output
    (out / "results.json").unlink()
    unfinished = CliRunner().invoke(cli, ["show", str(out)])
    assert isinstance(unfinished.exception, InputError) and "bbox defend --resume" in str(unfinished.exception)


@pytest.mark.parametrize("after", [100, 700])
def test_a_fit_whose_target_dies_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    options = {"space": "dct", "dim": 16, "denoiser": "dncnn", "warmup": 3, "gradient": "zo", "selection": 0.1}
    config = DefendConfig("zo-ae-ds", options, limit=60, budget=1500, certify=0.3)
    whole = _count(monkeypatch, None)
    plan = plan_defend(config)
    undisturbed = execute_defend(plan, DefendFolder.create(tmp_path / "whole", plan.describe("")))
    total = whole[0]
    dying = _count(monkeypatch, after)
    plan = plan_defend(config)
    with pytest.raises(TargetError):
        execute_defend(plan, DefendFolder.create(tmp_path / "cut", plan.describe("")))
    paid = dying[0]
    rest = _count(monkeypatch, None)
    plan = plan_defend(config)
    folder = DefendFolder.open(tmp_path / "cut")
    resumed = execute_defend(plan, folder)
    # Each session asks one row to see that the target answers; the certificate may reserve a slice that a kill loses.
    assert paid + rest[0] == total + 1
    for results in (undisturbed, resumed):
        results.pop("seconds")
        results.pop("ledger")
    assert resumed == undisturbed


def _count(monkeypatch: pytest.MonkeyPatch, dies_after: int | None) -> list[int]:
    """Count what the digits model computes by a meter of its own; make it fail after so many rows."""
    monkeypatch.undo()
    rows = [0]
    bare = TorchTarget._scores

    def scores(self: TorchTarget, answer: object) -> Any:
        found = bare(self, answer)
        if dies_after is not None and rows[0] + len(found) > dies_after:
            raise TargetError("gone")
        rows[0] += len(found)
        return found

    monkeypatch.setattr(TorchTarget, "_scores", scores)
    return rows


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ([], UsageError, "name a defense"),
        (["zo-ae-dss"], UsageError, "did you mean 'zo-ae-ds'"),
        (["zo-ae-ds", "--sigma", "64"], UsageError, "pixels are in"),
        (["zo-ae-ds", "--sigma", "x"], UsageError, "expected a number"),
        (["zo-ae-ds", "--budget", "0"], UsageError, "budget is 0"),
        (["zo-ae-ds", "--budget", "60", "--limit", "60"], UsageError, "too little to train on"),
        (["zo-ae-ds", "--certify", "1.5"], UsageError, "certify is 1.5"),
        (["zo-ae-ds", "--data", "nowhere/"], InputError, "nowhere"),
        (["zo-ae-ds", "--data", "zoo:imagenet-samples"], UsageError, "20 images are too few"),
        (["zo-ae-ds", "--data", "small.npy"], InputError, "takes images of shape"),
        (["zo-ae-ds", "--test", "zoo:imagenet-samples"], InputError, "has images of"),
        (["zo-ae-ds", "--target", "zoo:nothing"], UsageError, "nothing"),
        (["zo-ae-ds", "--preset", "fast"], UsageError, "no preset 'fast'"),
        (["zo-ae-ds", "--threads", "0"], UsageError, "threads is 0"),
        (["zo-ae-ds", "--resume", "nowhere"], InputError, "not the folder of a fit"),
        (["--resume", "nowhere"], InputError, "not the folder of a fit"),
        (["zo-ae-ds", "--limit", "4"], UsageError, "too few"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: type[BboxError], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("small.npy", np.zeros((40, 1, 8, 8), np.float32))
    result = _run(*arguments)
    assert isinstance(result.exception, error), result.output
    assert told in str(result.exception) and "\n" not in str(result.exception)


def test_what_was_asked_cannot_change_on_resume(tmp_path: Path) -> None:
    out = tmp_path / "run"
    _run("zo-ae-ds", *QUICK, "--certify", "0", "--out", str(out))
    result = _run("zo-ae-ds", "--sigma", "0.25", "--resume", str(out))
    assert isinstance(result.exception, UsageError)
    assert "--sigma cannot change on --resume" in str(result.exception)
    again = _run("zo-ae-ds", *QUICK, "--out", str(out))
    assert isinstance(again.exception, UsageError) and "exists" in str(again.exception)


def test_help_names_the_options_with_their_defaults() -> None:
    result = _run("zo-ae-ds", "--help")
    assert result.exit_code == 0
    assert "--estimator" in result.output and "orthogonal" in result.output and "[default: 0.5]" in result.output
