"""Functions cut out of the Python that is installed with bbox: a corpus of real code that needs no download."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Function", "functions_of", "shuffled_files"]

_LINES = (4, 60)  # a function of fewer lines says too little; one of more is cut off by a transformer anyway
_SKIPPED = {
    "tests",
    "test",
    "testing",
    "_vendor",
    "vendored",
    "vendor",
    "site-packages",
    "dist-packages",
    "idlelib",
    "__pycache__",
}


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    Attributes:
        code: its source from the first decorator on, dedented, without its docstring.
        file: path of its file within the package.
        name: as defined.
    """

    code: str
    file: str
    name: str


def shuffled_files(package: str) -> list[tuple[str, Path]]:
    """The Python files of an installed package, or of the standard library, in an order that is the same everywhere.

    The order is that of the SHA-256 of each path within the package, so a prefix is a fair sample. Tests and vendored
    packages are left out: they are not the project's own code.

    Raises:
        ModuleNotFoundError: no such package.
    """
    root = Path(ast.__file__).parent if package == "stdlib" else _home(package)
    found = []
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if not _SKIPPED.intersection(inside.parts[:-1]) and not inside.name.startswith("test_"):
            found.append((inside.as_posix(), path))
    return sorted(found, key=lambda file: hashlib.sha256(file[0].encode()).digest())


def functions_of(name: str, path: Path) -> Iterator[Function]:
    """The top-level functions of a file and the methods of its top-level classes, in their order.

    Docstrings are taken out: they are prose about the project, and no renaming reaches them. Functions of less than 4
    or more than 60 lines are left out. A file that does not parse has none.
    """
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files
            tree = ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return
    lines = source.split("\n")
    for outer in tree.body:
        for node in outer.body if isinstance(outer, ast.ClassDef) else [outer]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                code = _code(node, lines)
                if code is not None:
                    yield Function(code, name, node.name)


def _code(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str | None:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    last = node.end_lineno or node.lineno
    kept = lines[first:last]
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        start, end = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
        if len(node.body) == 1 or start < node.lineno or node.body[1].lineno == end:
            return None  # nothing but prose, or all on one line
        kept = lines[first:start] + lines[end:last]
    if not _LINES[0] <= len(kept) <= _LINES[1]:
        return None
    code = textwrap.dedent("\n".join(kept)) + "\n"
    # Indented still: a string of several lines stands further left than the function, which then is none by itself.
    return code if code.isascii() and not code[0].isspace() else None


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no package {package!r}", name=package)
    return Path(spec.origin).parent
