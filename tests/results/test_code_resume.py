"""A run on code that is killed at any moment and resumed is the run that nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bbox.results.run import execute
from bbox.results.session import check_same, describe_run
from bbox.results.store import RunFolder
from tests.results.code_runs import Greedy, plan

COPIES = 8
KILLS = 2


def session(path: Path) -> None:
    """Begin the run in this folder, or go on with it."""
    made = plan(Greedy(careless=True), copies=COPIES, max_batch=4)
    folder = RunFolder.open(path) if path.exists() else RunFolder.create(path, describe_run(made, ""))
    check_same(made, folder)
    execute(made, folder)
    folder.close()


def _start(path: Path, log: Path, sleep: float) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", f"from tests.results.test_code_resume import *; session(Path({str(path)!r}))"],
        env={**os.environ, "TOY_LOG": str(log), "TOY_SLEEP": str(sleep), "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )


def _kill_after(rows: int, path: Path, log: Path) -> int:
    until = _rows(log) + rows
    with _start(path, log, 0.01) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and _rows(log) < until and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
    return process.returncode


def _rows(log: Path) -> int:
    return log.stat().st_size // 4 if log.exists() else 0


def _files(path: Path) -> dict[str, bytes]:
    """What must be the same: everything but the journal."""
    found = (file for file in path.rglob("*") if file.is_file() and "journal" not in file.name)
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def test_sigkill_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    log, whole_log = tmp_path / "cut.log", tmp_path / "whole.log"
    monkeypatch.setenv("TOY_LOG", str(whole_log))
    session(whole)
    draw = random.Random(3)
    for _ in range(KILLS):
        assert _kill_after(draw.randrange(12, _rows(whole_log) // 4), cut, log) == -signal.SIGKILL
        assert not (cut / "results.json").exists()
    monkeypatch.setenv("TOY_LOG", str(log))
    session(cut)
    assert _files(cut) == _files(whole)
    with RunFolder.open(cut) as folder:
        spent = sum(e.queries for e in folder.examples().values())
        assert folder.answer_count() == spent
        replayed = sum(s.get("ledger", {}).get("attack", {}).get("replayed", 0) for s in folder.sessions())
        assert replayed > 0
        sessions = folder.sessions()
    assert len(sessions) == KILLS + 1 and sum("ledger" not in s for s in sessions) == KILLS
    # A killed session asks again its probe, its clean answers, its last batch and files that it had verified.
    assert _rows(log) - _rows(whole_log) <= KILLS * (1 + 2 + 3 * COPIES + 4 + 8)
