"""``bbox attack smi`` and ``bbox evaluate`` as they are typed: exit codes, one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import bbox as package
from bbox.data.motion import save_motions
from tests.motion_toys import MotionProject, motion_set


@pytest.fixture
def project(bbox, monkeypatch, tmp_path) -> MotionProject:
    monkeypatch.syspath_prepend(tmp_path)
    return MotionProject.make(tmp_path, f"smi_toy_{tmp_path.name}")


@pytest.fixture
def crafted(bbox, project) -> MotionProject:
    """With a finished run in ``run``."""
    assert bbox(*project.craft("run", "--quiet")).code == 0
    return project


def one_line(ended, code: int, said: str) -> None:
    assert ended.code == code, ended.err
    assert said in ended.err and len(ended.err.strip().splitlines()) == 1, ended.err


def test_craft_evaluate_show(bbox, project):
    ended = bbox(*project.craft("run", "--report"))
    assert ended.code == 0 and "6 motions, no target asked" in ended.err and "queries of the attack: 0" in ended.err
    assert all(name in ended.err for name in ("smi", "noise", "smooth-noise", "offset", "drift", "low-pass"))
    assert Path("run/report.html").exists()
    log = Path("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_LOG", str(log))
        ended = bbox("evaluate", "run", "--target", project.target, "--json")
        assert ended.code == 0
        found = json.loads(ended.out)["targets"][0]
        asked = len(log.read_text().splitlines())
        assert found["ledger"]["evaluate"]["queries"] == 6 * 7 == asked - found["ledger"]["probe"]["queries"]
        ended = bbox("evaluate", "run", "--target", project.target, "--quiet")
        assert ended.code == 0 and len(log.read_text().splitlines()) == asked + 1
    clean = project.classify(motion_set(6).inputs).argmax(1)
    moved = project.classify(package.data.load("motion:run/adversarial.npz").inputs).argmax(1)
    assert found["methods"]["adversarial"]["all"]["changed"] == int((clean != moved).sum())
    assert found["correct"] == 5
    shown = bbox("show", "run")
    assert shown.code == 0 and "right 83.3%" in shown.err and "evaluate: python:" in shown.err
    assert json.loads(bbox("show", "run", "--json").out)["queries"] == 0


def test_a_target_that_dies_is_exit_3_and_goes_on(bbox, crafted, monkeypatch):
    monkeypatch.setenv("TOY_LOG", "log")
    monkeypatch.setenv("TOY_GOOD", "15")
    one_line(bbox("evaluate", "run", "--target", crafted.target, "--max-batch", "4"), 3, "the service has gone")
    monkeypatch.delenv("TOY_GOOD")
    Path("log").unlink()
    ended = bbox("evaluate", "run", "--target", crafted.target, "--max-batch", "4", "--json", "--quiet")
    assert ended.code == 0
    assert json.loads(ended.out)["targets"][0]["ledger"]["evaluate"]["queries"] == 42
    assert len(Path("log").read_text().splitlines()) < 42


def test_resume(bbox, crafted):
    one_line(bbox("attack", "smi", "--resume", "run", "--epsilon", "0.2"), 2, "--epsilon cannot change")
    one_line(bbox("attack", "smi", "--resume", "run", "--data", "zoo:motion"), 2, "--data cannot change")
    one_line(bbox("attack", "smi", "--resume", "nowhere"), 4, "is not the folder of a no-box run")
    one_line(bbox("attack", "cgba", "--resume", "run"), 4, "not a run folder")
    assert bbox("attack", "--resume", "run", "--json").code == 0
    save_motions(Path("data.npz"), motion_set(6, seed=1))
    one_line(bbox("attack", "smi", "--resume", "run"), 4, "has changed since run began")


def test_a_full_disk_is_one_line(bbox, crafted):
    Path("run/results.json").unlink()
    Path("run/.results.json.part").mkdir()  # nothing can be written there
    ended = bbox("attack", "smi", "--resume", "run", "--quiet")
    assert ended.code == 70 and "cannot write run" in ended.err and "internal error" not in ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "zoo:st-gcn"], 2, "No such option"),
        (["--epsilon", "0"], 2, "epsilon is 0"),
        (["--epsilon", "nan"], 2, "epsilon is 'nan'"),
        (["--epsilon", "abc"], 2, "epsilon is 'abc'"),
        (["--norm", "l1"], 2, "norm is 'l1'"),
        (["--baselines", "noize"], 2, "did you mean 'noise'"),
        (["--data", "zoo:digits"], 2, "attacks motion, and zoo:digits holds images"),
        (["--data", "empty"], 4, "empty"),
        (["--data", "motion:nan.npz"], 4, "not finite"),
        (["--data", "motion:shape.npz"], 4, "expected (motions, 3, frames, joints, bodies)"),
        (["--data", "motion:one.npz"], 2, "holds 1 motion"),
        (["--limit", "0"], 2, "limit is 0"),
        (["--indices", "900"], 2, "index 900"),
        (["--batch", "0"], 2, "batch is 0"),
        (["--threads", "0"], 2, "threads is 0"),
        (["--encoder", "nothing"], 2, "encoder is 'nothing'"),
        (["--encoder", "empty"], 4, "holds no encoder.json"),
        (["--encoder", "torch:{name}:missing"], 2, "has no 'missing'"),
        (["--encoder", "torch:{name}:blind"], 4, "passes no gradient"),
        (["--out", "taken"], 2, "taken exists"),
        (["--preset", "papers"], 2, "paper"),
    ],
)
def test_mistakes(bbox, project, words, code, said):
    Path("empty").mkdir()
    Path("taken").mkdir()
    Path("taken/file").touch()
    inputs = motion_set(3).inputs.numpy()
    np.savez("nan.npz", inputs=np.where(inputs == inputs.max(), np.nan, inputs), parents=motion_set(3).skeleton.parents)
    np.savez("shape.npz", inputs=inputs[0])
    save_motions(Path("one.npz"), motion_set(4).take([2]))
    usual = {"--data": "motion:data.npz", "--out": "run", "--iterations": "2"}
    given = {words[0]: words[1].format(name=project.name)}
    one_line(bbox("attack", "smi", *(w for pair in (usual | given).items() for w in pair), "--quiet"), code, said)


def test_evaluate_mistakes(bbox, crafted):
    one_line(bbox("evaluate", "run"), 2, "give --target")
    one_line(bbox("evaluate", "nowhere", "--target", "zoo:st-gcn"), 4, "not a run folder")
    one_line(bbox("evaluate", "run", "--target", "zoo:digits"), 2, "takes images")
    one_line(bbox("evaluate", "run", "--target", "zoo:nothing"), 2, "unknown zoo target")
    one_line(bbox("evaluate", "run", "--target", crafted.target, "--max-batch", "0"), 2, "max-batch is 0")
    ended = bbox("evaluate", "run", "--target", "zoo:st-gcn", "--quiet")  # 15 joints, these have 9; other classes
    assert ended.code == 4 and len(ended.err.strip().splitlines()) == 1


def test_refine_a_no_box_run(bbox, crafted):
    arguments = ["attack", "cgba", "--target", crafted.target, "--budget", "30", "--quiet", "--no-report"]
    ended = bbox(*arguments, "--data", "motion:data.npz", "--start-from", "run", "--out", "refined", "--json")
    assert ended.code == 0, ended.err
    results = json.loads(ended.out)
    moved = project_labels(crafted, "run")
    clean = crafted.classify(motion_set(6).inputs).argmax(1)
    for example in results["examples"]:
        if example["stop_reason"] != "already_wrong" and clean[example["index"]] != moved[example["index"]]:
            assert example["trace"][0][0] == 1, "it starts from the transferred motion"
    assert results["summary"]["attacked"] == 5
    assert "5 of 6 motions attacked" in " ".join(bbox("show", "refined").err.split())  # a title wraps
    assert bbox("evaluate", "refined", "--target", crafted.target, "--quiet").code == 0
    save_motions(Path("other.npz"), motion_set(6, seed=3))
    one_line(bbox(*arguments, "--data", "motion:other.npz", "--start-from", "run"), 4, "other motions")


def project_labels(project: MotionProject, run: str) -> torch.Tensor:
    return project.classify(package.data.load(f"motion:{run}/adversarial.npz").inputs).argmax(1)


def test_what_asks_a_target_says_so(bbox):
    one_line(bbox("validate", "smi"), 2, "smi asks no target")
    one_line(bbox("attack", "average:smi"), 2, "smi asks no target")
    one_line(bbox("defend", "noise", "--evaluate", "smi"), 2, "smi asks no target")
    one_line(bbox("attack", "cgba", "--data", "zoo:motion", "--norm", "linf"), 2, "minimises l2 on motions")
    one_line(bbox("attack", "cgba", "--tube", "0.1"), 2, "tube is for motions")
    one_line(bbox("attack", "cgba", "--data", "zoo:motion", "--quantize", "8bit"), 2, "is for images")
    one_line(bbox("attack", "cgba", "--data", "zoo:motion", "--target", "zoo:digits"), 2, "takes images")
    one_line(bbox("defend", "noise", "--evaluate", "cgba", "--data", "zoo:motion"), 2, "images are needed here")


def test_help_and_list(bbox):
    shown = bbox("attack", "smi", "--help")
    assert shown.code == 0 and "--baselines" in shown.out and "bbox evaluate RUN" in shown.out
    assert "--target" not in shown.out.replace("--target ...", "")
    assert "smi" in bbox("list", "attacks").out and "motion:PATH" in bbox("list", "data").out


def test_motion_data_has_a_target_of_its_own(bbox):
    ended = bbox(
        "attack", "cgba", "--data", "zoo:motion", "--limit", "3", "--budget", "15", "--no-report", "--out", "run"
    )
    assert ended.code == 0 and "cgba on zoo:st-gcn" in ended.err and "of 3 motions attacked" in ended.err
    assert json.loads(Path("run/run.json").read_text())["config"]["tube"] == 0.1
