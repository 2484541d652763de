"""The matrix of defenses and attacks: cells are ordinary runs, figures follow from them, and the books are whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import bbox
from bbox.data import Dataset
from bbox.defenses import bundle, make_defense
from bbox.errors import BboxError, InputError, TargetError, UsageError
from bbox.results import Config, Example, RunFolder
from bbox.results.matrix import evaluate_defenses, execute_matrix, plan_matrix, resume_matrix
from bbox.results.matrix_figures import inflation, matrix_figures, queries_to_reach
from bbox.results.matrix_plan import Request, read_attack
from bbox.results.row_costs import measure_row
from tests.toys import NearDuplicates, Quadratic, examples_of

HSJ = "foolbox:HopSkipJumpAttack"
NOISY = ("cgba:step=0.3", "average:cgba", "average:cgba:step=0.3:repeats=3")


class Fragile(Quadratic):
    """Raises, without metering anything, once it would exceed ``good`` rows."""

    good = 10**9

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if self.rows + len(rows) > self.good:
            raise ConnectionError("gone")
        return super().__call__(rows)


def _data(target: Quadratic, count: int = 6) -> Dataset:
    examples = examples_of(target, count)
    labels = examples.labels.clone()
    labels[0] = (labels[0] + 1) % 4  # one that is wrong from the start
    return Dataset("toy", examples.inputs, labels, torch.arange(count), tuple(map(str, range(count))))


def _matrix(defenses: str, attacks: str, target: Quadratic | None = None, **config: Any) -> Any:
    target = target or Fragile()
    made = Config(**{"budget": 60, "max_batch": 16, "limit": 4, "epsilons": (0.5, 1.5), **config})
    request = Request(tuple(defenses.split(",")), tuple(attacks.split(",")), made)
    return plan_matrix(request, bare=target, images=_data(target))


def _cells(matrix: dict[str, Any], row: str) -> dict[str, dict[str, Any]]:
    found = next(r for r in matrix["rows"] if r["name"] == row)
    return {cell["attack"]: cell for cell in found["cells"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fragile, dict[str, Any]]:
    """An undisturbed matrix: folder, target, figures."""
    path = tmp_path_factory.mktemp("matrix") / "whole"
    target = Fragile()
    return path, target, execute_matrix(_matrix("bit-depth,noise,coarsen:top=1", "cgba,square", target), path)


# --- the books ---------------------------------------------------------------------------------------------------


def test_every_row_that_the_target_saw_is_on_the_books(whole: tuple[Path, Fragile, dict[str, Any]]) -> None:
    path, target, matrix = whole
    assert sum(matrix["queries"].values()) == target.rows
    attack = sum(cell.get("attack_queries", 0) for row in matrix["rows"] for cell in row["cells"])
    assert matrix["queries"]["attack"] == attack > 0
    assert matrix["complete"] and matrix == matrix_figures(path) == json.loads((path / "matrix.json").read_text())


def test_the_file_fits_its_schema(whole: tuple[Path, Fragile, dict[str, Any]]) -> None:
    schema = json.loads((resources.files("bbox.results") / "matrix.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(whole[2], schema)
    broken = json.loads(json.dumps(whole[2]))
    del broken["rows"][0]["cells"][0]["at"]
    with pytest.raises(jsonschema.ValidationError, match="'at' is a required"):
        jsonschema.validate(broken, schema)


def test_a_matrix_that_was_stopped_again_and_again_ends_as_the_undisturbed_one(
    tmp_path: Path, whole: tuple[Path, Fragile, dict[str, Any]]
) -> None:
    target, path, stops = Fragile(), tmp_path / "cut", 0
    matrix = _matrix("bit-depth,noise,coarsen:top=1", "cgba,square", target)
    resume = False
    while True:
        target.good = target.rows + 700
        try:
            found = execute_matrix(matrix, path, resume=resume)
            break
        except TargetError:
            stops, resume = stops + 1, True
            assert not matrix_figures(path)["complete"]
            matrix = resume_matrix(path, bare=target, images=_data(target))
    assert stops >= 3
    assert found["queries"]["attack"] == whole[2]["queries"]["attack"], "no attack row is paid twice"
    for ours, theirs in zip(found["rows"], whole[2]["rows"], strict=True):
        assert (ours["cells"], ours["clean"], ours["worst"]) == (theirs["cells"], theirs["clean"], theirs["worst"])
    # What a row that is being measured had asked when the target failed is asked again; nothing else is.
    assert sum(found["queries"].values()) <= target.rows <= sum(found["queries"].values()) + stops * 200


def test_going_on_with_another_target_or_other_data_is_refused(whole: tuple[Path, Fragile, dict[str, Any]]) -> None:
    path, target, _ = whole
    other = _data(target)
    with pytest.raises(InputError, match="zoo:digits has changed since"):
        resume_matrix(path, bare=target, images=replace(other, inputs=1 - other.inputs))
    with pytest.raises(InputError, match="zoo:digits has changed since"):
        resume_matrix(path, bare=NearDuplicates(), images=other)
    with pytest.raises(InputError, match="is not the folder of a matrix"):
        resume_matrix(path / "none" / "cgba")


# --- cells -------------------------------------------------------------------------------------------------------


def test_a_cell_is_the_run_that_the_attack_alone_gives_on_a_fresh_target(tmp_path: Path) -> None:
    target = Quadratic((1, 16, 16))
    path, data = tmp_path / "m", _data(target)
    matrix = execute_matrix(_matrix("blacklight:matches=3", "cgba", target, limit=6), path)
    assert list(_cells(matrix, "blacklight:matches=3")) == [
        "cgba",
        "cgba:step=0.3",
        "resample:cgba",
        "resample:cgba:step=0.3",
    ]
    for name, cell in _cells(matrix, "blacklight:matches=3").items():
        detector = make_defense("blacklight", {"matches": 3}).wrap(target)
        attack, options = read_attack(name)
        alone = bbox.attack(detector, data.inputs, data.labels, attack, options=options, budget=60, max_batch=16)
        with RunFolder.open(path / cell["run"]) as folder:
            assert [e.trace for e in folder.examples().values()] == [e.trace for e in alone.examples]
        assert (cell["succeeded"], cell["claimed"]) == (
            int(alone.success.sum()),
            sum(bool(e.trace) for e in alone.examples),
        )
        assert cell["gave_up"] == sum(e.queries < 60 for e in alone.examples if e.attacked)
        first = [e.first_refused for e in alone.examples if e.attacked]
        assert any(first) and cell["detection_rate"] == sum(f is not None for f in first) / len(first)
        if cell["queries_to_detection"] is not None:
            assert cell["queries_to_detection"] == float(
                torch.tensor([float(f or math.inf) for f in first]).quantile(0.5)
            )


def test_attacks_within_one_distance_run_once_for_each_epsilon(whole: tuple[Path, Fragile, dict[str, Any]]) -> None:
    path, _, matrix = whole
    cells = _cells(matrix, "none")
    assert list(cells) == ["cgba", "square@0.5", "square@1.5"]
    assert [entry["epsilon"] for entry in cells["cgba"]["at"]] == [0.5, 1.5]
    for epsilon in (0.5, 1.5):
        cell = cells[f"square@{epsilon}"]
        assert [entry["epsilon"] for entry in cell["at"]] == [epsilon]
        with RunFolder.open(path / cell["run"]) as folder:
            assert folder.run()["config"]["attack_options"] == {"epsilon": epsilon}


def test_what_cannot_run_is_said_and_not_asked(whole: tuple[Path, Fragile, dict[str, Any]]) -> None:
    path, _, matrix = whole
    cell = _cells(matrix, "coarsen:top=1")["square@1.5"]
    assert not cell["applicable"] and "answers labels only" in cell["reason"] and cell["run"] is None
    assert not any((path / "coarsen-top=1").glob("square*"))


def test_the_worst_counts_adaptive_attacks_too(whole: tuple[Path, Fragile, dict[str, Any]]) -> None:
    for row in whole[2]["rows"]:
        for worst in row["worst"]:
            values = {
                cell["attack"]: at["robust_accuracy"]
                for cell in row["cells"]
                for at in cell.get("at", ())
                if at["epsilon"] == worst["epsilon"]
            }
            assert worst["robust_accuracy"] == min(values.values()) == values[worst["attack"]]
    assert {"average:cgba", "average:square@0.5"} < set(_cells(whole[2], "noise"))


@pytest.mark.parametrize(
    ("defense", "attacks", "expected"),
    [
        ("noise", f"cgba,{HSJ}", ["cgba", *NOISY, HSJ, f"average:{HSJ}"]),
        ("aaa", "cgba,square", ["cgba", "square", "square:loss=scale-free", "square:loss=reverse"]),
        ("aaa", "square:loss=reverse", ["square:loss=reverse"]),
        (
            "jpeg+noise+blacklight",
            "cgba:step=0.1",
            ["cgba:step=0.1", "average:cgba:step=0.1", "resample:cgba:step=0.1"],
        ),
        ("blacklight", "cgba", ["cgba", "cgba:step=0.3", "resample:cgba", "resample:cgba:step=0.3"]),
        ("noise", "average:cgba:repeats=3", ["average:cgba:repeats=3"]),
        ("noise", "cgba,average:cgba", ["cgba", *(name for name in NOISY if name != "average:cgba"), "average:cgba"]),
        ("jpeg", "square,cgba", ["square", "cgba", "cgba:step=0.3"]),
    ],
)
def test_a_row_gets_the_adaptive_attacks_that_its_layers_name(defense: str, attacks: str, expected: list[str]) -> None:
    planned = _matrix(defense, attacks, epsilons=(1.0,))
    none, row = planned.rows
    assert [cell.attack for cell in row.cells] == expected
    assert [cell.attack for cell in none.cells] == attacks.split(",")
    assert {cell.plain for cell in row.cells} <= set(attacks.split(","))
    for cell in row.cells:  # what is shown can be typed, and is what runs
        name, options = read_attack(cell.attack)
        assert (name, options) == (cell.name, {k: str(v) for k, v in cell.options.items() if k != "epsilon"})
    assert len({cell.path for cell in row.cells}) == len(row.cells)


def test_an_attack_and_its_options() -> None:
    assert read_attack("square:p-init=0.3:loss=reverse") == ("square", {"p_init": "0.3", "loss": "reverse"})
    assert read_attack(HSJ) == (HSJ, {})


# --- what is refused before anything is asked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defenses", "attacks", "config", "message"),
    [
        ("noise", "cgba", {"norm": "linf"}, "cgba minimises l2, not linf"),
        ("nois", "cgba", {}, "did you mean 'noise'"),
        ("noise", "cgbaa", {}, "did you mean 'cgba'"),
        ("noise:sigmaa=1", "cgba", {}, "no option 'sigmaa'"),
        ("noise", "square:p_inti=1", {}, "no option 'p_inti'"),
        ("noise", "square:epsilon=1", {}, "give the distance as --epsilon"),
        ("noise,noise", "cgba", {}, "'noise' is given twice"),
        ("none", "cgba", {}, "'none' is given twice (it is always there)"),
        ("noise", "cgba,cgba", {}, "'cgba' is given twice"),
        ("defended:nowhere", "cgba", {}, "holds no defense.json"),
    ],
)
def test_mistakes_are_one_line_before_the_first_query(
    defenses: str, attacks: str, config: dict[str, Any], message: str
) -> None:
    target = Fragile()
    with pytest.raises(BboxError) as error:
        _matrix(defenses, attacks, target, **config)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert target.rows == 0


def test_targets_that_no_attack_or_defense_fits_are_refused() -> None:
    with pytest.raises(UsageError, match=r"none of square can run on Quadratic: square.* needs scores"):
        _matrix("noise", "square", Quadratic(access="labels"))
    with pytest.raises(UsageError, match="works on scores"):
        _matrix("aaa", "cgba", Quadratic(access="labels"))


def test_images_of_another_shape_leave_no_folder(tmp_path: Path) -> None:
    target = Fragile()
    matrix = replace(_matrix("noise", "cgba", target), images=_data(Quadratic((1, 4, 4))))
    with pytest.raises(InputError, match="takes images of shape"):
        execute_matrix(matrix, tmp_path / "m")
    assert target.rows == 0 and not (tmp_path / "m").exists()


def test_a_bundle_stands_for_its_stack_and_for_its_own_black_box_only(tmp_path: Path) -> None:
    target = Fragile()
    bundle.save(tmp_path / "b", [("noise", make_defense("noise", {"sigma": 0.1}))], target)
    row = _matrix(f"defended:{tmp_path / 'b'}", "cgba", target).rows[1]
    assert row.layers == ("noise: RandomNoise(sigma=0.1, gate=0.0, seed=0)",) and not row.deterministic
    with pytest.raises(InputError, match="was fitted to Fragile, not to NearDuplicates"):
        _matrix(f"defended:{tmp_path / 'b'}", "cgba", NearDuplicates())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    target = Fragile()
    with pytest.raises(UsageError, match="exists; choose another --out"):
        execute_matrix(_matrix("noise", "cgba", target), tmp_path)
    assert target.rows == 0 and [p.name for p in tmp_path.iterdir()] == ["kept"]


# --- figures -----------------------------------------------------------------------------------------------------


def _example(index: int, *trace: tuple[int, float], success: bool = True, wrong: bool = False) -> Example:
    return Example(index, str(index), 1, 0 if wrong else 1, 1, "budget", 100, success, 0, 1.0, trace=trace)


def test_queries_to_reach() -> None:
    example = _example(0, (3, 4.0), (10, 2.0), (40, 1.0 + 5e-8), (90, 0.5))
    assert [queries_to_reach(example, e) for e in (5, 2, 1.9, 1, 0.4)] == [3, 10, 40, 40, math.inf]
    assert queries_to_reach(replace(example, success=False), 5) == math.inf
    assert queries_to_reach(_example(0), 5) == math.inf


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        # with the defense, at queries of images 0, 1, 2 (None: never); without it they are 10, 20, 30
        ((20, 40, 60), {"with": 40, "value": 2.0, "at_least": None}),
        ((5, None, 10), {"with": 10, "value": 0.5, "at_least": None}),
        ((20, None, None), {"with": None, "value": None, "at_least": 5.0}),
    ],
)
def test_inflation(reached: tuple[int | None, ...], expected: dict[str, Any]) -> None:
    before = [_example(i, (10 * (i + 1), 1.0)) for i in range(3)]
    after = [_example(i, *([] if q is None else [(q, 1.0)])) for i, q in enumerate(reached)]
    # An image that either of the two runs did not attack is in neither median.
    before += [_example(3, (1, 0.1)), _example(4, wrong=True)]
    after += [_example(3, wrong=True), _example(4, (1, 0.1))]
    assert inflation(after, before, 1.0, 100) == {"images": 3, "without": 20, **expected}
    nothing = {"value": None, "at_least": None, "without": None, "with": expected["with"], "images": 3}
    assert inflation(after, [replace(e, success=False) for e in before], 1.0, 100) == nothing
    assert inflation(after, (), 1.0, 100)["images"] == 0


def test_a_detector_that_lost_its_memory_on_resume_is_marked(tmp_path: Path) -> None:
    target, path = Fragile(), tmp_path / "m"
    matrix = _matrix("blacklight:matches=3", "cgba", target)

    @contextmanager
    def stop_in_the_second_row(row: Any, cell: Any) -> Iterator[Any]:
        if row.layers:
            target.good = target.rows + 20
        yield lambda progress: None

    with pytest.raises(TargetError, match="gone"):
        execute_matrix(matrix, path, watch=stop_in_the_second_row)
    target.good = 10**9
    found = execute_matrix(resume_matrix(path, bare=target, images=_data(target)), path, resume=True)
    assert {name: cell["forgot"] for name, cell in _cells(found, "blacklight:matches=3").items()} == {
        "cgba": True,
        "cgba:step=0.3": False,
        "resample:cgba": False,
        "resample:cgba:step=0.3": False,
    }
    assert not any(cell["forgot"] for cell in _cells(found, "none").values())


# --- what a row costs --------------------------------------------------------------------------------------------


def test_clean_traffic_meets_one_detector_and_is_on_the_books() -> None:
    bare, detector = Quadratic(), NearDuplicates(radius=1e-3)
    data = _data(bare, 8).take([0, 1, 2, 3, 4, 1, 2, 0])
    found = measure_row(bare, detector, data, max_batch=2, quantize=None)
    assert found["clean"] == {"images": 8, "accuracy": 4 / 8, "false_alarms": 3 / 8}
    assert found["ledger"]["clean"]["queries"] == 8 and found["ledger"]["clean"]["refused"] == 3
    assert found["ledger"]["probe"]["queries"] == 2 * 15 * 8 and bare.rows == 15 * 8
    assert detector.rows == 0, "each twin of its own"
    assert measure_row(bare, bare, data, max_batch=8, quantize=None)["latency_ratio"] == 1.0


def test_latency_is_that_of_the_defended_forward() -> None:
    class Slow(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            for _ in range(20):
                super().answer(rows)
            return super().answer(rows)

    shape = (1, 24, 24)
    found = measure_row(Quadratic(shape), Slow(shape), _data(Quadratic(shape), 32), max_batch=32, quantize=None)
    assert 5 < found["latency_ratio"] < 80


# --- the library call --------------------------------------------------------------------------------------------


def test_library_call_and_that_a_row_is_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call: Callable[[], dict[str, Any]] = lambda: evaluate_defenses(  # noqa: E731
        "jpeg+noise", "cgba", out="m", limit=2, budget=30
    )
    found = call()
    assert found["epsilons"] == [1.0, 1.5, 2.0] and found["target"] == "zoo:digits"
    assert found["rows"][1]["clean"]["images"] == 500
    assert call() == found, "gone on with: nothing is left to do"
    with pytest.raises(UsageError, match=r"m is a matrix of jpeg\+noise against cgba; give another out"):
        evaluate_defenses("jpeg", "cgba", out="m")
    loaded = bbox.targets.load(f"defended:m/{found['rows'][1]['folder']}")
    with RunFolder.open(Path("m") / found["rows"][1]["cells"][0]["run"]) as folder:
        assert folder.run()["target"]["name"] == loaded.name
        assert folder.run()["target"]["fingerprint"] == loaded.fingerprint()
