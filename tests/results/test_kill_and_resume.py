"""A run that is killed at any moment and resumed is the run that nobody disturbed."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from pathlib import Path

import pytest

from bbox.data import read_image
from bbox.results import RunFolder
from tests.results.toy_project import Project

KILLS = 3


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With an undisturbed run in ``whole``, logged to ``whole.log``."""
    made = Project.make(tmp_path_factory.mktemp("killed"), "killed_toy", count=7)
    code, _, err = made.run(made.arguments("whole"), log="whole.log")
    assert code == 0, err
    return made


def _outside_the_attack(folder: RunFolder, path: Path) -> set[str]:
    """Hashes of originals (probe, clean) and of saved results (verification), whose rows are asked at other times."""
    import numpy as np

    rows = list(np.load(path / "data.npz")["inputs"])
    for index in folder.examples():
        if folder.array_path("adversarial", index).exists():
            rows += [
                folder.read_array("adversarial", index).numpy(),
                read_image(folder.png_path(index)).numpy(),
            ]
    return {hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows}


def test_sigkill_at_random_moments(project: Project) -> None:
    whole = (project.path / "whole" / "results.json").read_bytes()
    total = project.logged("whole.log")
    draw = random.Random(5)
    log, arguments = "cut.log", project.arguments("cut")
    for _ in range(KILLS):
        code = project.stop_after(draw.randrange(20, total // 4), signal.SIGKILL, arguments, log, sleep=0.02)
        assert code == -signal.SIGKILL
        assert not (project.path / "cut" / "results.json").exists()
        arguments = project.resume("cut")
    code, _, err = project.run(arguments, log=log)
    assert code == 0, err
    assert json.loads((project.path / "cut" / "results.json").read_text()) == json.loads(whole)
    assert (project.path / "cut" / "results.json").read_bytes() == whole

    folder = RunFolder.open(project.path / "cut")
    left_out = _outside_the_attack(folder, project.path)
    asked, expected = project.counts(log), project.counts("whole.log")
    twice = {row: asked[row] - expected[row] for row in asked | expected if row not in left_out}
    assert min(twice.values()) >= 0, "every row of the undisturbed run was asked"
    assert sum(twice.values()) <= KILLS * 16, "no row is asked twice beyond the last batch of each killed session"
    assert all(row in expected for row in twice), "and no row that the undisturbed run did not ask"
    sessions = folder.sessions()
    assert sum(s.get("ledger", {}).get("attack", {}).get("replayed", 0) for s in sessions) > 0
    again = json.loads(whole)["summary"]["attack_queries"]
    assert folder.answer_count() == again == sum(e.queries for e in folder.examples().values())
    folder.close()


def test_sigint_exits_130_and_is_resumable(project: Project) -> None:
    code = project.stop_after(150, signal.SIGINT, project.arguments("interrupted"), "int.log", sleep=0.02)
    assert code == 130
    code, _, err = project.run(project.resume("interrupted"))
    assert code == 0, err
    whole, found = (project.path / name / "results.json" for name in ("whole", "interrupted"))
    assert found.read_bytes() == whole.read_bytes()


def test_python_o_changes_nothing(project: Project) -> None:
    code, _, err = project.run(project.arguments("optimised"), "-O")
    assert code == 0, err
    whole, found = (project.path / name / "results.json" for name in ("whole", "optimised"))
    assert found.read_bytes() == whole.read_bytes()
    code, _, err = project.run(project.arguments("refused", "--budget", "0"), "-O")
    assert code == 2
    assert "expected at least 1" in err and len(err.strip().splitlines()) == 1


def test_resuming_what_is_complete_asks_for_no_attack_row(project: Project) -> None:
    before = (project.path / "whole" / "results.json").read_bytes()
    code, _, err = project.run(project.resume("whole"), log="again.log")
    assert code == 0, err
    assert project.logged("again.log") == 1, "the probe"
    assert (project.path / "whole" / "results.json").read_bytes() == before
