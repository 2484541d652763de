"""``bbox compare``: real runs made on the command line, what is printed, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from bbox.results import compare as module
from tests.cli.conftest import Ended

USAGE, INPUT = 2, 4
SCHEMA = json.loads(Path(module.__file__).with_name("compare.schema.json").read_text(encoding="utf-8"))
SMALL = ("--limit", "8", "--max-batch", "64", "--threads", "1", "--no-report", "--quiet", "--epsilon", "1.5")


@pytest.fixture
def runs(bbox: Callable[..., Ended]) -> None:
    for name, *more in (("cgba", "--budget", "80"), ("square", "--budget", "60"), ("cgba-h", "--budget", "80")):
        assert bbox("attack", name, *SMALL, *more, "--out", f"runs/{name}").code == 0


@pytest.mark.usefixtures("runs")
def test_tables_page_and_json(bbox: Callable[..., Ended]) -> None:
    ended = bbox("compare", "runs/cgba", "runs/square", "runs/cgba-h", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    jsonschema.validate(found, SCHEMA)
    assert found.pop("page") == "compare.html" and found == module.compare([*map(Path, found_runs(found))])
    assert [run["label"] for run in found["runs"]] == ["cgba", "square", "cgba-h"]
    assert "attack: cgba | square | cgba-h" in ended.err and "budget: 80 | 60 | 80" in ended.err
    for run in found["runs"]:
        robust = 100 * run["at"][-1]["robust_accuracy"][0]["value"]
        assert any(run["label"] in line and f" {robust:.1f}% " in line for line in ended.err.splitlines())
    assert "own budget" in ended.err and "Against cgba" in ended.err and "page: compare.html" in ended.err
    assert "square stays within a fixed epsilon" in ended.err
    assert "<title>bbox compare: cgba, square, cgba-h" in Path("compare.html").read_text(encoding="utf-8")

    again = bbox("compare", "runs/cgba", "runs/cgba-h", "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "compare.html\n")
    assert "<title>bbox compare: cgba, cgba-h" in Path("compare.html").read_text(encoding="utf-8")


def found_runs(found: dict) -> list[str]:
    return [run["run"] for run in found["runs"]]


@pytest.mark.usefixtures("runs")
def test_refused_in_one_line(bbox: Callable[..., Ended]) -> None:
    Path("mine.html").write_text("mine")
    shutil.copytree("runs/cgba", "suite/cgba")
    Path("suite/run.json").write_text('{"kind": "matrix"}')
    other = bbox("attack", "cgba", "--limit", "7", "--budget", "20", "--threads", "1", "--quiet", "--out", "runs/seven")
    assert other.code == 0
    for words, code, text in (
        ((), USAGE, "0 runs given, compare takes 2 to 8 folders"),
        (("runs/cgba",), USAGE, "1 run given"),
        (("runs/cgba", "runs/cgba"), USAGE, "runs/cgba is given twice"),
        (("runs/cgba", "none"), INPUT, "none is not a run folder"),
        (("runs/cgba", "runs/seven"), USAGE, "attack other examples"),
        (
            ("runs/cgba", "suite"),
            USAGE,
            "suite holds several runs (a matrix); name run folders in it, such as suite/cgba",
        ),
        (("runs/cgba", "runs/square", "--out", "mine.html"), USAGE, "mine.html exists; choose another --out"),
        (("runs/cgba", "runs/square", "--out", "no/c.html"), USAGE, "there is no folder no"),
    ):
        ended = bbox("compare", *words)
        assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1) and text in ended.err, ended.err
    assert Path("mine.html").read_text() == "mine" and not Path("compare.html").exists()
