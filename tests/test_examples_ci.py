"""The workflow in ``examples/ci``: its steps run, pass for the model of its baseline, and fail for a weakened one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.results import weaker

CI = Path(__file__).parent.parent / "examples" / "ci"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    path = tmp_path / "checkout"
    shutil.copytree(CI, path)
    source = Path(weaker.__file__).read_text(encoding="utf-8")
    (path / "my_models.py").write_text(source + "\n\ndef load():\n    return model('1.3')\n", encoding="utf-8")
    return path


def _job() -> dict[str, Any]:
    workflow = yaml.safe_load((CI / "robustness.yml").read_text(encoding="utf-8"))
    assert workflow[True] == ["push", "pull_request"], "YAML reads the key 'on' as true"
    (job,) = workflow["jobs"].values()
    return dict(job)


def _run(checkout: Path, **environment: str) -> list[subprocess.CompletedProcess[str]]:
    """Run the job's own commands as GitHub's runner does, up to the first that fails."""
    job = _job()
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(checkout.parent),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "GITHUB_STEP_SUMMARY": str(checkout.parent / "summary.md"),
        **job["env"],
        **environment,
    }
    done: list[subprocess.CompletedProcess[str]] = []
    for step in job["steps"]:
        if "run" not in step or step["run"].startswith("pip install "):
            continue
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done.append(subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=240))
        if done[-1].returncode != 0:
            break
    return done


def test_the_steps_pass_for_the_model_of_the_baseline(checkout: Path) -> None:
    (check,) = _run(checkout)
    assert check.returncode == 0, check.stderr
    assert "holds: zoo:digits, which has not changed" in check.stderr
    summary = (checkout.parent / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## bbox check: holds")
    assert ElementTree.parse(checkout / "robustness.xml").getroot().attrib["failures"] == "0"


def test_the_cache_of_pip_hangs_on_a_file_that_every_repository_with_this_workflow_has() -> None:
    setup = next(step["with"] for step in _job()["steps"] if "setup-python" in step.get("uses", ""))
    assert setup["cache-dependency-path"] == ".github/workflows/robustness.yml", "its default file may not be there"
    assert "Copy `robustness.yml` to `.github/workflows/`" in (CI / "README.md").read_text(encoding="utf-8")


def test_the_steps_fail_for_a_weakened_model_and_leave_what_is_uploaded(checkout: Path) -> None:
    (check,) = _run(checkout, TARGET="torch:my_models:load")
    assert check.returncode == 1, check.stderr
    assert "fell by more than the tolerance" in check.stderr.splitlines()[-1]
    assert "example " in (checkout.parent / "summary.md").read_text(encoding="utf-8")
    upload = _job()["steps"][-1]
    assert upload["if"] == "always()"
    for path in upload["with"]["path"].split():
        assert (checkout / path).exists()
    assert list((checkout / "robustness" / "cgba" / "adversarial").glob("*.png"))
