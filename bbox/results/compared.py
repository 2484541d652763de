"""The runs of a comparison, read and checked: the same examples of the same data, in the same norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbox.attacks.options import within_epsilon
from bbox.errors import InputError, UsageError
from bbox.results.metrics import default_checkpoints, default_epsilons
from bbox.results.paired import Flags, Floats
from bbox.results.plain_folder import kind_of
from bbox.results.records import Config, Example
from bbox.results.store import RunFolder

__all__ = ["Compared", "load_runs", "reached"]

_MOST = 8  # runs; more lines than that cannot be told apart in a plot
_SUITES = ("matrix", "baseline", "check")


@dataclass(frozen=True)
class Compared:
    """One run, with the examples that every run has finished.

    Attributes:
        label: the name of its folder, with the folders above where two have the same name.
        run: the content of ``run.json``; sessions: what each session cost.
        examples: in the order of the first run; finished: how many it has, those left out among them.
    """

    path: Path
    label: str
    run: dict[str, Any]
    config: Config
    sessions: tuple[dict[str, Any], ...]
    examples: tuple[Example, ...]
    finished: int

    @property
    def attacked(self) -> Flags:
        """Which examples were right from the start. Shapes: (n,) bool."""
        return np.array([e.attacked for e in self.examples], dtype=np.bool_)

    @property
    def epsilons(self) -> tuple[float, ...]:
        return self.config.epsilons or default_epsilons(self.run["data"]["shape"], self.config.norm)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        return self.config.checkpoints or default_checkpoints(self.config.budget, self.config.norm)

    @property
    def fixed(self) -> bool:
        """Whether the attack stays within an epsilon that was given to it, and so minimises no distance."""
        return within_epsilon(self.config.attack, self.config.attack_options)


def load_runs(paths: Sequence[Path]) -> tuple[Compared, ...]:
    """Read runs and check that they can be compared.

    Raises:
        UsageError, InputError: see ``bbox.results.compare.compare``.
    """
    if not 2 <= len(paths) <= _MOST:
        raise UsageError(f"{len(paths)} run{'' if len(paths) == 1 else 's'} given, compare takes 2 to {_MOST} folders")
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise UsageError(f"{path} is given twice")
    runs = [_read(path, label) for path, label in zip(paths, _labels(paths), strict=True)]
    for run in runs[1:]:
        _check_same(runs[0], run)
    finished = [{(e.index, e.id): e for e in run.examples} for run in runs]
    common = [key for key in finished[0] if all(key in others for others in finished)]
    if not common:
        raise InputError(_nothing_in_common(runs))
    return tuple(
        replace(run, examples=tuple(mine[key] for key in common)) for run, mine in zip(runs, finished, strict=True)
    )


def _nothing_in_common(runs: Sequence[Compared]) -> str:
    unfinished = [run for run in runs if run.finished < int(run.run["data"]["examples"])]
    if not unfinished:
        return f"{runs[0].path} and the others share no example by index and id; attack the same data again"
    run = min(unfinished, key=lambda run: run.finished)
    what = "no example is finished in all of them" if run.examples else f"{run.path} has finished no example yet"
    return f"{what}; go on with  bbox attack --resume {run.path}"


def _labels(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell it from the others."""
    parts, depth = [path.resolve().parts for path in paths], [1] * len(paths)
    while True:
        labels = ["/".join(part[-d:]) for part, d in zip(parts, depth, strict=True)]
        if len(set(labels)) == len(labels):
            return labels
        depth = [d + (labels.count(label) > 1) for label, d in zip(labels, depth, strict=True)]


def _read(path: Path, label: str) -> Compared:
    kind = kind_of(path)
    if kind in _SUITES:
        inner = sorted(file.parent for file in path.rglob("journal.sqlite"))
        example = f", such as {inner[0]}" if inner else ""
        raise UsageError(f"{path} holds several runs (a {kind}); name run folders in it{example}")
    if kind == "craft":
        raise UsageError(f"{path} is a no-box run, which asks no target; use  bbox evaluate {path} --target TARGET")
    if kind is not None:
        raise UsageError(f"{path} is a {kind} run, compare takes those of bbox attack; see  bbox show {path}")
    with RunFolder.open(path) as folder:
        run, examples = folder.run(), tuple(folder.examples().values())
        config = Config.from_json(run["config"])
        return Compared(path, label, run, config, tuple(folder.sessions()), examples, len(examples))


def _check_same(first: Compared, other: Compared) -> None:
    kinds = [str(run.run["data"].get("kind", "images")) for run in (first, other)]
    if kinds[0] != kinds[1]:
        raise UsageError(f"{first.path} attacks {kinds[0]}, and {other.path} {kinds[1]}; compare runs on the same data")
    norms = [run.config.norm for run in (first, other)]
    if norms[0] != norms[1]:
        raise UsageError(f"{first.path} measures {norms[0]}, and {other.path} {norms[1]}; compare runs of one norm")
    if first.run["data"]["fingerprint"] != other.run["data"]["fingerprint"]:
        about = [f"{run.path} ({run.run['data']['examples']} of {run.run['data']['name']})" for run in (first, other)]
        raise UsageError(f"{about[0]} and {about[1]} attack other examples; give both the same --data and --limit")


def reached(examples: Sequence[Example], queries: Sequence[int] | NDArray[np.int64]) -> Floats:
    """Each example's distance within so many queries, inf where there is none. Shapes: (n, len(queries)) float64.

    As ``Example.distance_at``, for many query counts at once.
    """
    table = np.full((len(examples), len(queries)), np.inf)
    for row, example in enumerate(examples):
        if example.success and example.trace:
            asked, distance = np.array(sorted(example.trace)).T
            place = np.searchsorted(asked, queries, side="right") - 1
            table[row] = np.where(place >= 0, np.minimum.accumulate(distance)[place.clip(min=0)], np.inf)
    return table
