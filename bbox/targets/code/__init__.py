"""Targets that read programs: one file a kind, loaded by ``bbox.targets.load``, and ``wrap(object)`` for Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbox.targets.code.base import CodeTarget
    from bbox.targets.code.callables import CodeCallable

__all__ = ["CodeCallable", "CodeTarget", "wrap"]

_HOME = {"CodeCallable": "callables", "CodeTarget": "base"}


def wrap(obj: object, **kwargs: Any) -> CodeTarget:
    """See ``bbox.targets.code.callables.wrap``."""
    from bbox.targets.code.callables import wrap

    return wrap(obj, **kwargs)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.targets.code.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox.targets.code' has no attribute {name!r}")
