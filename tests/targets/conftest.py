"""Folders that are the current directory of a user, with code of theirs in it."""

import itertools
import sys

import pytest

_NUMBERS = itertools.count()


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Write a module of the user's into the current directory and get its fresh name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def write(source):
        name = f"user_code_{next(_NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write
