"""What a check says of each figure: before, now, and whether it fell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bbox.attacks.options import within_epsilon
from bbox.errors import UsageError
from bbox.results.baseline import Baseline, Entry, Gates, Outcome
from bbox.results.metrics import within
from bbox.results.paired import Flags, Floats, Paired, compare_distances, compare_rates, holm, paired_ratios
from bbox.results.paired_power import detectable_distance, detectable_rate, examples_for_distance, examples_for_rate

__all__ = ["Fallen", "Figure", "adversarial_file", "compare", "is_robust"]


@dataclass(frozen=True)
class Fallen:
    """An example that is worse now, under a figure that fell.

    Attributes:
        before, now: its distance; ``None`` where nothing was found, and for clean accuracy.
        file: its adversarial picture (or array, or program) within the check's folder; ``None`` where there is none.
    """

    index: int
    id: str
    before: float | None
    now: float | None
    file: str | None


@dataclass(frozen=True)
class Figure:
    """One figure, before and now, and what that says.

    Attributes:
        name: ``clean accuracy``, ``robust accuracy``, or the median distance, such as ``median l2``.
        attack, queries, epsilon: where it is taken; ``None`` where it has none.
        seen: the paired comparison; adjusted: its p after Holm, over all figures of the check.
        fell: whether it fell by more than the tolerance: ``adjusted`` is at most alpha.
        detectable: the smallest fall that these examples show with power 80%, at the level alpha / figures.
        examples_needed: how many examples a fall by the tolerance needs to be told from none, with power 80% at that
            level and the noise seen; ``None`` at tolerance 0, and where the figure fell.
        fallen: the examples that are worse now, of a figure that fell.
    """

    name: str
    attack: str | None
    queries: int | None
    epsilon: float | None
    seen: Paired
    adjusted: float
    fell: bool
    detectable: float | None
    examples_needed: int | None
    fallen: tuple[Fallen, ...]

    def to_json(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("seen", "adjusted", "fallen")}
        seen = {**asdict(self.seen), "interval": list(self.seen.interval)}
        return {**own, **seen, "p_adjusted": self.adjusted, "fallen": [asdict(e) for e in self.fallen]}


@dataclass(frozen=True)
class _Measured:
    """A figure whose place among the others is not known yet. Shapes: worse (n,) bool, ratios (n,) or ``None``."""

    name: str
    entry: Entry | None
    queries: int | None
    epsilon: float | None
    seen: Paired
    pairs: Sequence[tuple[Outcome, Outcome]]
    worse: Flags
    ratios: Floats | None = None


def compare(before: Baseline, now: Baseline, gates: Gates, path: Path | None = None) -> tuple[Figure, ...]:
    """Hold outcomes against a baseline's, paired by example.

    Robust accuracy counts all examples; a median distance those that both targets got right. Each figure has an exact
    test of having fallen by no more than the tolerance; Holm's step-down over all of them keeps the chance that any
    figure of a model that has not fallen further is called fallen at most ``alpha``.

    Args:
        path: the check's folder, for the files of what fell.
    """
    measured = [_clean(before.entries[0], now.entries[0], gates)]
    for old, new in zip(before.entries, now.entries, strict=True):
        measured += _attack(old, new, gates)
    adjusted = holm([m.seen.p for m in measured])
    level = gates.alpha / len(measured)
    return tuple(_figure(m, p, p <= gates.alpha, level, path) for m, p in zip(measured, adjusted, strict=True))


def _clean(old: Entry, new: Entry, gates: Gates) -> _Measured:
    pairs = _pairs(old, new)
    right = np.array([[a.right, b.right] for a, b in pairs])
    seen = compare_rates(right[:, 0], right[:, 1], gates.tolerance)
    return _Measured("clean accuracy", None, None, None, seen, pairs, right[:, 0] & ~right[:, 1])


def _attack(old: Entry, new: Entry, gates: Gates) -> list[_Measured]:
    pairs, config, found = _pairs(old, new), old.part.config, []
    both = [pair for pair in pairs if pair[0].right and pair[1].right]
    for place, queries in enumerate(config.checkpoints):
        for epsilon in config.epsilons:
            robust = np.array([[is_robust(outcome, place, epsilon) for outcome in pair] for pair in pairs])
            seen = compare_rates(robust[:, 0], robust[:, 1], gates.tolerance)
            worse = robust[:, 0] & ~robust[:, 1]
            found.append(_Measured("robust accuracy", new, queries, epsilon, seen, pairs, worse))
        if within_epsilon(config.attack, config.attack_options):  # it stays within that distance, and minimises none
            continue
        reached = np.array([[outcome.distances[place] for outcome in pair] for pair in both]).reshape(-1, 2)
        ratios = paired_ratios(reached[:, 0], reached[:, 1])
        seen = compare_distances(reached[:, 0], reached[:, 1], gates.distance_tolerance)
        worse = ratios < 1 - gates.distance_tolerance - 1e-9
        found.append(_Measured(f"median {config.norm}", new, queries, None, seen, both, worse, ratios))
    return found


def _pairs(old: Entry, new: Entry) -> list[tuple[Outcome, Outcome]]:
    now = {outcome.index: outcome for outcome in new.outcomes}
    if now.keys() != {outcome.index for outcome in old.outcomes}:
        raise UsageError(f"{old.part.name} was run on other examples than the baseline's")
    return [(outcome, now[outcome.index]) for outcome in old.outcomes]


def is_robust(outcome: Outcome, checkpoint: int, epsilon: float) -> bool:
    return outcome.right and not bool(within(np.array(outcome.distances[checkpoint]), epsilon))


def _figure(m: _Measured, adjusted: float, fell: bool, level: float, path: Path | None) -> Figure:
    if m.ratios is None:
        detectable, needed = detectable_rate(m.seen, level), examples_for_rate(m.seen, level)
    else:
        detectable = detectable_distance(m.ratios, m.seen.tolerance, level)
        needed = examples_for_distance(m.ratios, m.seen.tolerance, level)
    worse = [pair for pair, is_worse in zip(m.pairs, m.worse, strict=True) if fell and is_worse]
    return Figure(
        name=m.name,
        attack=None if m.entry is None else m.entry.part.name,
        queries=m.queries,
        epsilon=m.epsilon,
        seen=m.seen,
        adjusted=adjusted,
        fell=fell,
        detectable=detectable,
        examples_needed=None if fell else needed,
        fallen=tuple(_fallen(m, *pair, path) for pair in worse),
    )


def _fallen(m: _Measured, before: Outcome, now: Outcome, path: Path | None) -> Fallen:
    if m.entry is None or m.queries is None:
        return Fallen(now.index, now.id, None, None, None)
    part = m.entry.part
    place = part.config.checkpoints.index(m.queries)
    was, is_now = (d if math.isfinite(d) else None for d in (before.distances[place], now.distances[place]))
    file = None if path is None else adversarial_file(path / part.folder, now.index)
    return Fallen(now.index, now.id, was, is_now, file)


def adversarial_file(run: Path, index: int) -> str | None:
    """The picture of an adversarial example, or else whatever it was saved as."""
    files = sorted((run / "adversarial").glob(f"{index:06d}.*"), key=lambda file: (file.suffix != ".png", file.name))
    return str(files[0]) if files else None
