"""The run folder: written whole or not at all, never over something else, refused when it is broken."""

from __future__ import annotations

import errno
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbox.errors import InputError, UsageError
from bbox.problem import ABSENT
from bbox.results import Config, RunFolder, StorageError
from tests.results.test_metrics import EXAMPLES

RUN = {
    "schema_version": 1,
    "command": "a test",
    "config": json.loads(json.dumps(Config().to_json())),
    "target": {"fingerprint": "t"},
    "data": {"fingerprint": "d", "examples": 2, "shape": [1, 8, 8]},
}


@pytest.fixture
def folder(tmp_path: Path):
    with RunFolder.create(tmp_path / "run", RUN) as made:
        yield made


def _contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def _append(folder: RunFolder, examples: list, numbers: list, labels: list, scores: Any = None) -> None:
    folder.append(torch.tensor(examples), torch.tensor(numbers), torch.tensor(labels), scores)


# --- create and open ---------------------------------------------------------------------------------------------


def test_create_and_open_again(folder: RunFolder) -> None:
    assert folder.run() == RUN
    folder.write_examples({2: EXAMPLES[2], 0: EXAMPLES[0]})
    folder.write_clean(torch.tensor([3, -1]), None)
    folder.close()
    with RunFolder.open(folder.path) as again:
        assert again.run() == RUN
        assert again.examples() == {0: EXAMPLES[0], 2: EXAMPLES[2]}
        assert list(again.examples()) == [0, 2]
        assert again.clean_labels().tolist() == [3, -1]


@pytest.mark.parametrize("kind", ["file in it", "folder in it", "a run", "a file"])
def test_create_never_touches_what_is_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    if kind == "a file":
        path.write_text("mine")
    elif kind == "a run":
        RunFolder.create(path, RUN).close()
    else:
        path.mkdir()
        (path / "x").mkdir() if kind == "folder in it" else (path / "x").write_text("mine")
    before = _contents(tmp_path)
    with pytest.raises(UsageError, match="exists; choose another --out"):
        RunFolder.create(path, RUN)
    assert _contents(tmp_path) == before


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunFolder.create(tmp_path / "run", RUN).close()


def _break(folder: RunFolder, what: str) -> None:
    run, journal = folder.path / "run.json", folder.path / "journal.sqlite"
    if what == "no run.json":
        run.unlink()
    elif what == "no journal":
        journal.unlink()
    elif what == "journal is text":
        journal.write_text("not a data base, but long enough to be looked at " * 100)
    elif what == "journal is cut":
        content = journal.read_bytes()
        journal.write_bytes(content[: len(content) // 2])
    else:
        run.write_bytes(
            {
                "empty": b"",
                "cut": run.read_bytes()[:100],
                "list": b"[]",
                "number": b"7",
                "null": b"null",
                "no config": b"{}",
                "config is a list": b'{"config": []}',
                "bytes": b"\xff\xfe\x00",
            }[what]
        )


@pytest.mark.parametrize(
    "what",
    [
        *(
            "no run.json",
            "no journal",
            "journal is text",
            "journal is cut",
            "empty",
            "cut",
            "list",
            "number",
            "null",
        ),
        *("no config", "config is a list", "bytes"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(folder: RunFolder, what: str) -> None:
    for number in range(1, 200):
        _append(folder, [0] * 50, list(range(number, number + 50)), [1] * 50)
    folder.close()
    _break(folder, what)
    before = _contents(folder.path)
    with pytest.raises(InputError) as caught, RunFolder.open(folder.path) as again:
        again.answers(0)  # what is broken further in is found when it is read
        again.examples()
    assert "\n" not in str(caught.value)
    assert str(folder.path) in str(caught.value)
    after = _contents(folder.path)
    assert {name: after.get(name) for name in before if "sqlite-" not in name} == {
        name: content for name, content in before.items() if "sqlite-" not in name
    }


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        RunFolder.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# --- the journal -------------------------------------------------------------------------------------------------


def test_answers_come_back_by_example_in_order(folder: RunFolder) -> None:
    scores = torch.arange(12, dtype=torch.float32).view(4, 3) / 7
    _append(folder, [0, 1, 0, 1], [1, 1, 2, 2], [5, 6, 7, -1], scores)
    _append(folder, [1], [3], [8], scores[:1])
    folder.close()
    with RunFolder.open(folder.path) as again:
        labels, table = again.answers(0)
        assert labels.tolist() == [5, 7]
        assert torch.equal(table, scores[[0, 2]])
        assert again.answers(1)[0].tolist() == [6, -1, 8]
        assert again.answers(2)[0].tolist() == []
        assert again.answer_count() == 5


def test_a_gap_in_the_answers_on_record_is_marked(folder: RunFolder) -> None:
    _append(folder, [0, 0, 0], [1, 2, 4], [5, 6, 7])
    assert folder.answers(0)[0].tolist() == [5, 6, ABSENT, 7]
    assert folder.answers(0)[1] is None


# --- a full disk -------------------------------------------------------------------------------------------------


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: folder.write_json("results.json", {"a": 1}),
        lambda folder: folder.write_array("adversarial", 0, torch.zeros(1, 2, 2)),
        lambda folder: folder.write_png(0, torch.zeros(1, 2, 2)),
    ],
    ids=["json", "array", "png"],
)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    write(folder)
    before = _contents(folder.path)
    monkeypatch.setattr("os.replace", _full_disk)
    monkeypatch.setattr(Path, "replace", _full_disk)
    with pytest.raises(StorageError, match=r"No space left on device; make room and go on with --resume") as caught:
        write(folder)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    after = _contents(folder.path)
    assert {name: after[name] for name in before} == before


class _FullDatabase:
    def __init__(self, inner: sqlite3.Connection) -> None:
        self._inner = inner

    def execute(self, statement: str, *rest: Any) -> Any:
        if statement.startswith(("INSERT", "COMMIT", "BEGIN")):
            raise sqlite3.OperationalError("database or disk is full")
        return self._inner.execute(statement, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: _append(folder, [0], [1], [2]),
        lambda folder: folder.write_examples({0: EXAMPLES[0]}),
        lambda folder: folder.write_clean(torch.tensor([1]), None),
        lambda folder: folder.write_session({}),
    ],
    ids=["answers", "examples", "clean", "session"],
)
def test_a_full_data_base_is_one_line(folder: RunFolder, write: Any) -> None:
    folder._db = _FullDatabase(folder._db)  # type: ignore[assignment]
    with pytest.raises(StorageError, match="database or disk is full"):
        write(folder)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", _full_disk)
    with pytest.raises(StorageError, match="No space left on device"):
        RunFolder.create(tmp_path / "run", RUN)


# --- arrays and pictures -----------------------------------------------------------------------------------------


def test_arrays_are_the_same_bits(folder: RunFolder) -> None:
    row = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0))
    folder.write_array("adversarial", 7, row)
    assert torch.equal(folder.read_array("adversarial", 7), row)
    assert np.load(folder.path / "adversarial" / "000007.npy", allow_pickle=False).dtype == np.float32
    folder.write_png(7, row)
    assert torch.equal(folder.read_png(7), torch.round(row * 255) / 255)


def test_json_is_never_nan(folder: RunFolder) -> None:
    with pytest.raises(ValueError):
        folder.write_json("results.json", {"a": float("nan")})
    assert not (folder.path / "results.json").exists()


def test_a_config_survives_json() -> None:
    config = Config(indices=(3, 1), epsilons=(0.5,), checkpoints=(10,), target_options={"a": "1"}, seed=9)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_answers_to_finished_examples_are_not_loaded(folder: RunFolder) -> None:
    _append(folder, [0, 1, 0, 1], [1, 1, 2, 2], [5, -2, 6, 7])
    folder.write_examples({0: EXAMPLES[0]})
    assert folder.answers(0)[0].tolist() == []
    assert folder.answers(1)[0].tolist() == [-2, 7]
    assert folder.first_refused(1) == 1
    _append(folder, [1], [3], [8])
    assert folder.answers(1)[0].tolist() == [-2, 7]  # those of the moment when they were first looked up
    folder.reload()
    assert folder.answers(1)[0].tolist() == [-2, 7, 8]
