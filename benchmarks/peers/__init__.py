"""The attacks that are compared, by name.

An attack is a function ``run(meter, image, label, start, target, seed)``:

- ``meter``: a ``benchmarks.meter.Meter``, a torch module from rows in [0, 1] to logits. Ask nothing else.
- ``image``, ``start``: (channels, height, width) float32 in [0, 1]; ``start`` is adversarial and free.
- ``label``: the class of the image. ``target``: the class to reach, or ``None``.
- ``seed``: an int; torch's, numpy's and random's global generators have been seeded with it already.

It returns nothing and may go on until the meter raises ``Spent``, which it must let through. Its module may
define ``prepare(options) -> dict``: called once with the command line, it says what is missing by raising
``SystemExit("reason")`` and returns facts to store with the results (versions, settings).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ATTACKS", "YARDSTICK", "load_attack"]

# Name -> "module:function". A module is imported when its attack is asked for: each has needs of its own.
ATTACKS = {
    "cgba-h": "benchmarks.peers.cgba_reference:run_cgba_h",
    "cgba": "benchmarks.peers.cgba_reference:run_cgba",
    "cgba-clipped": "benchmarks.peers.cgba_reference:run_cgba_clipped",
    "foolbox-hsj": "benchmarks.peers.foolbox_hsj:run",
    "art-hsj": "benchmarks.peers.art_hsj:run",
    "art-geoda": "benchmarks.peers.art_geoda:run",
    "bbox-cgba": "benchmarks.peers.bbox_attacks:run_cgba",
    "bbox-cgba-h": "benchmarks.peers.bbox_attacks:run_cgba_h",
}

# Ratios are to the attack that is the hardest to beat among the public ones.
YARDSTICK = "cgba-h"


def load_attack(name: str, options: Any) -> tuple[Any, dict[str, Any]]:
    """The attack's function and the facts to store with its results."""
    module_name, function = ATTACKS[name].split(":")
    module = import_module(module_name)
    facts = module.prepare(options) if hasattr(module, "prepare") else {}
    return getattr(module, function), facts
