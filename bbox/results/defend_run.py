"""Fitting a defense into a folder. Killed at any moment, it goes on and pays no answer twice.

run.json             what was asked, versions, hardware, fingerprints of target and data
answers.sqlite       every answer that the fit has paid for, in order; a resume computes again and asks only what is new
defense.json, *.safetensors    the bundle: the target defended:FOLDER
fit.json             what the fit has measured
comparison.json      simpler means under the same budget, on held-out images; comparison.sqlite has the answers
certificate.safetensors        class counts of the certified held-out images; certificate.sqlite of a live target's
sessions.json        queries and seconds of each session; with --max-requests requests.json has what is reserved
results.json         the figures: rows under noise, ledgers, certificate, comparison
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from bbox import data as data_module
from bbox.data.base import Dataset
from bbox.defenses import bundle, make_defense
from bbox.defenses.base import TrainedDefense
from bbox.defenses.books import Journal
from bbox.defenses.certificate import Certificate
from bbox.defenses.certification import certify
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.results.fits import check_fits, only_images
from bbox.results.plain_folder import PlainFolder, cannot_write
from bbox.results.recorded import Recorded, on_record
from bbox.results.records import LiveConfig
from bbox.results.session import describe_run, load_target
from bbox.results.spending import Session, oracle_of
from bbox.targets.account import Purse

__all__ = ["DefendConfig", "DefendFolder", "DefendPlan", "execute_defend", "plan_defend"]

_TEST_SHARE = 0.2  # of the data, held out for the certificate where no test data is named
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DefendConfig(LiveConfig):
    """What was asked for, as it stands in ``run.json``.

    Attributes:
        budget: queries in all: training, selection, certification. A hard limit. Baselines have one each.
        certify: part of the budget that certifies held-out images at the end; 0 for none.
        shots: train on so many images a class, drawn by the seed.
        test: data for the certificate or the comparison; ``None`` holds out a fifth of ``data``, or all but the shots.
        test_limit: images that a comparison is measured on, drawn by the seed.
    """

    defense: str
    options: dict[str, Any] = field(default_factory=dict)
    target: str = "zoo:digits"
    target_options: dict[str, Any] = field(default_factory=dict)
    data: str = "zoo:digits"
    labels: str | None = None
    shots: int | None = None
    test: str | None = None
    test_limit: int = 1000
    image_size: int | None = None
    limit: int | None = None
    seed: int = 0
    budget: int = 100_000
    certify: float = 0.05
    max_batch: int | None = None
    device: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("budget", "limit", "image_size", "max_batch", "shots", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if not 0 <= self.certify < 1:
            raise UsageError(f"certify is {self.certify:g}, expected a share of the budget from 0 to below 1")


@dataclass(frozen=True)
class DefendPlan:
    """A fit whose parts are loaded and go together."""

    config: DefendConfig
    defense: TrainedDefense
    oracle: Oracle
    data: Dataset
    test: Dataset
    purse: Purse | None = None

    def describe(self, command: str) -> dict[str, Any]:
        """The content of ``run.json``."""
        described = describe_run(cast(Any, self), command)
        return {"kind": "defend", **described, "test": {"name": self.test.name, "fingerprint": self.test.fingerprint()}}


def plan_defend(config: DefendConfig, folder: PlainFolder | None = None) -> DefendPlan:
    """Load target, data and defense, check that they fit, and ask the target one row (on the ``clean`` ledger), a live
    one twice.

    Args:
        folder: of the fit that is gone on with, which knows how many requests are used.

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    defense = make_defense(config.defense, config.options)
    if not isinstance(defense, TrainedDefense):
        raise UsageError(f"{config.defense} needs no fit")
    labels = None if config.labels is None else Path(config.labels)
    images = only_images(data_module.load(config.data, size=config.image_size, labels=labels))
    images = images.select(limit=config.limit)
    if defense.labelled and images.labels is None:
        raise UsageError(
            f"{config.defense} learns from labelled images, and {images.name} has no labels; give --labels"
        )
    rest: Dataset | None = None
    if config.shots is not None:
        images, rest = images.few_shot(config.shots, config.seed)
    if len(images) < defense.least:
        raise UsageError(f"{len(images)} images are too few to train on; give at least {defense.least}")
    if config.test is not None:
        test = only_images(data_module.load(config.test, size=config.image_size))
        if test.inputs.shape[1:] != images.inputs.shape[1:]:
            raise InputError(f"{test.name} has images of {tuple(test.inputs.shape[1:])}, {images.name} others")
    elif rest is not None:
        test = rest
    else:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
        held = int(_TEST_SHARE * len(images))
        test, images = images.take(order[:held].sort().values), images.take(order[held:].sort().values)
    if defense.labelled:
        if test.labels is None:
            raise UsageError(f"{config.defense} is measured on labelled images, and {test.name} has no labels")
        test = test.select(limit=config.test_limit, seed=config.seed)
    oracle, purse = oracle_of(config, load_target(config), folder, config.max_batch or 256)
    with oracle.terms.settled():
        check_fits(oracle, images, "clean")
    return DefendPlan(config, defense, oracle, images, test, purse)


class DefendFolder(PlainFolder):
    """The folder of a fit."""

    kind = "defend"
    noun = "fit"

    def check(self) -> None:
        self.config()

    def config(self) -> DefendConfig:
        return DefendConfig.from_json(self.run()["config"])

    def check_same(self, plan: DefendPlan) -> None:
        """Refuse to go on with another target or other data than the fit began with."""
        run = self.run()
        for what, began, now in (
            (plan.config.target, run["target"]["fingerprint"], plan.oracle.target.fingerprint()),
            (plan.config.data, run["data"]["fingerprint"], plan.data.fingerprint()),
            (plan.test.name, run["test"]["fingerprint"], plan.test.fingerprint()),
        ):
            if began != now:
                raise InputError(f"{what} has changed since {self.path} began; start a new run")


def execute_defend(plan: DefendPlan, folder: DefendFolder, *, report: Report | None = None) -> dict[str, Any]:
    """Fit into the folder, or go on with what it holds; returns the content of ``results.json``.

    Queries: ``config.budget`` at most, and the one of ``plan_defend``.

    Raises:
        TargetError: the target failed; the folder keeps what was answered.
        StorageError: the folder cannot be written.
    """
    done: dict[str, Any] | None = folder.read("results.json")
    if done is not None:
        return done
    with Session(folder, plan) as session:
        results = _run(plan, folder, session, report)
        folder.write("results.json", results)
    return results


def _run(plan: DefendPlan, folder: DefendFolder, session: Session, report: Report | None) -> dict[str, Any]:
    """What is not finished; returns the content of ``results.json``."""
    config, defense = plan.config, plan.defense
    sigma = defense.certified_noise
    reserved = 0 if sigma is None else int(config.certify * config.budget)
    began = time.monotonic()
    told = session.reporting(report)
    try:
        fitted: dict[str, Any] | None = folder.read("fit.json")
        if fitted is None:
            fitted = {"report": _fit(plan, folder, config.budget - reserved, told)}
            fitted["seconds"] = round(time.monotonic() - began, 1)
            folder.write("fit.json", fitted)
        else:
            defense = cast(TrainedDefense, bundle.load_layers(folder.path)[1][0][1])
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    comparison = _compare(plan, defense, folder, config.budget - reserved, session, told) if defense.labelled else {}
    certificate = None
    if reserved and sigma is not None:
        certificate = _certify(plan, defense, folder, sigma, reserved, session, told)
    return {
        "defense": config.defense,
        "target": config.target,
        "data": config.data,
        "test": plan.test.name,
        "budget": config.budget,
        "seed": config.seed,
        "seconds": fitted["seconds"],
        "fit": fitted["report"],
        "certificate": certificate,
        "comparison": {name: part for name, part in comparison.items() if name != "ledger"} or None,
        **session.costs(fitted, comparison),
    }


def _fit(plan: DefendPlan, folder: DefendFolder, budget: int, report: Report) -> dict[str, Any]:
    config = plan.config
    path = folder.path / "answers.sqlite"
    with Journal(path) as journal:
        try:
            found = plan.defense.fit(
                plan.oracle,
                plan.data.inputs,
                plan.data.labels,
                budget=budget,
                seed=config.seed,
                journal=journal,
                report=report,
            )
        except (UsageError, InputError):
            refused = len(journal) == 0
            journal.close()
            if refused:  # nothing was asked: the folder holds nothing, and its name is free again
                folder.discard([path])
            raise
    layers = [(config.defense, plan.defense)]
    bundle.save(folder.path, layers, plan.oracle.target, options=config.target_options, trust=config.trust)
    return found


def _compare(
    plan: DefendPlan,
    defense: TrainedDefense,
    folder: DefendFolder,
    budget: int,
    session: Session,
    report: Report,
) -> dict[str, Any]:
    """Simpler means beside the defense, on the held-out images; what was answered before is not asked again."""
    done: dict[str, Any] | None = folder.read("comparison.json")
    if done is not None:
        return done
    training, test = plan.data, plan.test
    oracle = session.also(Oracle(plan.oracle.target, max_batch=plan.oracle.max_batch))
    try:
        with Journal(folder.path / "comparison.sqlite") as journal:
            found = defense.compare(
                oracle,
                (training.inputs, cast(torch.Tensor, training.labels)),
                (test.inputs, cast(torch.Tensor, test.labels)),
                budget=budget,
                seed=plan.config.seed,
                journal=journal,
                report=report,
            )
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    comparison = found or {}
    folder.write("comparison.json", comparison)
    return comparison


def _certify(
    plan: DefendPlan,
    defense: TrainedDefense,
    folder: DefendFolder,
    sigma: float,
    queries: int,
    session: Session,
    report: Report,
) -> dict[str, Any]:
    """Certify held-out images with what the budget has set aside, as many as it decides."""
    # About 100 samples choose a class and 300 decide (shared/reference, 3.7), so few enough images are taken.
    count = max(1, min(len(plan.test), queries // 400))
    chosen = plan.test.select(limit=count, seed=plan.config.seed)
    oracle = session.also(Oracle(defense.wrap(plan.oracle.target), max_batch=plan.oracle.max_batch))
    path = folder.path / "certificate.safetensors"
    state = Certificate.load(path) if path.exists() else None
    with on_record(oracle, folder.path / "certificate.sqlite", state) as asked:

        def on_progress(found: Certificate) -> None:
            found.save(path)
            if isinstance(asked, Recorded):
                asked.next_slice()
            report("certify", found.queries, queries)

        certificate = certify(
            asked,
            chosen.inputs,
            chosen.labels,
            sigma=sigma,
            radii=(sigma / 2, sigma),
            budget=queries,
            seed=plan.config.seed,
            indices=chosen.indices,
            on_progress=on_progress,
            resume=state,
        )
    certificate.save(path)
    return certificate.to_json()
