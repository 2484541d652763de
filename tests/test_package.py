"""The package as a whole: what it exports, how fast it starts, what its docstrings claim."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import bbox

MODULES = sorted(m.name for m in pkgutil.walk_packages(bbox.__path__, "bbox.") if "make_digits" not in m.name)


def test_every_public_name_resolves() -> None:
    for name in bbox.__all__:
        assert getattr(bbox, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        bbox.atack  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_exports_exist_and_doctests_pass(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module} exports {name}"
    assert doctest.testmod(loaded).failed == 0


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["attack", "--help"], ["list", "--json"]])
def test_help_does_not_load_torch(words: list[str]) -> None:
    code = f"import sys; sys.argv = ['bbox', *{words!r}]\nfrom bbox.cli import main\ntry:\n main()\nfinally:\n"
    code += " sys.stderr.write('TORCH' if 'torch' in sys.modules else 'light')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.endswith("light")
