"""``bbox defend LIST``: what it prints and saves, what it refuses, and that a killed matrix goes on."""

from __future__ import annotations

import html
import io
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import pytest
from rich.console import Console

from bbox.cli.matrix_table import print_matrix
from bbox.report.matrix import matrix_page
from bbox.results.matrix_figures import matrix_figures
from tests.cli.conftest import Ended
from tests.results.toy_project import Project

USAGE, INPUT = 2, 4
SMALL = ("--limit", "4", "--budget", "60", "--epsilon", "1.5", "--max-batch", "64", "--threads", "1")
SCHEMA = Path(__file__).parents[2] / "bbox" / "results" / "matrix.schema.json"


def test_a_matrix_in_lines_in_json_in_pages_and_in_tables(bbox: Callable[..., Ended]) -> None:
    ended = bbox("defend", "noise,coarsen:top=1", "--evaluate", "cgba,square", *SMALL, "--out", "m", "--json")
    assert ended.code == 0, ended.err
    matrix = json.loads(ended.out)
    assert matrix.pop("run") == "m"
    jsonschema.validate(matrix, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert matrix == json.loads(Path("m/matrix.json").read_text(encoding="utf-8"))

    lines = ended.err.splitlines()
    assert "1/9  none x cgba" in lines and "9/9  coarsen:top=1 x cgba" in lines
    for row in matrix["rows"]:
        for cell in row["cells"]:
            line = next(line for line in lines if line.startswith(f"{row['name']} x {cell['attack']}: "))
            if not cell["applicable"]:
                assert line.endswith("needs scores, and this target answers labels only")
                continue
            robust = 100 * cell["at"][0]["robust_accuracy"]
            worst = cell["at"][0]["robust_accuracy"] == row["worst"][0]["robust_accuracy"]
            assert f"robust@1.5 {robust:.1f}%{'*' if worst else ''}," in line + ","
            assert Path("m", cell["run"], "report.html").is_file()
    assert any(line.startswith("noise: clean accuracy 98.8%, latency ") for line in lines)
    assert f"queries: attack {matrix['queries']['attack']:,}, clean " in ended.err

    page = Path("m/matrix.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "<script" not in page and "src=" not in page
    links = [Path("m", unquote(link)) for link in re.findall('href="([^"]*)"', page)]
    assert len(links) == 9 and all(link.is_file() for link in links)
    assert page.count('<tr class="worst">') >= 3
    evil = "<img src=x onerror=alert(1)>"
    matrix["rows"][1]["name"] = evil
    assert evil not in matrix_page(matrix, Path("m")) and html.escape(evil) in matrix_page(matrix, Path("m"))
    matrix["rows"][1]["name"] = "noise"

    screen = io.StringIO()
    print_matrix(matrix, Console(file=screen, force_terminal=True, width=160, color_system=None))
    shown = screen.getvalue()
    assert "average:square" in shown and "not applicable" in shown and "robust@1.5" in shown and "false alarms" in shown

    again = bbox("defend", "--resume", "m", "--json")
    assert again.code == 0 and json.loads(again.out) == {"run": "m", **matrix}
    assert "1/9" not in again.err


def test_inflation_and_detection_are_shown() -> None:
    at = {"epsilon": 2.0, "asr": 0.5, "robust_accuracy": 0.5, "queries_to_reach": None}
    inflation = {"images": 2, "without": 40.0, "with": None, "value": None, "at_least": 12.5}
    cell = {"attack": "cgba", "applicable": True, "complete": True, "clean_accuracy": 1.0, "median_distance": None}
    cell |= {
        "attacked": 10,
        "gave_up": 6,
        "claimed": 9,
        "succeeded": 3,
        "detection_rate": 0.75,
        "queries_to_detection": 7.0,
        "forgot": True,
    }
    cell["at"] = [{**at, "inflation": inflation}]
    row = {"name": "blacklight", "layers": ["x"], "refuses": True, "rows_per_query": 1, "latency_ratio": 1.25}
    row |= {"clean": {"images": 5, "accuracy": 0.9, "false_alarms": 0.1}, "cells": [cell]}
    row["worst"] = [{"epsilon": 2.0, "robust_accuracy": 0.5, "attack": "cgba"}]
    matrix = {"target": "t", "data": "d", "images": 2, "budget": 500, "norm": "l2", "epsilons": [2.0], "rows": [row]}
    for terminal in (False, True):
        screen = io.StringIO()
        print_matrix(matrix, Console(file=screen, force_terminal=terminal, width=160, color_system=None))
        for text in (
            "3/9",
            "50.0%*",
            ">= 12.5x",
            "75.0%",
            "10.0%",
            "1.25x",
            "began again with an empty memory",
            "(6 of 10)",
        ):
            assert text in screen.getvalue()
    assert "at query 7" in _lines(matrix)
    inflation |= {"with": 100.0, "value": 2.5, "at_least": None}
    assert "inflation@2 2.50x" in _lines(matrix)
    cell["complete"] = False
    assert "blacklight x cgba: not finished" in _lines(matrix)


def _lines(matrix: dict) -> str:
    screen = io.StringIO()
    print_matrix(matrix, Console(file=screen, width=160))
    return screen.getvalue()


def test_without_attacks_one_stack_is_saved_to_be_attacked(bbox: Callable[..., Ended]) -> None:
    ended = bbox("defend", "jpeg+noise:sigma=0.1", "--out", "saved", "--json")
    assert ended.code == 0, ended.err
    assert "saved, not evaluated (no --evaluate): JPEG(quality=75) + RandomNoise(sigma=0.1" in ended.err
    assert "bbox attack cgba --target defended:saved" in ended.err
    assert json.loads(ended.out)["run"] == "saved"
    attacked = bbox("attack", "cgba", "--target", "defended:saved", *SMALL, "--out", "run", "--no-report")
    assert attacked.code == 0, attacked.err
    again = bbox("defend", "jpeg", "--out", "saved")
    assert again.code == USAGE and "saved exists; choose another --out" in again.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("noise,jpeg",), USAGE, "without --evaluate one stack is saved; give --evaluate for several"),
        (("noise", "--evaluate", ","), USAGE, "name at least one defense and one attack"),
        ((",", "--evaluate", "cgba"), USAGE, "name at least one defense and one attack"),
        (("noise", "--evaluate", "cgba", "--norm", "linf"), USAGE, "cgba minimises l2, not linf; leave it out"),
        (("noise", "--evaluate", "cgba", "--norm", "l3"), USAGE, "norm is 'l3'"),
        (("noise", "--evaluate", "cgba", "--threads", "0"), USAGE, "threads is 0"),
        (("noise", "--evaluate", "cgba", "--max-queries", "5"), USAGE, "No such option"),
        (("noise,zo-ae-ds", "--evaluate", "cgba"), USAGE, "zo-ae-ds must be fitted"),
        (("noise,blaclight", "--evaluate", "cgba"), USAGE, "did you mean 'blacklight'"),
        (("noise", "--evaluate", "cgba", "--target", "zoo:digit"), USAGE, "did you mean"),
        (("noise,jpeg", "--resume", "."), USAGE, "the list of defenses cannot change on --resume"),
        (("--resume", "nowhere"), INPUT, "nowhere"),
    ],
)
def test_mistakes_are_one_line(bbox: Callable[..., Ended], words: tuple[str, ...], code: int, message: str) -> None:
    ended = bbox("defend", *words)
    assert ended.code == code and message in ended.err and len(ended.err.strip().splitlines()) == 1
    assert not any(Path().iterdir()), "nothing was written"


def test_a_matrix_that_is_killed_or_interrupted_goes_on(
    bbox: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.make(tmp_path, "matrix_toy", count=4)
    words = ["defend", "bit-depth", "--evaluate", "cgba,square", "--target", "python:matrix_toy:classify"]
    words += ["--data", "data.npz", "--budget", "60", "--epsilon", "1", "--max-batch", "16", "--threads", "1"]
    words += ["--no-report", "--quiet", "--out"]
    resume = ["defend", "--resume", "cut", "--json"]
    code = project.stop_after(120, signal.SIGKILL, [*words, "cut"], "cut.log", sleep=0.01)
    assert code == -signal.SIGKILL and (tmp_path / "cut" / "run.json").exists()
    code = project.stop_after(200, signal.SIGINT, resume, "cut.log", sleep=0.01)
    assert code == 130 and not (tmp_path / "cut" / "matrix.json").exists()
    monkeypatch.setenv("TOY_LOG", "cut.log")
    ended = bbox(*resume)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["complete"] and {"run": "cut", **matrix_figures(tmp_path / "cut")} == found
    monkeypatch.setenv("TOY_LOG", "whole.log")
    assert bbox(*words, "whole").code == 0
    whole = json.loads((tmp_path / "whole" / "matrix.json").read_text())
    assert found["queries"]["attack"] == whole["queries"]["attack"]
    for ours, theirs in zip(found["rows"], whole["rows"], strict=True):
        assert ours["cells"] == theirs["cells"]
    assert sum(whole["queries"].values()) == project.logged("whole.log")
    # Twice are the last forward of each stopped session, and each session's probe.
    assert project.logged("cut.log") - project.logged("whole.log") <= 2 * (16 + 1)
