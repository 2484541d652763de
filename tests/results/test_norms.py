"""Runs in both norms: what the files say, what the figures count, and folders from before there were norms."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import bbox
from bbox.errors import InputError, UsageError
from bbox.report import render
from bbox.results import Config, RunFolder
from bbox.results.metrics import default_epsilons, summarise
from bbox.results.run import figures
from tests.results.test_metrics import EXAMPLES


@pytest.fixture(scope="module")
def digits() -> bbox.Dataset:
    return bbox.data.load("zoo:digits").select(limit=6)


@pytest.mark.parametrize("quantize", [None, "8bit"])
def test_linf_is_measured_from_file_to_file(digits: bbox.Dataset, tmp_path: Path, quantize: str | None) -> None:
    result = bbox.attack(
        *("zoo:digits", digits.inputs, digits.labels, "square"),
        budget=150,
        norm="linf",
        quantize=quantize,
        options={"epsilon": 0.2},
        out=tmp_path / "run",
    )
    assert bool(result.success.all()) and {e.stop_reason for e in result.examples} == {"success"}
    for example in result.examples:
        original, saved = (
            np.load(tmp_path / f"run/{kind}/{example.index:06d}.npy") for kind in ("originals", "adversarial")
        )
        assert example.distance == np.abs(saved.astype(np.float64) - original).max()
        assert example.distance <= 0.2 + 1e-7
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["schema_version"], results["norm"]) == (2, "linf")
    last = results["summary"]["checkpoints"][-1]
    assert last["asr"] == [{"epsilon": eps, "value": float(eps >= 0.2)} for eps in (0.1, 0.2, 0.3)]
    assert 0.19 < last["median_distance"] <= 0.2 + 1e-7
    for name in ("run", "results"):
        schema = json.loads((resources.files("bbox.results") / f"{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.validate(json.loads((tmp_path / "run" / f"{name}.json").read_text()), schema)
    with RunFolder.open(tmp_path / "run") as folder:
        page = render(folder)
    assert "Median linf" in page and "epsilon (linf)" in page and "linf distance</text>" in page
    assert "l2" not in page.replace("l2.", "")


def test_eight_bit_levels_count_as_within_their_epsilon(digits: bbox.Dataset) -> None:
    """8/255 of two float32 pixels is 8/255 up to 6e-8: the ASR at 8/255 must count it."""
    inputs = (digits.inputs * 255).round() / 255
    result = bbox.attack(
        *("zoo:digits", inputs, digits.labels, "square"),
        budget=40,
        norm="linf",
        quantize="8bit",
        options={"epsilon": 77 / 255},
        epsilons=[76 / 255, 77 / 255],
    )
    exact = [e.distance for e in result.examples if e.success]
    assert len(exact) >= 5 and max(exact) > 77 / 255, "in float64 it lies beyond"
    last = result.summary["checkpoints"][-1]
    assert [cell["value"] for cell in last["asr"]] == [0.0, len(exact) / 6]
    assert [cell["value"] for cell in last["robust_accuracy"]] == [1.0, (6 - len(exact)) / 6]


def test_asr_and_robust_accuracy_leave_no_distance_out() -> None:
    (row,) = summarise(EXAMPLES, checkpoints=(100,), epsilons=(0.5, 1.0 - 5e-8, 1.0 - 1e-6))["checkpoints"]
    assert [cell["value"] for cell in row["asr"]] == [1 / 5, 2 / 5, 1 / 5]
    assert [cell["value"] for cell in row["robust_accuracy"]] == [4 / 7, 3 / 7, 4 / 7]


def test_default_epsilons_of_linf() -> None:
    assert default_epsilons((1, 28, 28), "linf") == (0.1, 0.2, 0.3)
    assert default_epsilons((3, 224, 224), "linf") == (2 / 255, 4 / 255, 8 / 255)


def test_a_norm_that_the_attack_lacks_is_refused(digits: bbox.Dataset) -> None:
    with pytest.raises(UsageError, match="cgba minimises l2, not linf; give --norm l2"):
        bbox.attack("zoo:digits", digits.inputs, digits.labels, "cgba", budget=60, norm="linf")
    with pytest.raises(UsageError, match="norm is 'l1', expected l2 or linf"):
        Config(norm="l1")


def _as_schema(path: Path, version: int) -> None:
    run = json.loads((path / "run.json").read_text())
    run["schema_version"] = version
    if version == 1:
        del run["config"]["norm"]
    (path / "run.json").write_text(json.dumps(run))


@pytest.fixture
def finished(digits: bbox.Dataset, tmp_path: Path) -> Path:
    bbox.attack("zoo:digits", digits.inputs[:2], digits.labels[:2], budget=30, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_folder_of_schema_1_is_read_as_l2(finished: Path) -> None:
    with RunFolder.open(finished) as folder:
        before = figures(folder)
    _as_schema(finished, 1)
    with RunFolder.open(finished) as folder:
        assert figures(folder) == before
        assert (before["norm"], before["schema_version"]) == ("l2", 2)


def test_a_folder_of_a_newer_schema_is_refused(finished: Path) -> None:
    _as_schema(finished, 3)
    with pytest.raises(InputError, match="has schema 3, this bbox reads up to 2; update bbox"):
        RunFolder.open(finished)
