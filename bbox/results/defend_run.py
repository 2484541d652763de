"""Fitting a defense into a folder. Killed at any moment, it goes on and pays no answer twice.

run.json             what was asked, versions, hardware, fingerprints of target and data
answers.sqlite       every answer that the fit has paid for, in order; a resume computes again and asks only what is new
defense.json, *.safetensors    the bundle: the target defended:FOLDER
fit.json             what the fit has measured
certificate.safetensors        class counts of the certified held-out images
results.json         the figures: rows under noise, ledgers, certificate
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch

from bbox import data as data_module
from bbox import targets
from bbox.data.base import Dataset
from bbox.defenses import bundle, make_defense
from bbox.defenses.base import TrainedDefense
from bbox.defenses.books import Journal
from bbox.defenses.certificate import Certificate
from bbox.defenses.certification import certify
from bbox.errors import InputError, TargetError, UsageError
from bbox.oracle import Oracle
from bbox.results.session import describe_run
from bbox.results.store import StorageError

__all__ = ["DefendConfig", "DefendFolder", "DefendPlan", "execute_defend", "plan_defend"]

_TEST_SHARE = 0.2  # of the data, held out for the certificate where no test data is named
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DefendConfig:
    """What was asked for, as it stands in ``run.json``.

    Attributes:
        budget: queries in all: training, selection, certification. A hard limit.
        certify: part of the budget that certifies held-out images at the end; 0 for none.
        test: data for the certificate; ``None`` holds out a fifth of ``data``.
    """

    defense: str
    options: dict[str, Any] = field(default_factory=dict)
    target: str = "zoo:digits"
    target_options: dict[str, Any] = field(default_factory=dict)
    data: str = "zoo:digits"
    labels: str | None = None
    test: str | None = None
    image_size: int | None = None
    limit: int | None = None
    seed: int = 0
    budget: int = 100_000
    certify: float = 0.05
    max_batch: int | None = None
    device: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        for name in ("budget", "limit", "image_size", "max_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if not 0 <= self.certify < 1:
            raise UsageError(f"certify is {self.certify:g}, expected a share of the budget from 0 to below 1")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DefendConfig:
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True)
class DefendPlan:
    """A fit whose parts are loaded and go together."""

    config: DefendConfig
    defense: TrainedDefense
    oracle: Oracle
    data: Dataset
    test: Dataset

    def describe(self, command: str) -> dict[str, Any]:
        """The content of ``run.json``."""
        described = describe_run(cast(Any, self), command)
        return {"kind": "defend", **described, "test": {"name": self.test.name, "fingerprint": self.test.fingerprint()}}


def plan_defend(config: DefendConfig) -> DefendPlan:
    """Load target, data and defense, check that they fit, and ask the target one row (on the ``clean`` ledger).

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    defense = make_defense(config.defense, config.options)
    if not isinstance(defense, TrainedDefense):
        raise UsageError(f"{config.defense} needs no fit")
    labels = None if config.labels is None else Path(config.labels)
    images = data_module.load(config.data, size=config.image_size, labels=labels).select(limit=config.limit)
    if config.test is not None:
        test = data_module.load(config.test, size=config.image_size)
        if test.inputs.shape[1:] != images.inputs.shape[1:]:
            raise InputError(f"{test.name} has images of {tuple(test.inputs.shape[1:])}, {images.name} others")
    else:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
        held = int(_TEST_SHARE * len(images))
        test, images = images.take(order[:held].sort().values), images.take(order[held:].sort().values)
    target = targets.load(config.target, options=config.target_options, trust=config.trust, device=config.device)
    oracle = Oracle(target, max_batch=config.max_batch or 256)
    shape = tuple(images.inputs.shape[1:])
    if target.input_shape is not None and tuple(target.input_shape) != shape:
        raise InputError(
            f"{target.name} takes images of shape {tuple(target.input_shape)}, {images.name} has {shape}"
            + ("; give --image-size" if target.input_shape[0] == shape[0] else "")
        )
    try:
        oracle.ask(images.inputs[:1], "clean")
    except TargetError as error:
        if target.in_process:
            raise InputError(str(error)) from error
        raise
    return DefendPlan(config, defense, oracle, images, test)


class DefendFolder:
    """The folder of a fit. Every file but the journal is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, run: dict[str, Any]) -> DefendFolder:
        """Make a new folder.

        Raises:
            UsageError: the path exists and is not an empty folder.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists; choose another --out, or go on with --resume {path}")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
        folder = cls(path)
        folder.write("run.json", run)
        return folder

    @classmethod
    def open(cls, path: Path) -> DefendFolder:
        """Open an existing one.

        Raises:
            InputError: it is no folder of a defense.
        """
        folder = cls(path)
        try:
            if folder.run().get("kind") == "defend":
                folder.config()
                return folder
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"{path} is not the folder of a fit: {error}") from error
        raise InputError(f"{path} is not the folder of a fit")

    def run(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return read

    def config(self) -> DefendConfig:
        return DefendConfig.from_json(self.run()["config"])

    def results(self) -> dict[str, Any] | None:
        """The figures of a complete fit, ``None`` while it is not."""
        path = self.path / "results.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def fitted(self) -> dict[str, Any] | None:
        """What the fit has measured, once the bundle is complete."""
        path = self.path / "fit.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

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

    def write(self, name: str, content: Any) -> None:
        try:
            part = self.path / f".{name}.part"
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path / name)
        except OSError as error:
            raise _full(self.path, error) from error


def execute_defend(plan: DefendPlan, folder: DefendFolder, *, report: Report | None = None) -> dict[str, Any]:
    """Fit into the folder, or go on with what it holds; returns the content of ``results.json``.

    Queries: ``config.budget`` at most, and the one of ``plan_defend``.

    Raises:
        TargetError: the target failed; the folder keeps what was answered.
        StorageError: the folder cannot be written.
    """
    done = folder.results()
    if done is not None:
        return done
    config, oracle, defense = plan.config, plan.oracle, plan.defense
    sigma = defense.certified_noise
    reserved = 0 if sigma is None else int(config.certify * config.budget)
    began = time.monotonic()
    try:
        fitted = folder.fitted()
        if fitted is None:
            fitted = {"report": _fit(plan, folder, config.budget - reserved, report)}
            fitted["ledger"] = {purpose: asdict(ledger) for purpose, ledger in oracle.books.items()}
            fitted["seconds"] = round(time.monotonic() - began, 1)
            folder.write("fit.json", fitted)
        else:
            defense = cast(TrainedDefense, bundle.load_layers(folder.path)[1][0][1])
    except OSError as error:
        raise _full(folder.path, error) from error
    ledger = dict(fitted["ledger"])
    certificate = None
    if reserved and sigma is not None:
        certificate, ledger["certify"] = _certify(plan, defense, folder, sigma, reserved, report)
    results = {
        "defense": config.defense,
        "target": config.target,
        "data": config.data,
        "test": plan.test.name,
        "budget": config.budget,
        "seed": config.seed,
        "seconds": fitted["seconds"],
        "fit": fitted["report"],
        "certificate": certificate,
        "ledger": ledger,
    }
    folder.write("results.json", results)
    return results


def _fit(plan: DefendPlan, folder: DefendFolder, budget: int, report: Report | None) -> dict[str, Any]:
    config = plan.config
    with Journal(folder.path / "answers.sqlite") as journal:
        found = plan.defense.fit(
            plan.oracle, plan.data.inputs, budget=budget, seed=config.seed, journal=journal, report=report
        )
    layers = [(config.defense, plan.defense)]
    bundle.save(folder.path, layers, plan.oracle.target, options=config.target_options, trust=config.trust)
    return found


def _certify(
    plan: DefendPlan,
    defense: TrainedDefense,
    folder: DefendFolder,
    sigma: float,
    queries: int,
    report: Report | None,
) -> tuple[dict[str, Any], dict[str, int]]:
    """Certify held-out images with what the budget has set aside, as many as it decides."""
    # About 100 samples choose a class and 300 decide (shared/reference, 3.7), so few enough images are taken.
    count = max(1, min(len(plan.test), queries // 400))
    chosen = plan.test.select(limit=count, seed=plan.config.seed)
    oracle = Oracle(defense.wrap(plan.oracle.target), max_batch=plan.oracle.max_batch)
    path = folder.path / "certificate.safetensors"

    def on_progress(found: Certificate) -> None:
        found.save(path)
        if report is not None:
            report("certify", found.queries, queries)

    certificate = certify(
        oracle,
        chosen.inputs,
        chosen.labels,
        sigma=sigma,
        radii=(sigma / 2, sigma),
        budget=queries,
        seed=plan.config.seed,
        indices=chosen.indices,
        on_progress=on_progress,
        resume=Certificate.load(path) if path.exists() else None,
    )
    certificate.save(path)
    return certificate.to_json(), {"queries": certificate.queries, "calls": oracle.books["certify"].calls}


def _full(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; make room and --resume")
