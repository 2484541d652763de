"""bbox: attack and defend black-box models behind an oracle that counts every query.

>>> import bbox
>>> digits = bbox.data.load("zoo:digits").select(limit=2)
>>> result = bbox.attack("zoo:digits", digits.inputs, digits.labels, "cgba", budget=100)
>>> result.queries.tolist()
[100, 100]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbox import attacks, data, defenses, results, targets, zo, zoo
    from bbox.attacks.base import Attack
    from bbox.attacks.foolbox_adapter import as_foolbox
    from bbox.data.base import Dataset, MotionSet
    from bbox.engine import Answer, Ask, Pool, Problem, drive, make_jobs
    from bbox.errors import BboxError, InputError, TargetError, UsageError
    from bbox.goal import Goal
    from bbox.oracle import Ledger, Oracle
    from bbox.results.api import AttackResult, attack
    from bbox.results.baseline_runs import make_baseline
    from bbox.results.check import run_check
    from bbox.results.compare import compare
    from bbox.results.craft_api import craft
    from bbox.results.evaluate_run import evaluate_folder
    from bbox.results.matrix import evaluate_defenses
    from bbox.targets.base import Target

__version__ = "0.1.0"

# Where each public name lives. They are imported when they are used, so that `bbox --help` does not load torch.
_HOME = {
    "Answer": "engine",
    "Ask": "engine",
    "Attack": "attacks.base",
    "AttackResult": "results.api",
    "BboxError": "errors",
    "Dataset": "data.base",
    "Goal": "goal",
    "InputError": "errors",
    "Ledger": "oracle",
    "MotionSet": "data.base",
    "Oracle": "oracle",
    "Pool": "engine",
    "Problem": "engine",
    "Target": "targets.base",
    "TargetError": "errors",
    "UsageError": "errors",
    "as_foolbox": "attacks.foolbox_adapter",
    "attack": "results.api",
    "compare": "results.compare",
    "craft": "results.craft_api",
    "drive": "engine",
    "evaluate_defenses": "results.matrix",
    "evaluate_folder": "results.evaluate_run",
    "make_baseline": "results.baseline_runs",
    "make_jobs": "engine",
    "run_check": "results.check",
}
_MODULES = ("attacks", "data", "defenses", "results", "targets", "zo", "zoo")

__all__ = [
    "Answer",
    "Ask",
    "Attack",
    "AttackResult",
    "BboxError",
    "Dataset",
    "Goal",
    "InputError",
    "Ledger",
    "MotionSet",
    "Oracle",
    "Pool",
    "Problem",
    "Target",
    "TargetError",
    "UsageError",
    "as_foolbox",
    "attack",
    "attacks",
    "compare",
    "craft",
    "data",
    "defenses",
    "drive",
    "evaluate_defenses",
    "evaluate_folder",
    "make_baseline",
    "make_jobs",
    "results",
    "run_check",
    "targets",
    "zo",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"bbox.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox' has no attribute {name!r}")
