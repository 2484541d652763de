"""``bbox attack alert`` and what ``bbox show`` says of its run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from tests.cli.conftest import Ended
from tests.code.substitutes.tiny_lm import save_tiny_lm
from tests.results.code_runs import AREA, JOIN, NAMELESS

MODEL = "from tests.results.code_runs import scores\n"
RUN = ("--target", "code:models_here:scores", "--data", "code:data.jsonl,language=python", "--budget", "80")
NAMES = ("name", "text", "line", "word", "path", "width", "height", "total", "count", "size")


def _data(path: Path) -> None:
    rows = [(AREA, 1), (JOIN, 0), (AREA, 0), (NAMELESS, 1)]
    path.write_text("".join(json.dumps({"code": code, "label": label, "idx": 7}) + "\n" for code, label in rows))
    substitutes = [{"code": code, "substitutes": dict.fromkeys(NAMES, NAMES)} for code, _ in rows]
    Path("subs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in substitutes))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alert")


@pytest.fixture
def done(bbox: Callable[..., Ended], template: Path) -> Ended:
    """A run in ``run``, made once."""
    if not (template / "run").exists():
        Path("models_here.py").write_text(MODEL)
        _data(Path("data.jsonl"))
        ended = bbox("attack", "alert", *RUN, "--substitutes", "file:subs.jsonl", "--threads", 1, "--out", "run")
        assert ended.code == 0, ended.err
        shutil.copytree(".", template, dirs_exist_ok=True)
        (template / "err").write_text(ended.err)
    shutil.copytree(template, ".", dirs_exist_ok=True)
    return Ended(0, "", (template / "err").read_text())


def test_the_table_and_the_lines(bbox: Callable[..., Ended], done: Ended) -> None:
    code = json.loads(Path("run/results.json").read_text())["code"]
    assert code["attacked"] == 3 and code["no_identifiers"] == 1 and code["valid"] == 2
    ended = bbox("show", "run")
    assert ended.code == 0
    for said in (ended.err, done.err):
        assert "alert on code:models_here:scores: 3 of 4 programs attacked" in said
        table = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if "│" in line]
        for row in code["checkpoints"]:
            cells = [f"{100 * row['valid_asr']:.1f}%", f"{100 * row['raw_asr']:.1f}%", str(row["found"])]
            assert [f"{row['queries']:,}", *cells] in [line[:4] for line in table]
        assert f"mean {code['queries_mean']:.1f}".removesuffix(".0") in said and "1 without an identifier" in said
        assert f"checked: bytecode {code['checks']['bytecode']}, positions 2 of 2 valid successes" in said
        assert "in use in the data" in said


def test_json_on_stdout(bbox: Callable[..., Ended], done: Ended) -> None:
    shown = json.loads(bbox("show", "run", "--json").out)
    assert shown.pop("run") == "run"
    assert shown == json.loads(Path("run/results.json").read_text())
    schema = json.loads((resources.files("bbox.results") / "results.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(shown, schema)


def test_files(done: Ended) -> None:
    rows = list(csv.DictReader(Path("run/results.csv").read_text().splitlines()))
    assert {row["result_type"] for row in rows} == {"Successful", "Skipped", "Failed"}
    back = [json.loads(line) for line in Path("run/adversarial-data/data.jsonl").read_text().splitlines()]
    assert [row["label"] for row in back] == [1, 0] and all(row["idx"] == 7 for row in back)
    assert [row["code"] for row in back] == [Path(f"run/adversarial/00000{i}.py").read_text() for i in (0, 1)]
    assert "Valid ASR" in Path("run/report.html").read_text()


def test_resuming_what_is_complete_changes_nothing(bbox: Callable[..., Ended], done: Ended) -> None:
    before = {path: path.read_bytes() for path in Path("run").glob("*.json")}
    assert bbox("attack", "--resume", "run").code == 0
    assert {path: path.read_bytes() for path in Path("run").glob("*.json")} == before


def test_a_saved_program_that_is_gone(bbox: Callable[..., Ended], done: Ended) -> None:
    Path("run/adversarial/000000.py").unlink()
    ended = bbox("show", "run")
    assert ended.code == 0 and "missing or not equivalent, and no success: 1 saved programs" in ended.err
    resumed = bbox("attack", "--resume", "run")
    assert resumed.code == 4 and len(resumed.err.strip().splitlines()[-1:]) == 1
    assert "has no program 0" in resumed.err


def test_names_are_judged_by_a_masked_language_model(bbox: Callable[..., Ended], done: Ended) -> None:
    save_tiny_lm(Path("lm"))
    shown = json.loads(bbox("show", "run", "--json", "--mlm", "lm").out)
    assert shown["code"]["masked_lm"]["new_names"] > 1
    assert "pseudo-perplexity by lm: new names" in bbox("show", "run", "--mlm", "lm").err
    missing = bbox("show", "run", "--mlm", "nowhere/")
    assert missing.code in (2, 4) and len(missing.err.strip().splitlines()) == 1
