"""Which class wraps which Python object."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bbox.errors import UsageError
from bbox.registry import did_you_mean
from bbox.targets.base import Target
from bbox.targets.callables import CallableTarget
from bbox.targets.torch_module import TorchTarget

__all__ = ["wrap_object"]


def wrap_object(obj: object, **kwargs: Any) -> Target:
    """See ``bbox.targets.wrap``."""
    if isinstance(obj, Target):
        if kwargs:
            raise UsageError(f"{obj.name} is a target already and takes no {sorted(kwargs)[0]!r}")
        return obj
    if isinstance(obj, str):
        raise UsageError(f"wrap takes an object, got the text {obj!r}; a spec is loaded by bbox.targets.load")
    if isinstance(obj, type):
        raise UsageError(f"wrap takes an object, got the class {obj.__name__}; make an instance of it first")
    kwargs.setdefault("name", _name(obj))
    if isinstance(obj, torch.export.ExportedProgram):
        from bbox.targets.exported import exported_target

        return _build(exported_target, obj, kwargs)
    if isinstance(obj, nn.Module):
        return _build(TorchTarget, obj, kwargs)
    foolbox = sys.modules.get("foolbox")
    if foolbox is not None and isinstance(obj, foolbox.Model):
        from bbox.targets.foolbox_model import FoolboxTarget

        return _build(FoolboxTarget, obj, kwargs)
    if callable(obj):
        return _build(CallableTarget, obj, kwargs)
    raise UsageError(f"{type(obj).__name__} is no target: expected a torch module, a foolbox model or a callable")


def _build(make: Callable[..., Target], obj: object, kwargs: dict[str, Any]) -> Target:
    known = [name for name in inspect.signature(make).parameters if name != "self"][1:]
    for name in kwargs:
        if name not in known:
            near = did_you_mean(name, known) or ";"
            raise UsageError(f"wrapping {kwargs['name']} takes no {name!r}{near} it takes {', '.join(known)}")
    return make(obj, **kwargs)


def _name(obj: object) -> str:
    return str(getattr(obj, "__qualname__", None) or type(obj).__qualname__)
