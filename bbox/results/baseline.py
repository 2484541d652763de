"""What a model's robustness was: one JSON file that later models are held against (``bbox.results.check``).

It holds, for each attack, its config and what became of each example; target and data are named with their
fingerprints. How a run is computed (device, batch size) and what may be loaded (trust) is not in it: a file from a
repository must not decide that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from bbox.errors import UsageError
from bbox.options import HOW
from bbox.results.matrix import write_text
from bbox.results.matrix_plan import slug
from bbox.results.records import Config
from bbox.results.suite import Part

__all__ = [
    "BASELINE_VERSION",
    "NOT_PLAIN",
    "Baseline",
    "Entry",
    "Gates",
    "Outcome",
    "read_baseline",
    "write_baseline",
]

BASELINE_VERSION = 1
NOT_PLAIN = ("target_class", "start_from", "stop_at", "max_queries")  # with these, outcomes say little of another model
_FACTS = ("created", "command", "provenance", "versions", "hardware", "target", "data", "queries")


@dataclass(frozen=True)
class Gates:
    """What a check allows.

    Attributes:
        tolerance: how far a proportion may fall, as a difference of proportions, in [0, 1).
        distance_tolerance: how far a median distance may fall, relative, in [0, 1).
        alpha: the chance, over all figures together, that a model which has not fallen that far is called fallen.

    Raises:
        UsageError: a number out of its range.
    """

    tolerance: float = 0.0
    distance_tolerance: float = 0.0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for name in ("tolerance", "distance_tolerance"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} is {getattr(self, name):g}, expected at least 0, below 1")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha is {self.alpha:g}, expected above 0 and below 0.5")


@dataclass(frozen=True)
class Outcome:
    """What became of one example under one attack.

    Attributes:
        right: whether the target was right before the attack.
        distances: the smallest within each checkpoint's queries, inf where nothing was found.
        success, queries: see ``bbox.results.Example``.
    """

    index: int
    id: str
    right: bool
    distances: tuple[float, ...]
    success: bool
    queries: int

    def to_json(self) -> dict[str, Any]:
        reached = [d if math.isfinite(d) else None for d in self.distances]
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"distances": reached}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        _check_kinds(data, get_type_hints(cls) | {"distances": tuple[float | None, ...]})
        distances = tuple(math.inf if d is None else float(d) for d in data["distances"])
        if any(d < 0 for d in distances):
            raise ValueError(f"example {data['index']} has the distances {data['distances']}")
        return cls(data["index"], data["id"], data["right"], distances, data["success"], data["queries"])


@dataclass(frozen=True)
class Entry:
    """One attack: its part of the suite, and the outcomes by index."""

    part: Part
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Baseline:
    """The content of a baseline file.

    Attributes:
        facts: created, command, versions, hardware, provenance, target, data, queries: shown and compared, not used.
    """

    entries: tuple[Entry, ...]
    gates: Gates
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        attacks = []
        for entry in self.entries:
            part = entry.part.to_json()
            part["config"] = {key: value for key, value in part["config"].items() if key not in HOW}
            attacks.append({**part, "examples": [outcome.to_json() for outcome in entry.outcomes]})
        gates = {f.name: getattr(self.gates, f.name) for f in fields(self.gates)}
        return {"kind": "baseline", "baseline_version": BASELINE_VERSION, **self.facts, **gates, "attacks": attacks}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        entries = tuple(_entry(attack) for attack in data["attacks"])
        if not entries:
            raise ValueError("it names no attack")
        folders, taken = [entry.part.folder for entry in entries], set[str]()
        if any(f.endswith(".json") or slug(f, taken) != f for f in folders):
            raise ValueError(f"{folders} are no names of folders, each another one")
        indices = [outcome.index for outcome in entries[0].outcomes]
        if any([outcome.index for outcome in entry.outcomes] != indices for entry in entries):
            raise ValueError("its attacks have different examples")
        if len(set(indices)) < len(indices):
            raise ValueError("an example is in it twice")
        _check_kinds(data, get_type_hints(Gates))
        gates = Gates(**{f.name: float(data[f.name]) for f in fields(Gates)})
        facts = {key: data[key] for key in _FACTS if key in data}
        for what in ("target", "data"):
            _check_kinds(data[what], {"fingerprint": str})
        if data["data"].get("whole_fingerprint") is not None:
            _check_kinds(data["data"], {"whole_fingerprint": str})
        return cls(entries, gates, facts)


def _entry(data: Mapping[str, Any]) -> Entry:
    kept = {key: value for key, value in data["config"].items() if key not in HOW}
    _check_kinds(data, {"name": str, "folder": str})
    _check_kinds(kept, {name: kind for name, kind in get_type_hints(Config).items() if name in kept})
    part = Part.from_json({**data, "config": kept})
    outcomes = tuple(Outcome.from_json(example) for example in data["examples"])
    checkpoints = part.config.checkpoints
    if not outcomes or not checkpoints or not part.config.epsilons:
        raise ValueError(f"{part.name} has no examples, no checkpoints or no epsilons")
    if list(checkpoints) != sorted(set(checkpoints)) or checkpoints[-1] > part.config.budget:
        raise ValueError(f"{part.name} has checkpoints {list(checkpoints)}, expected rising ones within the budget")
    for name in NOT_PLAIN:
        if getattr(part.config, name) is not None:
            raise ValueError(f"{part.name} was run with {name}, and a baseline holds plain untargeted runs")
    if any(len(outcome.distances) != len(part.config.checkpoints) for outcome in outcomes):
        raise ValueError(f"{part.name} has examples without a distance at each checkpoint")
    return Entry(part, outcomes)


def _check_kinds(data: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Refuse a value of another kind: a file that people edit and merge must not change what is compared.

    Raises:
        KeyError: a name is missing.
        ValueError: a value is not of its kind.
    """
    for name, kind in kinds.items():
        if not _is_a(data[name], kind):
            told = str(kind).replace("typing.", "") if get_args(kind) else kind.__name__
            raise ValueError(f"{name} is {json.dumps(data[name])[:40]}, expected {told}")


def _is_a(value: object, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_is_a(value, part) for part in inner)
    if origin is tuple:  # a list, in JSON
        return isinstance(value, list) and all(_is_a(part, inner[0]) for part in value)
    if kind in (int, float):  # those that fit in 64 bits; true and false are none
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and abs(value) < (2**63 if kind is int else 1e300)  # type: ignore[arg-type]
    return isinstance(value, origin or kind)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        UsageError: there is none, it cannot be read, or a newer bbox has written it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("kind") != "baseline":
            raise ValueError('it does not say "kind": "baseline"')
        version = content["baseline_version"]
        if version != BASELINE_VERSION:
            raise UsageError(f"{path} has schema {version}, this bbox reads {BASELINE_VERSION}; make it again")
        return Baseline.from_json(content)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; make one with  bbox baseline --out {path}") from error
    except KeyError as error:
        raise UsageError(f"{path} is no baseline: it has no {error}; make one with  bbox baseline") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is no baseline: {error}; make one with  bbox baseline") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline file, whole or not at all: a line an example, so that a diff shows which have changed.

    Raises:
        StorageError: it cannot be written.
    """
    content = baseline.to_json()
    rows = [attack["examples"] for attack in content["attacks"]]
    for place, attack in enumerate(content["attacks"]):
        attack["examples"] = f"@{place}"
    text = json.dumps(content, indent=1, allow_nan=False)
    for place, examples in enumerate(rows):
        lines = ",\n".join("    " + json.dumps(example, allow_nan=False) for example in examples)
        text = text.replace(f'"examples": "@{place}"', f'"examples": [\n{lines}\n   ]', 1)
    write_text(path, text + "\n")
