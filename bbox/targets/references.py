"""Finding ``package.module:name`` in the user's own code and calling it, with errors of one line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bbox.errors import BboxError, InputError, UsageError
from bbox.registry import did_you_mean
from bbox.targets.options import literal

__all__ = ["call_factory", "find_reference", "one_line"]


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and its text."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def find_reference(kind: str, reference: str) -> Any:
    """The object at ``package.module:name``. The current directory is importable, as for ``python -m``.

    Raises:
        UsageError: the form is wrong, or there is no such module or name.
        InputError: the module is there and fails while it is imported.
    """
    spec = f"{kind}:{reference}"
    module_name, colon, attribute = reference.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise UsageError(f"{spec} names a file; write {kind}:{dotted}:{attribute or 'NAME'}, from the folder it is in")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise UsageError(f"{spec} is not of the form {kind}:package.module:name")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(f"{spec}: no module {error.name!r} in {here} or among what is installed") from error
        raise InputError(f"{spec}: importing {module_name} failed with {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{spec}: importing {module_name} failed with {one_line(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            near = did_you_mean(part, names)
            raise UsageError(f"{spec}: {module_name} has no {part!r}{near}")
        found = getattr(found, part)
    return found


def call_factory(spec: str, factory: Callable[..., Any], options: Mapping[str, object]) -> Any:
    """Call a factory with options; text that spells a number, a boolean or a list is passed as one.

    Raises:
        UsageError: the options do not fit the factory's parameters.
        InputError: the factory raised.
    """
    arguments = {name: literal(value) for name, value in options.items()}
    try:
        signature: inspect.Signature | None = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            takes = ", ".join(signature.parameters) or "none"
            raise UsageError(f"{spec}: {error}; its options are: {takes}") from error
    try:
        return factory(**arguments)
    except BboxError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{spec}: the factory failed with {one_line(error)}") from error
