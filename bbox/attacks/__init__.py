"""Attacks: one file each, found by name in a lazy registry. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bbox.errors import UsageError
from bbox.registry import Entry, Registry

if TYPE_CHECKING:
    from bbox.attacks.adaptive import Average, Resample
    from bbox.attacks.base import Answer, Ask, Attack, Problem, Run
    from bbox.attacks.cgba import CGBA, CGBAH
    from bbox.attacks.smi import SMI
    from bbox.attacks.square import Square

__all__ = [
    "ATTACKS",
    "CGBA",
    "CGBAH",
    "SMI",
    "WRAPPERS",
    "Answer",
    "Ask",
    "Attack",
    "Average",
    "Problem",
    "Resample",
    "Run",
    "Square",
    "attack_class",
    "make_attack",
    "split_wrapper",
]

ATTACKS = Registry(
    "attack",
    "bbox.attacks",
    {
        "cgba": Entry("bbox.attacks.cgba:CGBA", "decision-based l2, semicircular boundary search (ICCV 2023)"),
        "cgba-h": Entry("bbox.attacks.cgba:CGBAH", "CGBA for curved boundaries, for targeted attacks (ICCV 2023)"),
        "alert": Entry(
            "bbox.attacks.alert:Alert",
            "score-based, renames identifiers of programs (ICSE 2022)",
            needs="bbox-toolkit[code]",
        ),
        "smi": Entry("bbox.attacks.smi:SMI", "no-box, skeleton motion: gradient through its dynamics (ICCV 2023)"),
        "square": Entry("bbox.attacks.square:Square", "score-based linf and l2, random squares (ECCV 2020)"),
    },
)

WRAPPERS = Registry(
    "attack wrapper",
    None,
    {
        "average": Entry("bbox.attacks.adaptive:Average", "each row asked several times, against random answers (EOT)"),
        "resample": Entry(
            "bbox.attacks.adaptive:Resample", "refused rows asked again with noise, against stateful detectors (OARS)"
        ),
    },
)

_FOOLBOX = "foolbox:"
_HOME = {
    **dict.fromkeys(("Average", "Resample"), "adaptive"),
    **dict.fromkeys(("Answer", "Ask", "Attack", "Problem", "Run"), "base"),
    **dict.fromkeys(("CGBA", "CGBAH"), "cgba"),
    "SMI": "smi",
    "Square": "square",
}


def split_wrapper(name: str) -> tuple[str, str]:
    """The wrapper of an attack's name and the attack inside; no wrapper is an empty word.

    Raises:
        UsageError: nothing is wrapped, or another wrapper.

    Example:
        >>> split_wrapper("average:cgba"), split_wrapper("foolbox:HopSkipJumpAttack")
        (('average', 'cgba'), ('', 'foolbox:HopSkipJumpAttack'))
    """
    wrapper, _, inner = name.partition(":")
    if wrapper not in WRAPPERS.names():
        return "", name
    if not inner:
        raise UsageError(f"{name!r} wraps another attack; name it, for example {wrapper}:cgba")
    if inner.partition(":")[0] in WRAPPERS.names():
        raise UsageError(f"{name!r} wraps a wrapper; wrap one attack once, for example {wrapper}:cgba")
    return wrapper, inner


def attack_class(name: str) -> type[Attack]:
    """The class of a registered attack; of a wrapped one, that of the wrapper.

    Raises:
        UsageError: the name is unknown (with the nearest known one), or its plug-in is broken.
    """
    wrapper, inner = split_wrapper(name)
    found: type[Attack] = WRAPPERS.get(wrapper) if wrapper else ATTACKS.get(inner)
    return found


def make_attack(name: str, options: Mapping[str, object] | None = None) -> Attack:
    """An attack by name, with its options; ``foolbox:CLASS`` is any decision-based attack of foolbox.

    ``average:ATTACK`` and ``resample:ATTACK`` put a wrapper (``WRAPPERS``) around any attack, and take its options too.

    Args:
        options: fields of the attack's class, values as text or as Python objects; ``preset`` names a set of them.

    Raises:
        UsageError: an unknown name, option, preset or value.

    Example:
        >>> make_attack("cgba", {"initial_queries": "20"}).initial_queries
        20
    """
    options = dict(options or {})
    if split_wrapper(name)[0]:
        from bbox.attacks.options import make_wrapped

        return make_wrapped(name, options)
    if name.startswith(_FOOLBOX):
        from bbox.attacks.foolbox_attack import FoolboxAttack

        return FoolboxAttack(name.removeprefix(_FOOLBOX), options)
    from bbox.options import build

    return build(name, attack_class(name), options)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.attacks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox.attacks' has no attribute {name!r}")
