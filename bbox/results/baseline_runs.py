"""Making baselines: by attacking a target, or of runs that are finished."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from bbox.data.base import Examples
from bbox.errors import UsageError
from bbox.results.baseline import NOT_PLAIN, Baseline, Entry, Gates, Outcome
from bbox.results.matrix_plan import slug
from bbox.results.records import Config
from bbox.results.run import figures
from bbox.results.store import RunFolder
from bbox.results.suite import (
    Part,
    SuiteFolder,
    Watch,
    describe_suite,
    execute_suite,
    load_suite,
    plan_parts,
    selected,
    spent,
)
from bbox.targets.base import Target

__all__ = ["BaselineFolder", "baseline_of_runs", "baseline_of_suite", "make_baseline"]

_CI = ("GITHUB_SHA", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")


class BaselineFolder(SuiteFolder):
    """The runs that a baseline was made of."""

    kind: ClassVar[str] = "baseline"
    noun: ClassVar[str] = "baseline"


def make_baseline(
    attacks: Sequence[str],
    config: Config,
    path: Path,
    *,
    gates: Gates | None = None,
    resume: bool = False,
    changes: Mapping[str, Any] | None = None,
    target: Target | None = None,
    data: Examples | None = None,
    command: str = "",
    threads: int | Literal["auto"] | None = None,
    watch: Watch | None = None,
) -> Baseline:
    """Attack a target and keep what became of each example.

    Args:
        attacks: names with options, such as ``"square:p-init=0.3"``; config: everything else.
        path: the folder of the runs; with ``resume``, one to go on with, whose own attacks and config count.
        changes: with ``resume``: fields of ``bbox.options.HOW`` that replace the folder's.
        target, data: instead of those that the config names.

    Queries: at most the budget for each example and attack, and clean, verification and probe on their own ledgers.

    Raises:
        UsageError, InputError, TargetError: see ``bbox.results.suite.execute_suite``.
    """
    if resume:
        old = BaselineFolder.open(path)
        parts = tuple(replace(p, config=replace(p.config, **(changes or {}))) for p in old.parts())
        config = parts[0].config
    found = load_suite(config, target, data)
    if resume:
        old.same(found[0], selected(config, found[1]))
    else:
        parts = plan_parts(attacks, config, found[1])

    def make() -> SuiteFolder:
        described = describe_suite("baseline", parts, *found, command)
        return old if resume else BaselineFolder.create(path, described)

    folder = execute_suite(make, path, parts, *found, command=command, threads=threads, watch=watch)
    return baseline_of_suite(folder, gates or Gates())


def baseline_of_suite(folder: SuiteFolder, gates: Gates) -> Baseline:
    """What a finished suite found."""
    run, parts = folder.run(), folder.parts()
    entries = tuple(_outcomes(part, folder.path / part.folder) for part in parts)
    facts = _facts(run, run["target"], run["data"]) | {"queries": spent(folder.path, parts)}
    return Baseline(entries, gates, facts)


def baseline_of_runs(paths: Sequence[Path], gates: Gates) -> Baseline:
    """A baseline of finished run folders of one target and one data set. Asks nothing.

    Raises:
        UsageError: a run that is not finished, is targeted or was cut short, or runs that differ in target or data.
    """
    parts: list[tuple[Part, Path]] = []
    runs: list[dict[str, Any]] = []
    taken: set[str] = set()
    for path in paths:
        with RunFolder.open(path) as folder:
            run, found = folder.run(), figures(folder)
        config = Config.from_json(run["config"])
        if not found["complete"]:
            raise UsageError(f"{path} is not complete; go on with  bbox attack --resume {path}")
        for name in NOT_PLAIN:
            if getattr(config, name) is not None:
                raise UsageError(f"{path} was run with {name}, and a baseline holds plain untargeted runs")
        rows = found["summary"]["checkpoints"]
        config = replace(
            config,
            checkpoints=tuple(sorted({min(row["queries"], config.budget) for row in rows})),
            epsilons=tuple(cell["epsilon"] for cell in rows[0]["asr"]),
        )
        name = ":".join([config.attack, *(f"{key}={value}" for key, value in config.attack_options.items())])
        parts.append((Part(name, slug(name, taken), config), path))
        runs.append(run)
        for key in ("target", "data"):
            if run[key]["fingerprint"] != runs[0][key]["fingerprint"]:
                raise UsageError(f"{path} and {paths[0]} are runs on different {key}; make a baseline of each")
    first, config = runs[0], parts[0][0].config
    target = {"spec": config.target, "options": config.target_options, "fingerprint": first["target"]["fingerprint"]}
    entries = tuple(_outcomes(part, path) for part, path in parts)
    return Baseline(entries, gates, _facts(first, target, {"spec": config.data, **first["data"]}))


def _outcomes(part: Part, path: Path) -> Entry:
    with RunFolder.open(path) as folder:
        examples = folder.examples()
    return Entry(
        part,
        tuple(
            Outcome(
                index=e.index,
                id=e.id,
                right=e.attacked,
                distances=tuple(e.distance_at(q) for q in part.config.checkpoints),
                success=e.success,
                queries=e.queries,
            )
            for e in examples.values()
        ),
    )


def _facts(run: Mapping[str, Any], target: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": run["command"],
        "provenance": {"git_commit": _commit(), **{name: os.environ[name] for name in _CI if name in os.environ}},
        "versions": run["versions"],
        "hardware": run["hardware"],
        "target": target,
        "data": data,
    }


def _commit() -> str | None:
    """The commit of the folder that bbox runs in, ``None`` outside of git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
