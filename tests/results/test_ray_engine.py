"""The Ray engine gives what the local one gives, also when a worker is killed, and never more than the limits allow."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbox.errors import InputError, TargetError, UsageError
from bbox.results.records import Config
from bbox.results.run import execute
from bbox.results.session import describe_run, load_plan
from bbox.results.store import RunFolder

# A digits model that keeps a count of the rows it was asked in this process, and does what the flags in its folder say.
VICTIM = """
import os, signal
from pathlib import Path
import bbox
from torch import nn

HERE = Path(__file__).parent

class Victim(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = bbox.targets.load("zoo:digits").module
        self.rows = 0

    def forward(self, rows):
        self.rows += len(rows)
        with open(HERE / f"rows-{os.getpid()}", "a") as counts:
            counts.write(f"{len(rows)}\\n")
        in_worker = os.getpid() != int((HERE / "driver").read_text())
        if in_worker and self.rows > 150:
            if (HERE / "kill-always").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if (HERE / "kill-once").exists():
                (HERE / "kill-once").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (HERE / "fail").exists():
                raise RuntimeError("out of order")
        return self.net(rows)

def make():
    return Victim()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import os
    import sys

    (tmp_path / "ray_victim.py").write_text(VICTIM)
    (tmp_path / "driver").write_text(str(os.getpid()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray_victim", raising=False)
    return tmp_path


def _config(engine: str, **more: Any) -> Config:
    fixed: dict[str, Any] = {
        "target": "torch:ray_victim:make",
        "limit": 32,
        "budget": 60,
        "max_batch": 32,
        "engine": engine,
    }
    return Config(**{**fixed, **more})


def _run(path: Path, config: Config) -> dict[str, Any]:
    plan = load_plan(config)
    with RunFolder.create(path, describe_run(plan, "a test")) as folder:
        return execute(plan, folder)


def _books(path: Path) -> dict[str, Any]:
    with RunFolder.open(path) as folder:
        ledger: dict[str, Any] = folder.sessions()[-1]["ledger"]["attack"]
        numbers: Counter[tuple[int, int]] = Counter()
        # The folder itself gives the answers of unfinished examples alone.
        for record in folder._db.execute("SELECT examples, numbers FROM answers"):
            numbers.update(zip(*(np.frombuffer(blob, dtype=np.int32).tolist() for blob in record), strict=True))
        rows = folder.answer_count()
    assert rows == len(numbers)  # no query of any example is on record twice
    return ledger


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_results_as_the_local_engine(here: Path, workers: int) -> None:
    local = _run(here / "local", _config("local"))
    ray = _run(here / "ray", _config("ray", workers=workers))
    assert ray == local
    assert _books(here / "ray") == {**_books(here / "local"), "calls": _books(here / "ray")["calls"]}
    for name in sorted((here / "local" / "adversarial").iterdir()):
        assert name.read_bytes() == (here / "ray" / "adversarial" / name.name).read_bytes()


@pytest.mark.usefixtures("cluster")
def test_a_killed_workers_examples_are_attacked_again_and_counted_once(here: Path) -> None:
    local = _run(here / "local", _config("local"))
    (here / "kill-once").touch()
    with pytest.warns(UserWarning, match="a worker has died"):
        ray = _run(here / "ray", _config("ray"))
    assert not (here / "kill-once").exists()
    assert ray == local
    ledger = _books(here / "ray")
    assert ledger["queries"] == ray["summary"]["attack_queries"] == 32 * 60
    with RunFolder.open(here / "ray") as folder:
        assert folder.answer_count() == 32 * 60


@pytest.mark.usefixtures("cluster")
def test_examples_that_kill_every_worker_end_the_run_with_its_state_kept(here: Path) -> None:
    (here / "kill-always").touch()
    with pytest.warns(UserWarning, match="a worker has died"), pytest.raises(TargetError, match="3 workers have died"):
        _run(here / "ray", _config("ray"))
    (here / "kill-always").unlink()
    with RunFolder.open(here / "ray") as folder:
        resumed = execute(load_plan(_config("local")), folder)
    assert resumed == _run(here / "local", _config("local"))


@pytest.mark.usefixtures("cluster")
def test_a_target_that_fails_ends_the_run_and_it_can_go_on(here: Path) -> None:
    (here / "fail").touch()
    with pytest.raises(TargetError, match="out of order"):
        _run(here / "ray", _config("ray"))
    (here / "fail").unlink()
    with RunFolder.open(here / "ray") as folder:
        before = folder.answer_count()
        resumed = execute(load_plan(_config("ray")), folder)
        assert folder.sessions()[-1]["ledger"]["attack"]["queries"] == 32 * 60 - before
    assert resumed == _run(here / "local", _config("local"))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("most", [1, 700, 1919])
def test_the_limit_of_the_run_holds_over_all_workers(here: Path, most: int) -> None:
    found = _run(here / "ray", _config("ray", max_queries=most))
    assert found["complete"]
    assert found["summary"]["attack_queries"] == most
    import os

    asked = sum(
        int(line)
        for path in here.glob("rows-*")
        if path.name != f"rows-{os.getpid()}"
        for line in path.read_text().split()
    )
    assert asked == most  # the workers' own count


@pytest.mark.usefixtures("cluster")
def test_a_time_limit_stops_every_worker(here: Path) -> None:
    plan = load_plan(_config("ray", budget=100_000))
    with RunFolder.create(here / "ray", describe_run(plan, "a test")) as folder:
        found = execute(plan, folder, time_limit=3.0)
    assert found["complete"] and set(found["summary"]["stop_reasons"]) == {"time_limit"}


@pytest.mark.usefixtures("cluster")
def test_workers_that_load_another_model_are_refused(here: Path) -> None:
    plan = load_plan(_config("ray"))
    (here / "ray_victim.py").write_text(
        VICTIM.replace("self.rows = 0", "self.rows = 0; self.net.eval()[0].bias.data += 1")
    )
    with (
        RunFolder.create(here / "ray", describe_run(plan, "a test")) as folder,
        pytest.raises(InputError, match="worker"),
    ):
        execute(plan, folder)


def test_without_ray_one_line_says_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"bbox-toolkit\[ray\]"):
        _run(here / "ray", _config("ray"))


def test_an_engine_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="engine is 'spark'"):
        Config(engine="spark")
    assert json.loads(json.dumps(Config(engine="ray", workers=3).to_json()))["workers"] == 3
    assert torch.get_num_threads() == 1
