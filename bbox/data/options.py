"""Options in a data spec: ``NAME,key=value,key=value``, which are the loader's keyword-only arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from bbox.options import read_option
from bbox.registry import check_options

__all__ = ["read_options"]


def read_options(where: str, loader: Callable[..., Any], given: Mapping[str, str]) -> dict[str, object]:
    """The options as the loader's annotations say. ``size`` is none of them: --image-size gives it.

    Raises:
        UsageError: an option that the loader does not take, or a value that is not of its kind.
    """
    parameters = inspect.signature(loader).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "size"]
    check_options(where, given, known)
    hints = get_type_hints(loader) if given else {}
    return {key: _read(f"{where}: {key}", hints[key], text) for key, text in given.items()}


def _read(where: str, kind: Any, text: str) -> object:
    if get_origin(kind) is UnionType:  # "float | None" is a float with a default that depends on the rest
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    return Path(text) if kind is Path else read_option(where, kind, text)
