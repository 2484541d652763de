"""Whether a model still is as robust as its baseline says: the same attacks, example by example.

run.json        the baseline's path, what was asked, fingerprints
baseline.json   a copy of the baseline
ATTACK/         the run folder of an attack
check.json      the figures and the verdicts, written when every run is complete
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from bbox.data.base import Examples
from bbox.errors import UsageError
from bbox.results.baseline import Baseline, Gates, read_baseline, write_baseline
from bbox.results.baseline_runs import baseline_of_suite
from bbox.results.suite import SuiteFolder, Watch, describe_suite, execute_suite, load_suite, selected
from bbox.results.verdicts import Figure, compare
from bbox.targets.base import Target

__all__ = ["CHECK_VERSION", "CheckFolder", "run_check"]

CHECK_VERSION = 1


class CheckFolder(SuiteFolder):
    """The folder of a check."""

    kind: ClassVar[str] = "check"
    noun: ClassVar[str] = "check"

    def check(self) -> None:
        super().check()
        self.gates()

    def gates(self) -> Gates:
        return Gates(**self.run()["gates"])


def run_check(
    baseline: Path | None,
    path: Path,
    *,
    target: Target | None = None,
    data: Examples | None = None,
    changes: Mapping[str, Any] | None = None,
    gates: Mapping[str, float | None] | None = None,
    resume: bool = False,
    update: bool = False,
    command: str = "",
    threads: int | Literal["auto"] | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Run a baseline's attacks, and say which figures fell.

    Args:
        baseline: the file; not needed with ``resume``.
        path: the folder of the check; with ``resume``, one to go on with.
        target, data: instead of those that the baseline (or ``changes``) names.
        changes: fields of each attack's config: target, target_options, data, seed, device, ...
        gates: fields of ``Gates`` that replace the baseline's, where not ``None``.
        update: rewrite the baseline file with what was found.

    Returns: the content of ``check.json``.

    Raises:
        UsageError: the baseline cannot be read, or the data is not what it was made on.
        InputError, TargetError: see ``bbox.results.suite.execute_suite``.
    """
    folder: CheckFolder | None = None
    changes = dict(changes or {})
    if resume:
        folder = CheckFolder.open(path)
        run = folder.run()
        baseline, before = Path(run["baseline"]), read_baseline(path / "baseline.json")
        parts, allowed = folder.parts(), folder.gates()
    elif baseline is None:
        raise UsageError("name a baseline, for example: bbox check --baseline robustness.json")
    else:
        before = read_baseline(baseline)
        parts = tuple(entry.part for entry in before.entries)
        allowed = replace(before.gates, **{k: v for k, v in (gates or {}).items() if v is not None})
    parts = tuple(replace(part, config=replace(part.config, **changes)) for part in parts)
    found = load_suite(parts[0].config, target, data)
    chosen = selected(parts[0].config, found[1])
    _same_data(before, chosen, found[1], baseline)
    if folder is not None:
        folder.same(found[0], chosen)
    described = describe_suite("check", parts, *found, command)
    described |= {"check_version": CHECK_VERSION, "baseline": str(baseline), "gates": asdict(allowed)}

    def make() -> SuiteFolder:
        if folder is not None:
            return folder
        made = CheckFolder.create(path, described)
        write_baseline(path / "baseline.json", before)
        return made

    done = execute_suite(make, path, parts, *found, command=command, threads=threads, watch=watch)
    now = baseline_of_suite(done, allowed)
    figures = compare(before, now, allowed, path)
    results = _results(before, now, figures, allowed, str(baseline))
    done.write("check.json", results)
    if update:
        write_baseline(baseline, now)
    return results


def _same_data(before: Baseline, chosen: Examples, whole: Examples, baseline: Path) -> None:
    told = before.facts["data"]
    for what, expected, now in (
        ("is not the data", told["fingerprint"], chosen.fingerprint()),
        ("is, beside the attacked examples, not the data", told.get("whole_fingerprint"), whole.fingerprint()),
    ):
        if expected not in (None, now):
            raise UsageError(
                f"{whole.name} {what} that {baseline} was made on (fingerprint {now}, expected {expected}); give that "
                "data, or make a new baseline"
            )


def _results(before: Baseline, now: Baseline, figures: Sequence[Figure], gates: Gates, baseline: str) -> dict[str, Any]:
    return {
        "kind": "check",
        "check_version": CHECK_VERSION,
        "holds": not any(figure.fell for figure in figures),
        "baseline": baseline,
        "target": now.facts["target"]["spec"],
        "same_target": now.facts["target"]["fingerprint"] == before.facts["target"]["fingerprint"],
        "data": now.facts["data"]["spec"],
        "examples": len(now.entries[0].outcomes),
        "seed": now.entries[0].part.config.seed,
        **asdict(gates),
        "queries": now.facts["queries"],
        "figures": [figure.to_json() for figure in figures],
    }
