"""What a command line needs to know of an attack, and how the options of a wrapper join those of the attack inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bbox.attacks.base import Attack
from bbox.errors import UsageError
from bbox.options import build, option_fields, told
from bbox.registry import check_options
from bbox.targets.base import Takes

__all__ = ["describe", "make_wrapped", "takes"]


def describe(name: str) -> tuple[dict[str, tuple[Any, str]], tuple[str, ...], str]:
    """What a command line needs of an attack: options (default, help), names of presets, one sentence.

    Raises:
        UsageError: the name is unknown.
    """
    from bbox.attacks import attack_class, split_wrapper

    wrapper, inner = split_wrapper(name)
    if wrapper:
        fields, presets, summary = describe(inner)
        cls = attack_class(name)
        return _fields(cls) | fields, presets, f"{summary.rstrip('.')}; {cls.summary}"
    if name.startswith("foolbox:"):
        from bbox.attacks.foolbox_attack import foolbox_options

        found = foolbox_options(name.removeprefix("foolbox:"))
        fields = {key: (default, "") for key, (_, default) in found.items()}
        return fields, (), f"{name} under the oracle's exact budget."
    cls = attack_class(name)
    return _fields(cls), tuple(getattr(cls, "presets", {})), cls.summary


def takes(name: str) -> Takes:
    """What the attack of this name attacks: images, or code.

    Raises:
        UsageError: the name is unknown.
    """
    from bbox.attacks import attack_class, split_wrapper

    inner = split_wrapper(name)[1]
    return "images" if inner.startswith("foolbox:") else attack_class(inner).takes


def within_epsilon(name: str, options: Mapping[str, object]) -> bool:
    """Whether an attack stays within an epsilon that is one of its options, and so minimises no distance."""
    if "epsilon" in options:
        return True
    if "foolbox:" in name:  # foolbox's have no default for it; and foolbox takes long to import
        return False
    try:
        return "epsilon" in describe(name)[0]
    except UsageError:  # an attack of the user's own, given to the library
        return False


def _fields(cls: type[Attack]) -> dict[str, tuple[Any, str]]:
    texts = told(cls)
    options = {key: default for key, (_, default) in option_fields(cls).items() if key != "inner"}
    return {key: (default, texts.get(key, "")) for key, default in options.items()}


def make_wrapped(name: str, options: Mapping[str, object]) -> Attack:
    """A wrapper around an attack. Options that are the wrapper's go to it, the others to the attack inside.

    Raises:
        UsageError: an unknown name, option, preset or value.
    """
    from bbox.attacks import attack_class, make_attack, split_wrapper

    _, inner = split_wrapper(name)
    cls = attack_class(name)
    known, presets, _ = describe(name)
    check_options(name, options, (*known, "preset") if presets else known)
    own = _fields(cls)
    made = make_attack(inner, {key: value for key, value in options.items() if key not in own})
    return build(name, cls, {"inner": made, **{key: value for key, value in options.items() if key in own}})
