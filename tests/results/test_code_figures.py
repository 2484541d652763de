"""The figures, files and logs of a run on code, against counts by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bbox.code import Program
from bbox.errors import InputError, UsageError
from bbox.results.code_names import judge_names
from bbox.results.run import execute, figures
from bbox.results.saved import SavedPrograms, read_program
from bbox.results.session import describe_run
from bbox.results.store import RunFolder, StorageError
from tests.code.substitutes.tiny_lm import save_tiny_lm
from tests.results.code_runs import AREA, NAMELESS, Greedy, plan, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("code") / "run", Greedy(careless=True))


@pytest.fixture
def own(tmp_path: Path) -> RunFolder:
    """A run that a test may break."""
    return run(tmp_path / "run", Greedy(careless=True))


def test_denominators_and_counts(folder: RunFolder) -> None:
    code = figures(folder)["code"]
    # Five programs: one is wrong from the start, one has no identifier, three are broken.
    assert (code["attacked"], code["no_identifiers"], code["valid"], code["raw"]) == (4, 1, 3, 3)
    assert (code["valid_asr"], code["valid_asr_with_identifiers"], code["raw_asr"]) == (0.75, 1.0, 0.75)
    # The careless first two rows fool the target and mean something else: raw, before anything valid.
    by_index = {e.index: e for e in folder.examples().values()}
    first = [by_index[i].first_adversarial for i in range(3)]
    valid = [by_index[i].trace[0][0] for i in range(3)]
    assert first == [2, 1, 2] and valid == [4, 5, 4]
    assert code["queries_to_success_mean"] == pytest.approx(13 / 3) and code["queries_to_success_median"] == 4
    spent = [by_index[i].queries for i in (0, 1, 2, 4)]
    assert spent == [8, 10, 8, 0] and code["queries_mean"] == sum(spent) / 4 and code["queries_median"] == 8
    assert code["asr_per_query"] == pytest.approx(0.75 / (sum(spent) / 4))
    assert code["checks"] == {"bytecode": 2, "positions": 3} and code["invalid_files"] == 0


def test_rates_of_change(folder: RunFolder) -> None:
    code = figures(folder)["code"]
    # Renamed: 2 of 3, 2 of 4 and 2 of 3 identifiers.
    assert code["identifier_change_rate"] == pytest.approx((2 / 3 + 2 / 4 + 2 / 3) / 3)
    # AREA: width and height in two places each; its tokens by hand: words and other characters.
    assert read_program(folder, "adversarial", 0).code == AREA.replace("width", "name").replace("height", "text")
    only = figures(run(folder.path.with_name("area"), indices=(0,)))["code"]
    assert only["token_change_rate"] == pytest.approx(4 / (8 + 5 + 16))  # tokens of its three lines
    assert only["edit_distance"] == 2 * 5 + 2 * 4  # width -> name: 5 edits, height -> text: 4


def test_checkpoints_are_of_valid_successes(tmp_path: Path) -> None:
    code = figures(run(tmp_path / "run", Greedy(careless=True), checkpoints=(1, 2, 4, 5, 8)))["code"]
    rows = [(r["queries"], r["valid_asr"], r["raw_asr"], r["found"], r["median_names"]) for r in code["checkpoints"]]
    assert rows == [
        (1, 0.0, 0.25, 0, None),
        (2, 0.0, 0.75, 0, None),
        (4, 0.5, 0.75, 2, 2.0),
        (5, 0.75, 0.75, 3, 2.0),
        (8, 0.75, 0.75, 3, 2.0),
    ]


def test_names_are_counted_in_all_of_the_data(tmp_path: Path) -> None:
    # Two more copies of each program that are not attacked: "name" and "text" stand in three programs, others too.
    code = figures(run(tmp_path / "run", copies=3, indices=(0,)))["code"]
    assert code["names"] == ["name", "text"] and code["names_in_use"] == 1.0 and code["names_counted_in"] == 11
    counted = json.loads((tmp_path / "run" / "names.json").read_text())
    assert counted == {"programs": 11, "in_programs": {"name": 3, "text": 3}}
    assert figures(run(tmp_path / "two", copies=2, indices=(0,)))["code"]["names_in_use"] == 0.0


def test_names_are_unknown_before_the_end(own: RunFolder) -> None:
    (own.path / "names.json").unlink()
    code = figures(own)["code"]
    assert code["names_in_use"] is None and code["names_counted_in"] is None and code["same_style"] == 1.0


def test_files_follow_the_schemas(folder: RunFolder) -> None:
    for name in ("run", "results"):
        schema = json.loads((resources.files("bbox.results") / f"{name}.schema.json").read_text(encoding="utf-8"))
        content = json.loads((folder.path / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.validate(content, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, "norm": "names", "code": {}, "attack": {}}, schema)


def test_rename_files(folder: RunFolder) -> None:
    report = json.loads((folder.path / "renames" / "000000.json").read_text())
    assert report["equivalent"] and report["checks"] == ["positions", "bytecode"] and report["identifiers"] == 3
    assert [(r["old"], r["new"], r["occurrences"]) for r in report["renames"]] == [
        ("width", "name", 2),
        ("height", "text", 2),
    ]
    diff = (folder.path / "renames" / "000000.diff").read_text().splitlines()
    assert diff[:2] == ["--- originals/000000.py", "+++ adversarial/000000.py"]
    assert "-    total = width * height" in diff and "+    total = name * text" in diff
    assert (folder.path / "originals" / "000004.py").read_text() == NAMELESS


def test_textattack_log(folder: RunFolder) -> None:
    rows = list(csv.DictReader(io.StringIO((folder.path / "results.csv").read_text())))
    assert [row["result_type"] for row in rows] == ["Successful"] * 3 + ["Skipped", "Failed"]
    assert rows[0]["original_text"] == AREA and rows[0]["perturbed_text"] == read_program(folder, "adversarial", 0).code
    assert (rows[0]["original_output"], rows[0]["perturbed_output"]) == ("numbers", "text")
    assert (rows[3]["original_output"], rows[3]["ground_truth_output"], rows[3]["num_queries"]) == (
        "numbers",
        "text",
        "0",
    )
    assert float(rows[0]["original_score"]) < 0.01 and float(rows[0]["perturbed_score"]) > 0.5


class TestDamage:
    def test_a_saved_program_that_was_changed_is_no_success(self, own: RunFolder) -> None:
        path = own.path / "adversarial" / "000000.py"
        path.write_text(path.read_text().replace("*", "+"))
        code = figures(own)["code"]
        assert (code["valid"], code["invalid_files"], code["raw"]) == (2, 1, 3)

    @pytest.mark.parametrize("kind", ["originals", "adversarial"])
    def test_a_saved_program_that_is_gone_is_no_success(self, own: RunFolder, kind: str) -> None:
        (own.path / kind / "000000.py").unlink()
        code = figures(own)["code"]
        assert (code["valid"], code["invalid_files"], code["valid_asr"]) == (2, 1, 0.5)

    def test_and_is_one_line_where_it_is_needed(self, own: RunFolder) -> None:
        (own.path / "adversarial" / "000000.py").write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match=r"program 0 in .*adversarial cannot be read"):
            read_program(own, "adversarial", 0)
        (own.path / "adversarial" / "000000.py").unlink()
        with pytest.raises(InputError, match="has no program 0"):
            execute(plan(Greedy(careless=True)), own)


@pytest.mark.parametrize(
    "code",
    ["x = 1\r\ny = 2\r\n", "x = 'é\N{SNOWMAN}'", "no line end", "", "a\x0cb\u2028c\n", "bad = '\udce9'\n"],
    ids=["crlf", "unicode", "no end", "empty", "odd breaks", "surrogate"],
)
def test_sources_come_back_as_they_were(tmp_path: Path, code: str) -> None:
    with RunFolder.create(tmp_path / "run", {"config": {}}) as folder:
        saved = SavedPrograms(folder)
        pair = Program(code, "java", code + "\n")
        saved.keep(3, pair)
        saved.write(4, pair, pair)
        assert list(saved.read("originals", [3, 4])) == [pair, pair]
        assert list(saved.read("adversarial", [4])) == [pair]


class _Origin:
    """Remembers what it was given to write; a full disk, where it is told so."""

    def __init__(self, *, full: bool = False) -> None:
        self.full, self.given = full, []

    def write(self, folder: Path, chosen: Any) -> Path:
        if self.full:
            raise OSError(28, "No space left on device")
        self.given = [(index, program.code) for index, program in chosen]
        return folder


def _with_origin(path: Path, origin: _Origin, **config: object) -> RunFolder:
    made = plan(**config)
    made = replace(made, data=replace(made.data, origin=origin))
    folder = RunFolder.create(path, describe_run(made, ""))
    execute(made, folder)
    return folder


def test_what_is_written_back_goes_by_the_place_in_the_source(tmp_path: Path) -> None:
    origin = _Origin()
    folder = _with_origin(tmp_path / "run", origin, indices=(2, 4, 0))
    assert origin.given == [
        (2, read_program(folder, "adversarial", 2).code),
        (0, read_program(folder, "adversarial", 0).code),
    ]


def test_a_full_disk_while_writing_back_leaves_the_results(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="adversarial-data: No space left on device; make room"):
        _with_origin(tmp_path / "run", _Origin(full=True))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]


def test_a_full_disk_during_the_run_is_one_line_and_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bbox.results import store

    def full(path: Path, content: bytes | str) -> None:
        if path.parent.name == "renames":
            raise OSError(28, "No space left on device")
        write(path, content)

    write = store.write_whole
    monkeypatch.setattr(store, "write_whole", full)
    with pytest.raises(StorageError, match="No space left on device; make room and go on with --resume"):
        run(tmp_path / "run")
    monkeypatch.undo()
    with RunFolder.open(tmp_path / "run") as folder:
        assert len(folder.examples()) == 1, "only what was wrong from the start"
        execute(plan(), folder)
    whole = run(tmp_path / "whole")
    assert (tmp_path / "run" / "results.json").read_bytes() == (whole.path / "results.json").read_bytes()


def test_a_masked_language_model_judges_the_names(folder: RunFolder, tmp_path: Path) -> None:
    judged = judge_names(folder, str(save_tiny_lm(tmp_path / "lm")))
    assert judged["new_names"] > 1 and judged["old_names"] > 1 and judged["new_names"] != judged["old_names"]
    assert judged["rows"] > 0


def test_names_of_images_are_not_judged(tmp_path: Path) -> None:
    with (
        RunFolder.create(tmp_path / "run", {"config": {"norm": "l2"}}) as folder,
        pytest.raises(UsageError, match="attacked images"),
    ):
        judge_names(folder, "anything")
