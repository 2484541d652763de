"""Rename smoothing measured on data: what it costs in accuracy, and how many identifiers it certifies.

run.json         what was asked, versions, hardware, fingerprints of target and data
defense.json     the bundle: the target defended:FOLDER
examples.json    each program's answers and certificate, replaced after each slice; a resume goes on behind it
answers.sqlite   live targets: every answer, so that a resume asks nothing of the slice under way again
sessions.json    queries and seconds of each session; with --max-requests requests.json has what is reserved
results.json     the figures
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from bbox import data as data_module
from bbox.cache import AnswerCache
from bbox.code.program import Program, Programs
from bbox.code.site import site_of
from bbox.data.base import CodeSet
from bbox.defenses import bundle, make_defense
from bbox.defenses.bounds import clopper_pearson_lower, clopper_pearson_upper
from bbox.defenses.rename_smoothing import RenameSmoothing, votes_of
from bbox.defenses.rename_smoothing.certificate import ablation_certificate, certified_identifiers
from bbox.errors import InputError, UsageError
from bbox.oracle import UNKNOWN, Answers, Oracle, Purpose
from bbox.results.fits import check_fits, match_classes
from bbox.results.plain_folder import PlainFolder
from bbox.results.records import LiveConfig
from bbox.results.session import describe_run, load_target
from bbox.results.spending import Session, oracle_of
from bbox.targets.account import Purse

__all__ = ["NAME", "SmoothingConfig", "SmoothingFolder", "SmoothingPlan", "execute_smoothing", "plan_smoothing"]

NAME = "rename-smoothing"
_SLICE = 16  # programs between two writes: what a kill can lose
_SAMPLES = 10_000  # of an ablation certificate, at most
_SHOWN = (1, 2, 3, 4, 6, 8, 12, 16)  # numbers of identifiers in the table
_CONFIDENCE = 0.95
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SmoothingConfig(LiveConfig):
    """What was asked for, as it stands in ``run.json``.

    Attributes:
        budget: rows of the model in all, a hard limit. One and n a program; what is left over samples the ablation
            certificate, where identifiers keep their names.
        alpha: probability with which a program's ablation certificate may be wrong.
    """

    options: dict[str, Any] = field(default_factory=dict)
    target: str = ""
    target_options: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    limit: int | None = None
    seed: int = 0
    budget: int = 100_000
    alpha: float = 0.001
    max_batch: int | None = None
    device: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("budget", "limit", "max_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha is {self.alpha:g}, expected more than 0 and less than 1")


@dataclass(frozen=True)
class SmoothingPlan:
    """A measurement whose parts are loaded and go together. ``samples``: of an ablation certificate, a program."""

    config: SmoothingConfig
    defense: RenameSmoothing
    oracle: Oracle
    data: CodeSet
    samples: int
    purse: Purse | None = None

    def describe(self, command: str) -> dict[str, Any]:
        """The content of ``run.json``."""
        described = describe_run(cast(Any, self), command)
        return {"kind": NAME, **described, "names": self.defense.state()[0]["names"]}


def plan_smoothing(config: SmoothingConfig, folder: PlainFolder | None = None) -> SmoothingPlan:
    """Load target and data, check that they fit, and ask the target one row (on the ``probe`` ledger), a live one
    twice.

    Args:
        folder: of the run that is gone on with, which knows how many requests are used.

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    defense = cast(RenameSmoothing, make_defense(NAME, config.options))
    target = load_target(config)
    defense.wrap(target)  # refuses what it cannot stand around
    data: Any = data_module.load(config.data).select(limit=config.limit)
    oracle, purse = oracle_of(config, target, folder, config.max_batch or 256)
    each = 1 + defense.n
    most = (config.budget - 1) // each
    if most < 1:
        raise UsageError(f"budget is {config.budget}, and one program takes {each} rows beside the probe's one")
    if most < len(data):
        data = data.select(limit=most, seed=config.seed)
    if isinstance(data, CodeSet):
        data = match_classes(data, target)
        site_of(data.inputs[0])  # the grammar is there
    with oracle.terms.settled():
        check_fits(oracle, data)
    left = config.budget - 1 - each * len(data)
    samples = min(_SAMPLES, left // len(data)) if defense.keep else 0
    return SmoothingPlan(config, defense, oracle, data, samples, purse)


class SmoothingFolder(PlainFolder):
    """The folder of a measurement of rename smoothing."""

    kind = NAME
    noun = "rename-smoothing run"

    def check(self) -> None:
        self.config()

    def config(self) -> SmoothingConfig:
        return SmoothingConfig.from_json(self.run()["config"])

    def check_same(self, plan: SmoothingPlan) -> None:
        """Refuse to go on with another target, other data or other names than the run began with."""
        run = self.run()
        for what, began, now in (
            (plan.config.target, run["target"]["fingerprint"], plan.oracle.target.fingerprint()),
            (plan.config.data, run["data"]["fingerprint"], plan.data.fingerprint()),
            (plan.defense.names, run["names"], plan.defense.state()[0]["names"]),
        ):
            if began != now:
                raise InputError(f"{what} has changed since {self.path} began; start a new run")


def execute_smoothing(plan: SmoothingPlan, folder: SmoothingFolder, *, report: Report | None = None) -> dict[str, Any]:
    """Measure into the folder, or go on with what it holds; returns the content of ``results.json``.

    Queries: one row a program without the defense and n with it (``evaluate``), ``plan.samples`` more (``certify``).

    Raises:
        TargetError: the target failed; the folder keeps what was measured.
        StorageError: the folder cannot be written.
    """
    finished: dict[str, Any] | None = folder.read("results.json")
    if finished is not None:
        return finished
    config, oracle, data = plan.config, plan.oracle, plan.data
    bundle.save(folder.path, [(NAME, plan.defense)], oracle.target, options=config.target_options, trust=config.trust)
    done: dict[str, Any] = folder.read("examples.json") or {"examples": []}
    examples = done["examples"]
    with Session(folder, plan) as session, _kept(oracle, folder):
        while len(examples) < len(data):
            session.reporting(report)("programs", len(examples), len(data))
            places = range(len(examples), min(len(examples) + _SLICE, len(data)))
            examples += _measure(plan, places)
            session.save()
            folder.write("examples.json", {**done, "examples": examples})
        results = {
            "defense": plan.defense.describe(),
            "target": config.target,
            "data": config.data,
            "budget": config.budget,
            "seed": config.seed,
            "samples": plan.samples,
            "alpha": config.alpha,
            **_figures(examples, sampled=bool(plan.samples)),
            **session.costs(done),
            "examples": examples,
        }
        folder.write("results.json", results)
    return results


@contextmanager
def _kept(oracle: Oracle, folder: SmoothingFolder) -> Iterator[None]:
    """Inside, the answers of a live target lie on disk as they come. One that answers at random has no such record."""
    if oracle.target.in_process or not oracle.target.deterministic or oracle.target.refuses:
        yield
        return
    with AnswerCache(folder.path / "answers.sqlite") as oracle.cache:
        yield


def _measure(plan: SmoothingPlan, places: Sequence[int]) -> list[dict[str, Any]]:
    """The answers to some programs, with and without the defense, and their certificates."""
    data, defense, oracle = plan.data, plan.defense, plan.oracle
    rows = [data.inputs[place] for place in places]
    drawn = [defense.copies(program) for program in rows]
    plain = oracle.ask(Programs(rows), "evaluate").labels.tolist()
    votes = _votes(plan, [found.programs for found in drawn], "evaluate")
    measured = []
    for place, program, found, mine, bare in zip(places, rows, drawn, votes, plain, strict=True):
        identifiers = found.kept.shape[1]
        answer = int(mine.sum(0).argmax()) if mine.any() else UNKNOWN
        ablation = None
        if plan.samples:
            more = defense.copies(program, first=defense.n, count=plan.samples)
            sampled = _votes(plan, [more.programs], "certify")[0]
            hits = int((sampled.argmax(1) == answer)[sampled.any(1)].sum())
            kept = int(defense.keep * identifiers)
            within = ablation_certificate(hits, plan.samples, identifiers, kept, alpha=plan.config.alpha)
            ablation = {"hits": hits, "certified": -1 if found.broken else within}
        measured.append(
            {
                "index": int(data.indices[place]),
                "id": data.ids[place],
                "label": None if data.labels is None else int(data.labels[place]),
                "plain": bare,
                "smoothed": answer,
                "identifiers": identifiers,
                "certified": 0 if found.broken else certified_identifiers(mine, found.kept),
                "parses": not found.broken,
                "ablation": ablation,
            }
        )
    return measured


def _votes(plan: SmoothingPlan, groups: Sequence[Sequence[Program]], purpose: Purpose) -> list[Any]:
    """What the copies of each program say, (k, classes) each; equal copies are asked once."""
    place = {copy: number for number, copy in enumerate(dict.fromkeys(copy for group in groups for copy in group))}
    answers: Answers = plan.oracle.ask(Programs(place), purpose)
    target = plan.oracle.target
    mean = plan.defense.answer == "mean"
    given = answers.labels if answers.scores is None else answers.scores
    votes = votes_of(given, target, mean=mean)
    return [votes[[place[copy] for copy in group]] for group in groups]


def _figures(examples: Sequence[dict[str, Any]], *, sampled: bool) -> dict[str, Any]:
    """Accuracy with and without the defense, and certified accuracy by the number of renamed identifiers."""
    labelled = examples[0]["label"] is not None
    right = np.array([e["smoothed"] == e["label"] if labelled else e["smoothed"] >= 0 for e in examples])
    identifiers = np.array([e["identifiers"] for e in examples])
    parses = np.array([e["parses"] for e in examples])

    def certified(found: Sequence[int]) -> dict[str, Any]:
        """Renames of R identifiers, of all where there are fewer: the program is certified for R, or for all it has."""
        within = np.array(found)
        all_of_them = (within >= identifiers) & parses
        reach = [r for r in _SHOWN if r <= identifiers.max(initial=0)]
        return {
            "accuracy": [{"identifiers": r, **_share(right & ((within >= r) | all_of_them))} for r in reach],
            "all": _share(right & all_of_them),
            "median": float(np.median(within)),
            "distribution": {str(r): count for r, count in sorted(Counter(within.tolist()).items())},
        }

    return {
        "programs": len(examples),
        "labelled": labelled,
        "parse": int(parses.sum()),
        "identifiers": {"median": float(np.median(identifiers)), "most": int(identifiers.max(initial=0))},
        "accuracy": {
            "plain": _share(np.array([e["plain"] == e["label"] for e in examples])) if labelled else None,
            "smoothed": _share(right) if labelled else None,
        },
        "agreement": _share(np.array([e["plain"] == e["smoothed"] for e in examples])),
        "certified": certified([e["certified"] for e in examples]),
        "ablation": certified([e["ablation"]["certified"] for e in examples]) if sampled else None,
    }


def _share(hit: Any) -> dict[str, float]:
    """A share of programs, and its 95% interval (Clopper and Pearson, two-sided)."""
    count, total, half = int(hit.sum()), len(hit), (1 - _CONFIDENCE) / 2
    low, high = clopper_pearson_lower(count, total, half), clopper_pearson_upper(count, total, half)
    return {"value": count / total, "low": float(low), "high": float(high)}
