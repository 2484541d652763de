"""``bbox.attack``: what a robustness script calls."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import Tensor

import bbox
from bbox.errors import InputError, TargetError, UsageError
from bbox.zoo.digits import load_digits_model


@pytest.fixture(scope="module")
def digits() -> bbox.Dataset:
    return bbox.data.load("zoo:digits").select(limit=6)


def test_result_agrees_with_the_model(digits: bbox.Dataset) -> None:
    model = load_digits_model()
    result = bbox.attack(model, digits.inputs, digits.labels, budget=100)
    assert bool(result.success.all())
    assert bool((model(result.adversarial).argmax(1) != digits.labels).all())
    exact = (result.adversarial.double() - digits.inputs.double()).flatten(1).square().sum(1).sqrt()
    assert torch.allclose(exact, result.distance, rtol=1e-12)
    assert result.ledgers["attack"].queries == int(result.queries.sum()) == 600
    assert result.folder is None


def test_out_keeps_a_run_folder_whose_files_fit_the_schemas(digits: bbox.Dataset, tmp_path: Path) -> None:
    result = bbox.attack("zoo:digits", digits.inputs, digits.labels, budget=60, out=tmp_path / "run")
    assert result.folder == tmp_path / "run"
    for name in ("run", "results"):
        schema = json.loads((resources.files("bbox.results") / f"{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.validate(json.loads((tmp_path / "run" / f"{name}.json").read_text(encoding="utf-8")), schema)
    with pytest.raises(UsageError, match="exists"):
        bbox.attack("zoo:digits", digits.inputs, digits.labels, budget=60, out=tmp_path / "run")


def test_without_labels_the_target_s_own_answers_are_left(digits: bbox.Dataset) -> None:
    model = load_digits_model()
    result = bbox.attack(model, digits.inputs, budget=60)
    assert [e.label for e in result.examples] == model(digits.inputs).argmax(1).tolist()


def test_an_attack_object_takes_no_options(digits: bbox.Dataset) -> None:
    made = bbox.attacks.make_attack("cgba", {"initial_queries": 10})
    assert bbox.attack("zoo:digits", digits.inputs, digits.labels, made, budget=40).success.any()
    with pytest.raises(UsageError, match="options go with an attack's name"):
        bbox.attack("zoo:digits", digits.inputs, digits.labels, made, options={"step": 0.1})


def test_a_target_that_dies_hands_over_what_was_found(digits: bbox.Dataset) -> None:
    model, asked = load_digits_model(), 0

    def dies(rows: Tensor) -> Tensor:
        nonlocal asked
        if asked > 300:
            raise ConnectionError("gone")
        asked += len(rows)
        return model(rows)

    with pytest.raises(TargetError, match="gone") as caught:
        bbox.attack(dies, digits.inputs, digits.labels, budget=1000, max_batch=16)
    partial = caught.value.result
    assert not bool(partial.success.any())  # nothing was verified
    found = torch.isfinite(partial.distance)
    assert bool(found.any())
    assert bool((model(partial.adversarial[found]).argmax(1) != digits.labels[found]).all())
    assert partial.ledgers["attack"].queries <= asked


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"inputs": torch.rand(2, 784)}, InputError, "shape"),
        ({"inputs": torch.rand(2, 1, 28, 28) * 255}, InputError, "divide by 255"),
        ({"inputs": torch.full((2, 1, 28, 28), torch.nan)}, InputError, "finite"),
        ({"inputs": torch.zeros(2, 1, 28, 28, dtype=torch.uint8)}, InputError, "uint8"),
        ({"inputs": torch.rand(0, 1, 28, 28)}, InputError, "no images"),
        ({"inputs": torch.rand(2, 3, 28, 28)}, InputError, "takes images of shape"),
        ({"labels": [1]}, InputError, "6 images but 1 labels"),
        ({"labels": [1, 2, 3, 4, 5, 99]}, InputError, "99"),
        ({"attack": "cgab"}, UsageError, "did you mean 'cgba'"),
        ({"budget": 0}, UsageError, "budget"),
        ({"options": {"stepp": 1}}, UsageError, "did you mean 'step'"),
        ({"target_class": 10}, UsageError, "10"),
        ({"starts": torch.rand(3, 1, 28, 28)}, UsageError, "start points"),
        ({"quantize": "4bit"}, UsageError, "4bit"),
        ({"max_batch": 0}, UsageError, "max_batch"),
        ({"stop_at": -1.0}, UsageError, "stop_at"),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, dict) else None,
)
def test_bad_arguments_are_one_clear_line(
    digits: bbox.Dataset, change: dict[str, object], error: type[Exception], words: str
) -> None:
    arguments: dict[str, object] = {"inputs": digits.inputs, "labels": digits.labels, "attack": "cgba", "budget": 20}
    arguments |= change
    if "inputs" in change:
        arguments["labels"] = None
    with pytest.raises(error, match=words) as caught:
        bbox.attack("zoo:digits", **arguments)
    assert "\n" not in str(caught.value)
