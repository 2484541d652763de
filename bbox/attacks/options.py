"""An attack's options are the fields of its dataclass; here text becomes their values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bbox.attacks.base import Attack
from bbox.errors import UsageError
from bbox.registry import check_options

__all__ = ["build", "describe", "option_fields", "read_option"]

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


def option_fields(cls: type[Attack]) -> dict[str, tuple[Any, Any]]:
    """Each option's type and default."""
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]


def describe(name: str) -> tuple[dict[str, tuple[Any, str]], tuple[str, ...], str]:
    """What a command line needs of an attack: options (default, help), names of presets, one sentence.

    Raises:
        UsageError: the name is unknown.
    """
    if name.startswith("foolbox:"):
        from bbox.attacks.foolbox_attack import foolbox_options

        found = foolbox_options(name.removeprefix("foolbox:"))
        fields = {key: (default, "") for key, (_, default) in found.items()}
        return fields, (), f"{name} under the oracle's exact budget."
    from bbox.attacks import attack_class

    cls = attack_class(name)
    told = _told(cls)
    fields = {key: (default, told.get(key, "")) for key, (_, default) in option_fields(cls).items()}
    return fields, tuple(getattr(cls, "presets", {})), cls.summary


def _told(cls: type[Attack]) -> dict[str, str]:
    """What the docstring's ``Args:`` say of each option (of several named together: the same for each)."""
    told: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = re.search(r"^    Args:\n(.*?)(?:\n\n|\Z)", base.__doc__ or "", re.DOTALL | re.MULTILINE)
        for entry in re.split(r"\n(?=        \w)", section.group(1)) if section else ():
            names, _, text = entry.strip().partition(": ")
            told |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return told


def build(name: str, cls: type[Attack], options: Mapping[str, object]) -> Attack:
    """Make the attack; see ``bbox.attacks.make_attack``."""
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
