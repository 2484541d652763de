"""Targets: one file a kind, ``load(spec)`` for the command line and ``wrap(object)`` for Python.

Importing this package does not import torch; ``load``, ``wrap`` and the classes do when they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bbox.targets.kinds import KINDS, split_spec

if TYPE_CHECKING:
    from bbox.targets.base import Access, Target
    from bbox.targets.callables import CallableTarget
    from bbox.targets.foolbox_model import FoolboxTarget
    from bbox.targets.torch_module import TorchTarget

__all__ = ["KINDS", "Access", "CallableTarget", "FoolboxTarget", "Target", "TorchTarget", "load", "wrap"]

_HOME = {
    "Access": "base",
    "CallableTarget": "callables",
    "FoolboxTarget": "foolbox_model",
    "Target": "base",
    "TorchTarget": "torch_module",
}


def load(
    spec: str, *, options: Mapping[str, object] | None = None, trust: bool = False, device: str | None = None
) -> Target:
    """Load a target from what a user types, for example ``zoo:digits`` or ``model.pt2``.

    Args:
        spec: ``KIND:REFERENCE`` with a kind of ``bbox.targets.KINDS``, or a path whose extension tells the
            kind.
        options: what the kind takes besides, values as text or as Python objects.
        trust: allow a file that runs code when it is loaded (a pickle). Only for files whose origin you
            trust.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; default CUDA where there is one.

    Raises:
        UsageError: the spec, an option or the device is wrong.
        InputError: a model file or the user's own code was read and refused.
    """
    kind, reference = split_spec(spec)
    loader = KINDS.get(kind)
    target: Target = loader(reference, options=dict(options or {}), trust=trust, device=device)
    return target


def wrap(obj: object, **kwargs: Any) -> Target:
    """Make a target of a Python object: a torch module, an exported program, a foolbox model or a callable.

    A target passes through unchanged. ``kwargs`` go to the class that wraps: ``TorchTarget``,
    ``FoolboxTarget`` or ``CallableTarget``. A torch module is moved to the device in place, as ``module.to``
    does.

    Raises:
        UsageError: the object is none of these, or an argument is unknown.

    Example:
        >>> import torch
        >>> target = wrap(torch.nn.Flatten(), num_classes=4, device="cpu")
        >>> target(torch.zeros(2, 1, 2, 2)).shape
        torch.Size([2, 4])
    """
    from bbox.targets.wrapping import wrap_object

    return wrap_object(obj, **kwargs)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.targets.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox.targets' has no attribute {name!r}")
