"""``bbox defend blackvip`` from the command line: the table, a fit that is cut and goes on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import Tensor

from bbox.cli import cli
from bbox.errors import BboxError, TargetError, UsageError
from bbox.targets.torch_module import TorchTarget

BUDGET = 1500
QUICK = ["--shots", "4", "--budget", str(BUDGET), "--k", "2", "--batch", "8", "--test-limit", "60", "--threads", "1"]
FULL = ["--baselines", "output,local,vp,bar"]


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["defend", *arguments], catch_exceptions=True)


def _ledger(found: dict[str, Any]) -> dict[str, int]:
    return {purpose: entry["queries"] for purpose, entry in found["ledger"].items()}


def test_a_fit_is_compared_and_attacked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = _run("blackvip", *QUICK, *FULL, "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    spent = _ledger(found)
    assert spent["fit"] + spent["select"] + spent["probe"] <= BUDGET
    rows = {row["method"]: row for row in found["comparison"]["rows"]}
    assert list(rows) == ["zero-shot", "blackvip", "output", "local", "vp", "bar"]
    assert spent["baseline"] == sum(rows[method]["queries"] for method in ("output", "vp", "bar"))
    # A row of the table is one look at the 60 test images, but for the adapters, and for prompts that are none.
    assert 120 <= spent["evaluate"] <= 240
    assert all(len(row["correct"]) == 60 for row in rows.values())
    shown = CliRunner().invoke(cli, ["show", str(out)])
    assert "zero-shot" in shown.output and f"budget {BUDGET:,} a method" in shown.output
    attack = ["attack", "cgba", "--target", f"defended:{out}", "--limit", "2", "--budget", "40", "--threads", "1"]
    attacked = CliRunner().invoke(cli, [*attack, "--out", str(tmp_path / "attack"), "--no-report", "--json"])
    assert attacked.exit_code == 0, attacked.output


@pytest.mark.parametrize("dies_at", [4, 22, 32, 50])  # the fit makes 31 calls, the comparison 33
def test_a_target_that_dies_costs_no_answer_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """In the fit, and in the comparison behind it: a resume has the figures of an undisturbed run, at its price."""
    rows, calls, alive = [0], [0], [True]
    answer = TorchTarget.__call__

    def call(self: TorchTarget, batch: Tensor) -> Tensor:
        calls[0] += 1
        if not alive[0] and calls[0] > dies_at:
            raise TargetError("the server is gone")
        rows[0] += len(batch)
        return answer(self, batch)

    monkeypatch.setattr(TorchTarget, "__call__", call)
    whole = _run("blackvip", *QUICK, "--baselines", "vp", "--out", str(tmp_path / "whole"), "--json")
    undisturbed = json.loads(whole.stdout)
    price, rows[0], calls[0], alive[0] = rows[0], 0, 0, False
    cut = _run("blackvip", *QUICK, "--baselines", "vp", "--out", str(tmp_path / "cut"), "--quiet")
    assert isinstance(cut.exception, TargetError), cut.output
    alive[0] = True
    resumed = json.loads(_run("--resume", str(tmp_path / "cut"), "--json").stdout)
    assert resumed["comparison"]["rows"] == undisturbed["comparison"]["rows"]
    assert resumed["fit"] == undisturbed["fit"]
    assert rows[0] == price + 1  # the row that each session asks to see whether target and data fit


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--budget", "20"], "budget 20 is too little"),
        (["--encoder", "nothing"], "unknown encoder 'nothing'"),
        (["--max-calls", "2"], "max_calls is 2"),
        (["--baselines", "magic"], "baselines names 'magic'"),
        (["--optimizer", "cma-es", "--k", "1"], "population of 4"),
        (["--sides", "3"], "sides is 3"),
    ],
)
def test_what_is_refused_leaves_no_folder(tmp_path: Path, arguments: list[str], text: str) -> None:
    out = tmp_path / "run"
    result = _run("blackvip", "--shots", "4", *arguments, "--threads", "1", "--quiet", "--out", str(out))
    assert isinstance(result.exception, UsageError) and text in str(result.exception)
    assert not out.exists()


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    from bbox.data import load, save_image

    for i, image in enumerate(load("zoo:digits").inputs[:12]):
        save_image(tmp_path / f"{i}.png", image)
    result = _run("blackvip", "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    assert isinstance(result.exception, BboxError) and "has no labels; give --labels" in str(result.exception)
