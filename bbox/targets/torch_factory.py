"""``torch:package.module:factory``: a torch module that the user's own code makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from bbox.errors import InputError
from bbox.targets.options import PREPROCESSING, Options
from bbox.targets.references import call_factory, find_reference
from bbox.targets.torch_module import TorchTarget

__all__ = ["load", "split_options"]


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load ``package.module:factory``: a function or class that returns a module, or a module itself.

    An option goes to the factory where the factory names such a parameter. Otherwise mean, std, size,
    num_classes and input_shape describe the preprocessing, and any other option goes to the factory, which
    may refuse it.

    Raises:
        UsageError: no such module or name, or an option that does not fit.
        InputError: the user's code failed, or returned no torch module.
    """
    del trust
    spec = f"torch:{reference}"
    found = find_reference("torch", reference)
    if isinstance(found, nn.Module):
        described, module = Options(spec, options, PREPROCESSING), found
    elif callable(found):
        mine, theirs = split_options(found, options)
        described, module = Options(spec, mine, PREPROCESSING), call_factory(spec, found, theirs)
    else:
        raise InputError(f"{spec} is a {type(found).__name__}, expected a torch module or a function that makes one")
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{spec} returned {type(module).__name__}, expected a torch module; for a callable use python:"
        )
    preprocessing: dict[str, Any] = described.preprocessing()
    return TorchTarget(module, name=spec, device=device, **preprocessing)


def split_options(
    factory: Callable[..., Any], options: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Options as (the preprocessing's, the factory's); a parameter that it names is the factory's."""
    try:
        named = set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        named = set()
    mine = {k: v for k, v in options.items() if k in PREPROCESSING and k not in named}
    return mine, {k: v for k, v in options.items() if k not in mine}
