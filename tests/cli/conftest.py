"""Runs the command line in this process, as the entry point does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bbox.cli import main


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def bbox(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ended]:
    """``bbox("attack", "cgba", ...)`` in an empty folder; modules written there can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "models_here", raising=False)

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bbox", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, shown.out, shown.err)

    return run
