"""Substitutes in ALERT's file format, read and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bbox.code import Program
from bbox.code.site import site_of
from bbox.code.substitutes import load_provider
from bbox.code.substitutes.precomputed import MissingSubstitutes, write_substitutes
from bbox.errors import InputError, UsageError

CODE = "def f(count, text):\n    return text * count\n"


def _file(folder: Path, *rows: object) -> Path:
    path = folder / "subs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("key", ["func", "code", "code1"])
@pytest.mark.parametrize("code", [CODE, CODE.replace("\n", "\\n"), CODE.replace("\n", "\r\n\r\n")])
def test_a_program_is_found_as_each_task_writes_it(tmp_path: Path, key: str, code: str) -> None:
    path = _file(tmp_path, {key: code, "code2": "x", "substitutes": {"count": [" total", "text", "if", "total", "n"]}})
    assert load_provider(f"file:{path}").suggest(site_of(Program(CODE, "python"))) == [["total", "n"], []]


def test_a_missing_program_has_no_candidates_and_is_warned_of_once(tmp_path: Path) -> None:
    provider = load_provider(f"file:{_file(tmp_path, {'func': 'x = 1', 'substitutes': {}})}")
    with pytest.warns(MissingSubstitutes, match=r"subs\.jsonl has no substitutes for 'def f\(count") as caught:
        assert provider.suggest(site_of(Program(CODE, "python"))) == [[], []]
        provider.suggest(site_of(Program(CODE, "python")))
    assert len(caught) == 1


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    single, pair = site_of(Program(CODE, "python")), site_of(Program(CODE.replace("f(", "g("), "python", "y = 2\n"))
    path = tmp_path / "saved.jsonl"
    lists = [["total", "n"], ["word"]]
    write_substitutes(path, [(single, lists), (pair, lists[::-1])], [{"target": 1}, {"label": 0}])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["func"] == CODE and rows[0]["target"] == 1
    assert (rows[1]["code2"], rows[1]["label"]) == ("y = 2\n", 0)
    provider = load_provider(f"file:{path}")
    assert [provider.suggest(single), provider.suggest(pair)] == [lists, lists[::-1]]


def test_two_variables_of_one_name_share_an_entry(tmp_path: Path) -> None:
    site = site_of(Program("def f(a):\n    return a\n\ndef g(a):\n    return a\n", "python"))
    write_substitutes(tmp_path / "saved.jsonl", [(site, [["x", "y"], ["z", "x"]])])
    assert load_provider(f"file:{tmp_path / 'saved.jsonl'}").suggest(site) == [["x", "y", "z"]] * 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1: no JSON"),
        ("[]", "line 1: a JSON object is expected, found list"),
        ('{"text": "x", "substitutes": {}}', "line 1: no code; expected one of func, code, code1, source, found text,"),
        ('{"func": "x"}', "line 1: 'substitutes' is no object of lists"),
        ('\n{"func": "x", "substitutes": {"a": [1]}}', "line 2: 'substitutes' is no object"),
        ("\n", "holds no substitutes"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "subs.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_provider(f"file:{path}")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_provider(f"file:{tmp_path / 'none.jsonl'}")
    with pytest.raises(UsageError, match="name no file"):
        load_provider("file")
    with pytest.raises(UsageError, match="has no option"):
        load_provider(f"file:{_file(tmp_path, {'func': 'x', 'substitutes': {}})},k=1")
