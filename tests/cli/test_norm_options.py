"""The norm and the epsilon on the command line, and folders of other schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended

FEW = ("--limit", "3", "--budget", "60", "--quiet", "--no-report")


def _json(path: Path) -> dict:
    found: dict = json.loads(path.read_text())
    return found


def test_one_epsilon_is_the_attacks_and_the_figures(bbox: Callable[..., Ended]) -> None:
    ended = bbox("attack", "square", "--norm", "linf", "--epsilon", "0.25", *FEW, "--out", "run", "--json")
    assert ended.code == 0, ended.err
    assert ended.err == "", "no word of click's on an option that is there twice"
    results = json.loads(ended.out)
    assert [cell["epsilon"] for cell in results["summary"]["checkpoints"][-1]["asr"]] == [0.25]
    assert all(0.24 < e["distance"] <= 0.25 for e in results["examples"] if e["success"])
    assert _json(Path("run/run.json"))["config"]["attack_options"] == {"epsilon": 0.25}
    shown = bbox("show", "run")
    assert "median linf" in shown.err and "l2" not in shown.err


def test_without_one_both_have_their_defaults(bbox: Callable[..., Ended]) -> None:
    ended = bbox("attack", "square", *FEW, "--out", "run", "--json")
    results = json.loads(ended.out)
    assert results["norm"] == "l2"
    assert [cell["epsilon"] for cell in results["summary"]["checkpoints"][-1]["asr"]] == [1.0, 1.5, 2.0]
    assert _json(Path("run/run.json"))["config"]["attack_options"] == {}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("cgba", "--norm", "linf"), "cgba minimises l2, not linf; give --norm l2"),
        (("square", "--epsilon", "1", "--epsilon", "2"), "square attacks at one distance; give --epsilon once"),
        (("square", "--norm", "l3"), "norm is 'l3', expected l2 or linf or names"),
        (("square", "--loss", "hinge"), "square: loss is 'hinge', expected margin, scale-free, reverse"),
    ],
)
def test_refused_in_one_line(bbox: Callable[..., Ended], words: tuple[str, ...], line: str) -> None:
    ended = bbox("attack", *words, *FEW)
    assert (ended.code, ended.err, ended.out) == (2, f"bbox: {line}\n", "")
    assert not Path("runs").exists()


def test_folders_of_other_schemas(bbox: Callable[..., Ended]) -> None:
    bbox("attack", "cgba", *FEW, "--out", "run")
    now = bbox("show", "run")
    run = _json(Path("run/run.json"))
    del run["config"]["norm"]
    Path("run/run.json").write_text(json.dumps({**run, "schema_version": 1}))
    old = bbox("show", "run")
    told = "run has schema 1, from before there were norms: its distances are l2\n"
    assert (old.code, old.err) == (0, told + now.err)
    assert _json(Path("run/results.json")) == {
        k: v for k, v in json.loads(bbox("show", "run", "--json").out).items() if k != "run"
    }
    assert bbox("attack", "--resume", "run").code == 0
    Path("run/run.json").write_text(json.dumps({**run, "schema_version": 3}))
    new = bbox("show", "run")
    assert (new.code, new.err) == (4, "bbox: run has schema 3, this bbox reads up to 2; update bbox\n")
