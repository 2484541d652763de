"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bbox.errors import UsageError
from bbox.files import refuse_taken, write_whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new content")
    assert path.read_text() == "old"


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "grün\n")
    write_whole(tmp_path / "a", b"\x00\x01")
    assert (tmp_path / "a").read_bytes() == b"\x00\x01"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_taken_place_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    refuse_taken(tmp_path / "new")
    refuse_taken(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="exists; choose another --out, or go on with --resume"):
        refuse_taken(tmp_path)
    with pytest.raises(UsageError, match=r"another --out$"):
        refuse_taken(tmp_path / "run.json", resumes=False)
