"""``bbox certify``: what it prints and writes, what it refuses, and that a killed run goes on."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bbox.defenses import Certificate
from tests.cli.conftest import Ended
from tests.results.toy_project import Project

USAGE, TARGET, REFUSED = 2, 3, 4
SMALL = ("--max-batch", "64", "--threads", "1", "--n", "300", "--n0", "20", "--alpha", "0.01", "--radius", "0.1")

MODELS = """
import torch

def good(rows):
    return torch.stack([0.5 - rows[:, 0, 0, 0], rows[:, 0, 0, 0] - 0.5], 1)

class Twice(torch.nn.Module):
    def forward(self, rows):
        return 2 * rows - 0.5

def fails(rows, sigma):
    raise RuntimeError("no such\\nlayer")

calls = 0

def dies_later(rows):
    global calls
    calls += len(rows)
    if calls > 200:
        raise ConnectionError("the server went away")
    return good(rows)
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "models_here.py").write_text(MODELS)
    inputs = np.full((4, 1, 3, 3), 0.5, np.float32)
    inputs[:, 0, 0, 0] = [0.9, 0.2, 0.52, 0.8]
    np.savez(tmp_path / "good.npz", inputs=inputs, labels=np.array([1, 0, 1, 0]))
    np.savez(tmp_path / "unlabelled.npz", inputs=inputs)
    np.savez(tmp_path / "to255.npz", inputs=inputs * 255)
    return tmp_path


GOOD = ("--target", "python:models_here:good", "--data", "good.npz")


def test_a_run_prints_and_writes_its_figures(bbox: Callable[..., Ended], files: Path) -> None:
    ended = bbox("certify", *GOOD, *SMALL, "--sigma", "0.25", "--noise-accuracy", "3", "--out", "run", "--json")
    assert ended.code == 0, ended.err
    printed, results = json.loads(ended.out), json.loads((files / "run" / "results.json").read_text())
    assert printed == {"run": "run", **results}
    assert "certified accuracy" in ended.err and "50.0% [6.8, 93.2]" in ended.err
    for words in ("what is certified is the smoothed model that was sampled", "alpha 0.01", "ACR at least", "abstain"):
        assert words in ended.err
    found = Certificate.load(files / "run" / "certificate.safetensors")
    assert found.certified((0.1,))[:, 0].tolist() == [True, True, False, True], "the last one is of another class"
    assert results["ledger"]["certify"]["queries"] == found.queries + 4 * 3
    assert results["ledger"]["probe"]["queries"] == 1
    assert results["noise_accuracy"]["draws"] == 3
    again = bbox("certify", "--resume", "run", "--quiet", "--json")
    assert again.code == 0
    assert {**json.loads(again.out), "ledger": 0} == {**printed, "ledger": 0}, "a finished run is only printed again"
    assert json.loads(again.out)["ledger"]["certify"] == printed["ledger"]["certify"]


def test_a_denoiser_and_data_without_labels(bbox: Callable[..., Ended], files: Path) -> None:
    data = ("--target", "python:models_here:good", "--data", "unlabelled.npz", "--noise-accuracy", "0")
    plain = bbox("certify", *data, *SMALL, "--sigma", "0.25", "--out", "a")
    assert plain.code == 0 and "certified share" in plain.err
    denoised = bbox("certify", *data, *SMALL, "--sigma", "0.25", "--out", "b", "--denoiser", "torch:models_here:Twice")
    assert denoised.code == 0 and "behind a denoiser" in denoised.err
    one, two = (Certificate.load(files / name / "certificate.safetensors") for name in "ab")
    # 2 x - 1/2 does not move the boundary at 1/2, so that it changes no answer and no count.
    assert (one.counts == two.counts).all()


def test_a_budget_is_of_the_whole_run(bbox: Callable[..., Ended], files: Path) -> None:
    ended = bbox("certify", *GOOD, *SMALL, "--sigma", "0.25", "--budget", "90", "--out", "run", "--json", "--quiet")
    results = json.loads(ended.out)
    assert ended.code == 0 and results["ledger"]["certify"]["queries"] == 90
    assert results["reasons"]["budget"] > 0


CASES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no sigma": ((), USAGE, "give --sigma"),
    "sigma of another range": (("--sigma", "64"), USAGE, "0 to 255, give 0.25"),
    "sigma of 0": (("--sigma", "0"), USAGE, "sigma is 0"),
    "n too small": (("--sigma", "0.25", "--n", "9", "--method", "fixed"), USAGE, "smallest n that can is 10"),
    "radius out of reach": (("--sigma", "0.25", "--radius", "0.9"), USAGE, "certifies at most"),
    "unknown method": (("--sigma", "0.25", "--method", "e-process"), USAGE, "did you mean 'eprocess'"),
    "alpha of 0": (("--sigma", "0.25", "--alpha", "0"), USAGE, "alpha is 0"),
    "no budget": (("--sigma", "0.25", "--budget", "0"), USAGE, "budget is 0"),
    "a budget of noise alone": (("--sigma", "0.25", "--budget", "4"), USAGE, "alone takes 4"),
    "no threads": (("--sigma", "0.25", "--threads", "0"), USAGE, "threads is 0"),
    "an index that is not there": (("--sigma", "0.25", "--indices", "9"), USAGE, "index 9"),
    "unknown denoiser": (("--sigma", "0.25", "--denoiser", "torhc:a:b"), USAGE, "did you mean 'torch'"),
    "denoiser that fails": (("--sigma", "0.25", "--denoiser", "python:models_here:fails"), REFUSED, "no such layer"),
    "denoiser that is not there": (("--sigma", "0.25", "--denoiser", "diffusers:nowhere"), REFUSED, "no folder unet"),
    "noise accuracy without labels": (("--sigma", "0.25", "--data", "unlabelled.npz"), USAGE, "needs labels"),
    "pixels to 255": (("--sigma", "0.25", "--data", "to255.npz"), REFUSED, "divide by 255"),
    "data that is not there": (("--sigma", "0.25", "--data", "nowhere"), REFUSED, "nowhere"),
    "unknown target": (("--sigma", "0.25", "--target", "zoo:digit"), USAGE, "did you mean"),
    "a target that dies": (("--sigma", "0.25", "--target", "python:models_here:dies_later"), TARGET, "went away"),
    "out that is in use": (("--sigma", "0.25", "--out", "used"), USAGE, "used exists"),
    "resume of nothing": (("--resume", "nowhere"), REFUSED, "not the folder of a certification"),
    "resume of another folder": (("--resume", "used"), REFUSED, "not the folder of a certification"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_the_right_code(name: str, bbox: Callable[..., Ended], files: Path) -> None:
    words, code, needle = CASES[name]
    (files / "used").mkdir()
    (files / "used" / "run.json").write_text("{}")
    plain = () if "--resume" in words else GOOD
    ended = bbox("certify", *plain, *words)
    lines = [line for line in ended.err.splitlines() if line.startswith("bbox: ")]
    assert ended.code == code, ended.err
    assert len(lines) == 1 and needle in lines[0], ended.err
    assert "Traceback" not in ended.err and ended.out == ""
    assert (files / "used" / "run.json").read_text() == "{}"


def test_resume_refuses_other_questions_models_and_files(bbox: Callable[..., Ended], files: Path) -> None:
    assert bbox("certify", *GOOD, *SMALL, "--sigma", "0.25", "--out", "run", "--quiet").code == 0
    changed = bbox("certify", "--resume", "run", "--sigma", "0.5")
    assert changed.code == USAGE and "--sigma cannot change" in changed.err
    shutil.copytree("run", "torn")
    (files / "torn" / "certificate.safetensors").write_bytes(b"half of a file")
    torn = bbox("certify", "--resume", "torn")
    assert torn.code == REFUSED and "cannot be read as a certificate" in torn.err
    np.savez(files / "good.npz", inputs=np.zeros((4, 1, 3, 3), np.float32), labels=np.zeros(4, np.int64))
    other = bbox("certify", "--resume", "run")
    assert other.code == REFUSED and "has changed" in other.err


def test_killed_and_resumed_is_the_undisturbed_run(tmp_path: Path) -> None:
    project = Project.make(tmp_path, "certified_toy", count=4, wrong=0)
    asked = ("--sigma", "0.3", "--n", "300", "--n0", "30", "--radius", "0.2", "--max-batch", "8", "--budget", "1000")
    ask = ["certify", "--target", "python:certified_toy:classify", "--data", "data.npz", *asked, "--threads", "1"]
    code, _, err = project.run([*ask, "--quiet", "--out", "whole"], log="whole.log")
    assert code == 0, err
    total = project.logged("whole.log")
    words = [*ask, "--quiet", "--out", "cut"]
    code = project.stop_after(total // 2, signal.SIGKILL, words, "cut.log", sleep=0.02)
    assert code == -signal.SIGKILL and not (tmp_path / "cut" / "results.json").exists()
    words = ["certify", "--resume", "cut", "--quiet", "--threads", "1"]
    code, _, err = project.run(words, log="cut.log")
    assert code == 0, err
    whole, cut = (Certificate.load(tmp_path / name / "certificate.safetensors") for name in ("whole", "cut"))
    for name in ("predicted", "selection", "counts", "samples", "lower"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name)), name
    assert whole.reason == cut.reason and whole.queries < cut.queries
    again = project.counts("cut.log") - project.counts("whole.log")
    assert sum(again.values()) <= 16 * 8 + 30 + 1, "a kill costs one slice of forwards, and a probe"
    assert set(project.counts("cut.log")) == set(project.counts("whole.log"))
    assert project.logged("cut.log") <= 1000 + 2


def test_ctrl_c_exits_130_and_keeps_what_was_counted(tmp_path: Path) -> None:
    project = Project.make(tmp_path, "interrupted_toy", count=3, wrong=0)
    ask = ["certify", "--target", "python:interrupted_toy:classify", "--data", "data.npz", "--sigma", "0.3"]
    ask += ["--n", "200", "--radius", "0.1", "--max-batch", "8", "--threads", "1", "--quiet", "--out", "run"]
    assert project.stop_after(150, signal.SIGINT, ask, "int.log", sleep=0.02) == 130
    assert Certificate.load(tmp_path / "run" / "certificate.safetensors").queries > 0
