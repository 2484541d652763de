"""A run on disk: what it reports is what the saved files say, and its ledgers are what the target saw."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

import bbox
from bbox.attacks import make_attack
from bbox.cli import cli
from bbox.data import Dataset
from bbox.errors import InputError, TargetError, UsageError
from bbox.results import Config, Example, RunFolder
from bbox.results.plan import prepare
from bbox.results.run import execute, figures
from bbox.results.session import check_same, describe_run
from bbox.targets.base import REFUSED
from tests.results.toy_project import Project
from tests.toys import (
    CLASSES,
    IMAGE_ATTACKS,
    Answers,
    Constant,
    Examples,
    NaNAfter,
    NearDuplicates,
    Noisy,
    Quadratic,
    RaisesAfter,
    examples_of,
)

HSJ = "foolbox:HopSkipJumpAttack"


def _data(examples: Examples, wrong: int = 0) -> Dataset:
    labels = examples.labels.clone()
    labels[:wrong] = (labels[:wrong] + 1) % CLASSES
    n = len(labels)
    return Dataset("toy", examples.inputs, labels, torch.arange(n) + 100, tuple(f"image {i}" for i in range(n)))


def _run(
    path: Path,
    target: Any,
    data: Dataset,
    *,
    resume: bool = False,
    time_limit: float | None = None,
    **config: Any,
) -> tuple[dict, RunFolder, Any]:
    config = {"max_batch": 16, "budget": 80, **config}
    made = Config(**config)
    plan = prepare(made, make_attack(made.attack, made.attack_options), target, data)
    folder = RunFolder.open(path) if resume else RunFolder.create(path, describe_run(plan, "a test"))
    if resume:
        check_same(plan, folder)
    try:
        return execute(plan, folder, time_limit=time_limit), folder, plan.oracle
    except BaseException:
        folder.close()
        raise


# --- (e) honest success ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", [None, "8bit"])
@pytest.mark.parametrize("target_class", [None, "next"])
@pytest.mark.parametrize("name", ["cgba", "cgba-h", HSJ])
def test_every_success_and_distance_holds_for_the_files(
    tmp_path: Path, name: str, target_class: str | None, quantize: str | None
) -> None:
    target = Quadratic((3, 9, 7))
    data = _data(examples_of(target, 8), wrong=1)
    results, folder, _ = _run(tmp_path / "run", target, data, attack=name, target_class=target_class, quantize=quantize)
    levels = torch.arange(256, dtype=torch.float32) / 255
    attacked = [e for e in results["examples"] if e["stop_reason"] != "already_wrong"]
    assert len(attacked) == 7 and sum(e["success"] for e in attacked) >= 5
    for example in attacked:
        row, index = example["index"] - 100, example["index"]
        if not example["success"]:
            assert example["distance"] is None
            continue
        saved = torch.from_numpy(np.load(folder.path / f"adversarial/{index:06d}.npy"))
        original = torch.from_numpy(np.load(folder.path / f"originals/{index:06d}.npy"))
        assert torch.equal(original, data.inputs[row])
        assert saved.dtype == torch.float32 and saved.min() >= 0 and saved.max() <= 1
        if quantize:
            assert torch.isin(saved, levels).all()
        picture = np.asarray(Image.open(folder.path / f"adversarial/{index:06d}.png"), dtype=np.float32) / 255
        picture = torch.from_numpy(picture).permute(2, 0, 1)
        for file, success, distance in (
            (saved, example["success"], example["distance"]),
            (picture, example["png_success"], example["png_distance"]),
        ):
            label = int(target.answer(file[None]).argmax())
            goal = example["goal_label"]
            assert success == (label == goal if target_class else label != goal)
            gap = np.linalg.norm(file.double().numpy().ravel() - original.double().numpy().ravel())
            assert distance == pytest.approx(gap, rel=1e-12)
        assert example["adversarial_label"] == int(target.answer(saved[None]).argmax())
        assert example["trace"][-1][1] == pytest.approx(example["distance"], rel=1e-12)
        if quantize:
            assert example["png_success"] and example["png_distance"] == pytest.approx(example["distance"])
    folder.close()


def test_a_target_that_changes_its_mind_gives_no_success(tmp_path: Path) -> None:
    """It was fooled while it was attacked; the saved file does not fool it any more."""

    class Fickle(Quadratic):
        verifying = False

        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            return super().answer(rows) if not self.verifying else torch.eye(CLASSES)[self.truth[: len(rows)]]

    target = Fickle()
    data = _data(examples_of(target, 3))
    target.truth = data.labels
    plan = prepare(Config(budget=60, max_batch=16), make_attack("cgba"), target, data)
    ask = plan.oracle.ask

    def watched(rows: torch.Tensor, purpose: Any = "attack") -> Any:
        target.verifying = purpose == "verify"
        return ask(rows, purpose)

    plan.oracle.ask = watched  # type: ignore[method-assign]
    with RunFolder.create(tmp_path / "run", describe_run(plan, "a test")) as folder:
        results = execute(plan, folder)
    assert results["summary"]["succeeded"] == 0
    assert all(e["distance"] is not None and not e["success"] for e in results["examples"])
    assert all(cell["value"] == 0 for row in results["summary"]["checkpoints"] for cell in row["asr"])


# --- ledgers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*IMAGE_ATTACKS, HSJ])
def test_the_ledgers_add_up_to_what_the_target_saw(tmp_path: Path, name: str) -> None:
    target = Quadratic()
    data = _data(examples_of(target, 6), wrong=2)
    results, folder, oracle = _run(tmp_path / "run", target, data, attack=name, budget=50)
    books = {purpose: ledger.queries for purpose, ledger in oracle.books.items()}
    assert sum(books.values()) == target.rows
    assert books["attack"] == results["summary"]["attack_queries"] == sum(e["queries"] for e in results["examples"])
    assert books["attack"] == folder.answer_count()
    assert books["probe"] == 1 and books["clean"] == 6
    assert books["verify"] == 2 * sum(e["distance"] is not None for e in results["examples"])
    recorded = folder.sessions()[-1]["ledger"]
    assert {purpose: ledger["queries"] for purpose, ledger in recorded.items()} == books
    folder.close()


def test_wrong_from_the_start_is_never_attacked(tmp_path: Path) -> None:
    target = Quadratic()
    data = _data(examples_of(target, 4), wrong=4)
    results, folder, oracle = _run(tmp_path / "run", target, data)
    assert {e["stop_reason"] for e in results["examples"]} == {"already_wrong"}
    assert (results["summary"]["attacked"], results["summary"]["already_wrong"]) == (0, 4)
    assert oracle.books["attack"].queries == oracle.books["verify"].queries == 0
    assert target.rows == 5
    assert results["complete"]
    folder.close()


@pytest.mark.parametrize(
    ("target", "reasons"),
    [
        (Constant(), {"start_not_found", "already_wrong"}),
        (NaNAfter(), {"target_error"}),
        (NaNAfter(good=5), {"target_error"}),
        (NaNAfter(good=60), {"target_error"}),
    ],
    ids=["constant", "nan", "nan after the clean answers", "nan in the attack"],
)
def test_strange_targets_end_with_the_right_reason(tmp_path: Path, target: Any, reasons: set[str]) -> None:
    data = _data(examples_of(Quadratic(), 4))
    results, folder, _ = _run(tmp_path / "run", target, data)
    assert {e["stop_reason"] for e in results["examples"]} == reasons
    assert all(e["queries"] <= 80 for e in results["examples"])
    if not isinstance(target, Constant) and target.good == 0:
        assert results["summary"]["attacked"] == results["summary"]["already_wrong"] == 0
    folder.close()


def test_a_broken_answer_without_labels_is_not_in_the_denominator(tmp_path: Path) -> None:
    data = _data(examples_of(Quadratic(), 3))
    data = Dataset(data.name, data.inputs, None, data.indices, data.ids)
    results, folder, _ = _run(tmp_path / "run", NaNAfter(good=2), data)
    assert results["summary"]["attacked"] == 1  # the probe and the first clean answer were good
    folder.close()


def test_a_labels_only_target(tmp_path: Path) -> None:
    scores, labels = Quadratic(), Quadratic(access="labels")
    data = _data(examples_of(scores, 3))
    first, a, _ = _run(tmp_path / "a", scores, data)
    second, b, _ = _run(tmp_path / "b", labels, data)
    without = {"score": None, "adversarial_score": None}  # all that a target that gives labels alone leaves out
    assert [e | without for e in first["examples"]] == second["examples"]
    a.close()
    b.close()


@pytest.mark.parametrize("answer", [lambda rows: torch.zeros(3, 3, 3), lambda rows: None, lambda rows: 1 / 0])
def test_a_target_that_never_worked_is_refused(tmp_path: Path, answer: Any) -> None:
    data = _data(examples_of(Quadratic(), 2))
    with pytest.raises(InputError) as caught:
        _run(tmp_path / "run", Answers(answer), data)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# --- resume ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"max_queries": 150}, {"target_class": "random", "attack": "cgba-h"}])
def test_a_target_that_fails_is_resumed_without_paying_twice(tmp_path: Path, config: dict) -> None:
    whole = Quadratic()
    data = _data(examples_of(whole, 5), wrong=1)
    expected, folder, _ = _run(tmp_path / "whole", whole, data, **config)
    folder.close()
    attack_rows = expected["summary"]["attack_queries"]
    failing = RaisesAfter(good=90)
    failing.name = whole.name
    failing.fingerprint = whole.fingerprint  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="the service has gone"):
        _run(tmp_path / "cut", failing, data, **config)
    target = Quadratic()
    found, folder, oracle = _run(tmp_path / "cut", target, data, resume=True, **config)
    assert found == expected
    ledger = oracle.books["attack"]
    assert ledger.replayed > 0
    assert ledger.queries + ledger.replayed <= attack_rows == folder.answer_count()
    assert (tmp_path / "cut" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()
    folder.close()


def test_resume_refuses_another_target_or_other_data(tmp_path: Path) -> None:
    target = Quadratic()
    data = _data(examples_of(target, 2))
    _, folder, _ = _run(tmp_path / "run", target, data)
    folder.close()
    with pytest.raises(InputError, match="has changed since"):
        _run(tmp_path / "run", Constant(), data, resume=True)
    with pytest.raises(InputError, match="has changed since"):
        _run(tmp_path / "run", target, data.take([0]), resume=True)


def test_a_time_limit_reports_what_was_delivered(tmp_path: Path) -> None:
    class Slow(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            time.sleep(0.005)
            return super().answer(rows)

    target = Slow()
    data = _data(examples_of(Quadratic(), 4))
    results, folder, oracle = _run(tmp_path / "run", target, data, budget=100_000, time_limit=0.5)
    assert set(results["summary"]["stop_reasons"]) == {"time_limit"}
    assert results["summary"]["attack_queries"] == oracle.books["attack"].queries == folder.answer_count()
    folder.close()


def test_figures_are_computed_from_the_disk(tmp_path: Path) -> None:
    target = Quadratic()
    results, folder, _ = _run(tmp_path / "run", target, _data(examples_of(target, 3)))
    on_disk = json.loads((tmp_path / "run" / "results.json").read_text())
    assert json.loads(json.dumps(figures(folder))) == json.loads(json.dumps(results)) == on_disk
    first = folder.examples()[0]
    folder.write_examples({0: Example(**{**vars(first), "success": False})})
    assert figures(folder)["summary"]["succeeded"] == results["summary"]["succeeded"] - 1
    folder.close()


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"budget": 0}, "budget is 0"),
        ({"target_class": 9}, "target class 9"),
        ({"target_class": -1}, "target class -1"),
        ({"target_class": "soon"}, "'soon'"),
        ({"limit": 0}, "limit is 0"),
        ({"indices": (3,)}, "index 3"),
    ],
)
def test_options_that_make_no_sense_cost_no_attack(tmp_path: Path, config: dict, words: str) -> None:
    target = Quadratic()
    with pytest.raises(UsageError, match=words):
        _run(tmp_path / "run", target, _data(examples_of(target, 3)), **config)
    assert target.rows <= 1
    assert not (tmp_path / "run").exists()


# --- (c) two runs of one seed ------------------------------------------------------------------------------------


def _cli(*arguments: str) -> None:
    cli.main([*arguments, "--max-batch", "32", "--threads", "1", "--no-report", "--quiet"], standalone_mode=False)


@pytest.mark.parametrize("name", ["cgba", "cgba-h", HSJ])
def test_two_runs_of_one_seed_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    project = Project.make(tmp_path, f"same_toy_{len(name)}")
    monkeypatch.chdir(tmp_path)
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        _cli(*project.arguments(out, "--seed", seed, attack=name, budget=60))
    a, b, c = ((tmp_path / out / "results.json").read_bytes() for out in "abc")
    assert a == b != c
    for kind in ("adversarial", "originals"):
        files = sorted(path.name for path in (tmp_path / "a" / kind).iterdir())
        assert files
        for file in files:
            assert (tmp_path / "a" / kind / file).read_bytes() == (tmp_path / "b" / kind / file).read_bytes()


def test_two_runs_on_the_embedded_digits_write_the_same_bytes(tmp_path: Path) -> None:
    for out in "ab":
        _cli("attack", "cgba", "--limit", "5", "--budget", "150", "--out", str(tmp_path / out))
    a, b = ((tmp_path / out / "results.json").read_bytes() for out in "ab")
    assert a == b
    results = json.loads(a)
    assert results["complete"] and results["summary"]["succeeded"] == results["summary"]["attacked"]


def test_the_library_and_the_command_line_agree(tmp_path: Path) -> None:
    _cli("attack", "cgba", "--limit", "4", "--budget", "100", "--out", str(tmp_path / "run"))
    digits = bbox.data.load("zoo:digits").select(limit=4)
    result = bbox.attack("zoo:digits", digits.inputs, digits.labels, budget=100, max_batch=32)
    with RunFolder.open(tmp_path / "run") as folder:
        for row, example in folder.examples().items():
            assert example.queries == int(result.queries[row])
            if example.success:
                assert torch.equal(folder.read_array("adversarial", example.index), result.adversarial[row])


# --- targets that answer at random, or refuse --------------------------------------------------------------------


def test_a_noisy_target_is_verified_by_a_majority_of_eleven(tmp_path: Path) -> None:
    """The closest rows of plain CGBA are those that had luck: asked again, most of them do not hold."""
    succeeded = {}
    for name in ("cgba", "average:cgba"):
        target = Noisy(sigma=0.1)
        _, folder, oracle = _run(
            tmp_path / name[:4], target, _data(examples_of(Quadratic(), 8)), attack=name, budget=600
        )
        with folder:
            attacked = [e for e in folder.examples().values() if e.attacked]
            assert oracle.books["clean"].queries == 11 * 8
            assert oracle.books["verify"].queries == 11 * 2 * sum(e.distance is not None for e in attacked)
            for e in attacked:
                if e.distance is None:
                    continue
                file = folder.read_array("adversarial", e.index)
                labels = Noisy(sigma=0.1, seed=5).answer(file.expand(501, *file.shape)).argmax(1)
                share = float((labels != e.label).float().mean())
                assert share > 0.25 if e.success else share < 0.75, (name, e.index, share)
                assert (e.adversarial_label != e.label) == e.success
        succeeded[name] = sum(e.success for e in attacked)
    assert succeeded["cgba"] <= 3 and succeeded["average:cgba"] >= 6, succeeded


def test_a_deterministic_target_is_asked_once(tmp_path: Path) -> None:
    _, folder, oracle = _run(tmp_path / "run", Quadratic(), _data(examples_of(Quadratic(), 4)))
    folder.close()
    assert (oracle.books["clean"].queries, oracle.books["verify"].queries) == (4, 8)


def test_a_clean_image_is_wrong_when_most_answers_are(tmp_path: Path) -> None:
    turns = {
        0: [0] * 6 + [1] * 5,
        1: [0] * 5 + [1, 2, 1, 2, 1, 2],
        2: [0] * 5 + [1] * 6,
        3: [0] * 4 + [1] * 4 + [2] * 3,
    }
    inputs = torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 8, 8) / 4
    asked: Counter[int] = Counter()

    def answer(rows: torch.Tensor) -> torch.Tensor:
        found = []
        for value in (4 * rows[:, 0, 0, 0]).round().long().tolist():
            found.append(turns[value][asked[value] % len(turns[value])])
            asked[value] += 1
        return torch.tensor(found)

    target = Answers(answer, access="labels")
    target.deterministic = False
    for labels, predicted in ((torch.zeros(4, dtype=torch.int64), [0, 1, 1, 1]), (None, [0, 0, 1, 0])):
        asked.clear()
        asked.update({0: -1, 1: 0, 2: 0, 3: 0})  # the probe asks the first image once
        data = Dataset("toy", inputs.clone(), labels, torch.arange(4), tuple("abcd"))
        plan = prepare(Config(budget=1, max_batch=2), make_attack("cgba"), target, data)
        path = tmp_path / str(labels is None)
        with RunFolder.create(path, describe_run(plan, "a test")) as folder:
            execute(plan, folder)
            assert [e.predicted for e in folder.examples().values()] == predicted
            wrong = [e.stop_reason == "already_wrong" for e in folder.examples().values()]
            assert wrong == [labels is not None and label != 0 for label in predicted]


def test_a_detector_is_met_once_with_each_file_and_its_first_alarm_is_on_record(tmp_path: Path) -> None:
    """Clean images and files go to a target without memory, so they are answered, however often the attack was not."""
    examples = examples_of(Quadratic(), 5)
    results, folder, oracle = _run(tmp_path / "run", NearDuplicates(0.5), _data(examples, wrong=1), budget=60)
    with folder:
        assert oracle.books["clean"].refused == oracle.books["verify"].refused == 0 < oracle.books["attack"].refused
        refused: dict[int, list[int]] = {}
        for record in folder._db.execute("SELECT examples, numbers, labels FROM answers"):
            for example, number, label in zip(
                *(np.frombuffer(blob, np.int32).tolist() for blob in record), strict=True
            ):
                if label == REFUSED:
                    refused.setdefault(example, []).append(number)
        found = folder.examples()
        assert {i: e.first_refused for i, e in found.items()} == {
            i: min(refused[i]) if i in refused else None for i in found
        }
        assert found[0].stop_reason == "already_wrong" and found[0].first_refused is None
        assert all(e.first_refused for i, e in found.items() if i)
        jsonschema.validate(json.loads(json.dumps(results)), _schema())
        assert any(e.success for e in found.values())
    with RunFolder.open(tmp_path / "run") as again:
        assert {i: again.first_refused(i) for i in found} == {i: e.first_refused for i, e in found.items()}


def test_a_refused_original_is_not_attacked_and_counts_against_clean_accuracy(tmp_path: Path) -> None:
    class Suspicious(Quadratic):
        """Refuses bright images."""

        refuses = True

        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            return super().__call__(rows).masked_fill((rows.flatten(1).mean(1) > 0.95)[:, None], torch.nan)

    examples = examples_of(Quadratic(), 4)
    examples.inputs[2] = 1.0
    results, folder, oracle = _run(tmp_path / "run", Suspicious(), _data(examples, wrong=1), budget=20)
    folder.close()
    assert [e["stop_reason"] for e in results["examples"]] == ["already_wrong", "budget", "refused", "budget"]
    assert (results["examples"][2]["predicted"], results["examples"][2]["queries"]) == (REFUSED, 0)
    assert oracle.books["clean"].refused == 1
    assert (results["summary"]["attacked"], results["summary"]["already_wrong"]) == (2, 1)
    assert results["summary"]["clean_accuracy"] == 0.5
    jsonschema.validate(json.loads(json.dumps(results)), _schema())


def _schema() -> Any:
    return json.loads((Path(bbox.__file__).parent / "results" / "results.schema.json").read_text())


@pytest.mark.parametrize(("most", "given", "rows"), [(None, 500, 500), (None, None, 128), (7, 500, 7), (7, 3, 3)])
def test_the_batch_that_was_asked_for_is_taken_unless_the_target_takes_fewer(
    most: int | None, given: int | None, rows: int
) -> None:
    target = Quadratic()
    target.batch = most
    plan = prepare(Config(max_batch=given), make_attack("cgba"), target, _data(examples_of(target, 3)))
    assert plan.oracle.max_batch == rows
