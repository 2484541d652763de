"""Attacks: one file each, found by name in a lazy registry. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bbox.registry import Entry, Registry

if TYPE_CHECKING:
    from bbox.attacks.base import Answer, Ask, Attack, Problem, Run
    from bbox.attacks.cgba import CGBA, CGBAH

__all__ = [
    "ATTACKS",
    "CGBA",
    "CGBAH",
    "Answer",
    "Ask",
    "Attack",
    "Problem",
    "Run",
    "attack_class",
    "make_attack",
]

ATTACKS = Registry(
    "attack",
    "bbox.attacks",
    {
        "cgba": Entry("bbox.attacks.cgba:CGBA", "decision-based l2, semicircular boundary search (ICCV 2023)"),
        "cgba-h": Entry("bbox.attacks.cgba:CGBAH", "CGBA for curved boundaries, for targeted attacks (ICCV 2023)"),
    },
)

_FOOLBOX = "foolbox:"
_HOME = {
    **dict.fromkeys(("Answer", "Ask", "Attack", "Problem", "Run"), "base"),
    **dict.fromkeys(("CGBA", "CGBAH"), "cgba"),
}


def attack_class(name: str) -> type[Attack]:
    """The class of a registered attack.

    Raises:
        UsageError: the name is unknown (with the nearest known one), or its plug-in is broken.
    """
    found: type[Attack] = ATTACKS.get(name)
    return found


def make_attack(name: str, options: Mapping[str, object] | None = None) -> Attack:
    """An attack by name, with its options; ``foolbox:CLASS`` is any decision-based attack of foolbox.

    Args:
        options: fields of the attack's class, values as text or as Python objects; ``preset`` names a set of them.

    Raises:
        UsageError: an unknown name, option, preset or value.

    Example:
        >>> make_attack("cgba", {"initial_queries": "20"}).initial_queries
        20
    """
    options = dict(options or {})
    if name.startswith(_FOOLBOX):
        from bbox.attacks.foolbox_attack import FoolboxAttack

        return FoolboxAttack(name.removeprefix(_FOOLBOX), options)
    from bbox.options import build

    return build(name, attack_class(name), options)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.attacks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox.attacks' has no attribute {name!r}")
