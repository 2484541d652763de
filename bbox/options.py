"""Options of attacks and defenses are the fields of their dataclasses; here text becomes their values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from bbox.errors import UsageError
from bbox.registry import check_options

__all__ = ["HOW", "build", "option_fields", "read_option", "split_spec_options", "told"]

_T = TypeVar("_T")
# The fields of a run's config that say how it is computed, and what a live target may cost: never what is asked. The
# machine's and the user's to decide, anew on --resume.
HOW = ("max_batch", "device", "trust", "patience", "max_requests", "price_per_1k", "cache", "engine", "workers")
_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def option_fields(cls: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Each option's type and default."""
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(cls) if f.init}


def told(cls: type[Any]) -> dict[str, str]:
    """What the docstring's ``Args:`` say of each option (of several named together: the same for each)."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = re.search(r"^    Args:\n(.*?)(?:\n\n|\Z)", base.__doc__ or "", re.DOTALL | re.MULTILINE)
        for entry in re.split(r"\n(?=        \w)", section.group(1)) if section else ():
            names, _, text = entry.strip().partition(": ")
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def build(name: str, cls: type[_T], options: Mapping[str, object]) -> _T:
    """Make an attack or a defense of its options; ``preset`` names a set of them (``cls.presets``).

    Raises:
        UsageError: an unknown option, preset or value.
    """
    given = dict(options)
    presets: Mapping[str, Mapping[str, object]] = getattr(cls, "presets", {})
    preset = given.pop("preset", None)
    if preset is not None:
        if preset not in presets:
            known = ", ".join(presets) or "none"
            raise UsageError(f"{name} has no preset {preset!r}; known are: {known}")
        given = {**presets[str(preset)], **given}
    fields = option_fields(cls)
    check_options(name, given, fields)
    values = {option: read_option(f"{name}: {option}", fields[option][0], value) for option, value in given.items()}
    return cls(**values)


def read_option(where: str, kind: Any, value: object) -> object:
    """A value of this kind (int, float, bool, a Literal, else as it is), from text or from a Python object.

    Raises:
        UsageError: it is none.
    """
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            raise UsageError(f"{where} is {value!r}, expected {', '.join(map(str, choices))}")
        return value
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in _WORDS:
            return _WORDS[str(value).lower()]
        raise UsageError(f"{where} is {value!r}, expected true or false")
    if kind in (int, float):
        try:
            read = kind(value) if isinstance(value, str) or kind is float else value
        except (TypeError, ValueError):
            read = None
        finite = isinstance(read, int | float) and not isinstance(read, bool) and abs(read) < float("inf")
        if not finite or (kind is int and not isinstance(read, int)):
            word = "an integer" if kind is int else "a number"
            raise UsageError(f"{where} is {value!r}, expected {word}")
        return read
    return value


def split_spec_options(text: str) -> tuple[str, dict[str, str]]:
    """The name in a spec, and what is given behind it (``NAME,key=value``).

    A comma that no ``key=`` follows is part of what stands before it.

    Raises:
        UsageError: an option is given twice.

    Example:
        >>> split_spec_options("biased-mnist,rho=0.9,split=test")
        ('biased-mnist', {'rho': '0.9', 'split': 'test'})
    """
    name, *parts = re.split(r",\s*(?=[A-Za-z_]\w*=)", text)
    given: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key in given:
            raise UsageError(f"{text}: the option {key} is given twice")
        given[key] = value.strip()
    return name, given
