"""Adversarial fine-tuning of a code classifier, measured: ALERT's hardening experiment (Yang et al., ICSE 2022, 5.3).

The model is the user's own, with its tokenizer: this defense is not for black boxes. Killed at any moment, it goes on
with the stage that was running; attacks go on where they were, training starts again.

run.json            what was asked, versions, hardware, fingerprints of target and data
attack-training/    the run of the attack on the training set
model/              the hardened model: the target hf-code:FOLDER/model
training.json       what it was trained on
attack-original/    the run of the attack on held-out programs, on the original model
attack-hardened/    the same on the hardened model
results.json        clean and robust accuracy of both, and the hardened model on the original's adversarial programs
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from bbox import data as data_module
from bbox import targets
from bbox.attacks import make_attack
from bbox.code.program import Programs
from bbox.data.base import CodeSet
from bbox.defenses.finetune import Training, finetune, need_trainer
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.results.fits import match_classes
from bbox.results.plain_folder import PlainFolder, cannot_write
from bbox.results.plan import Plan, prepare
from bbox.results.records import Config, JsonConfig
from bbox.results.run import Progress, execute
from bbox.results.saved import read_program
from bbox.results.session import check_same, describe_run
from bbox.results.store import RunFolder
from bbox.targets.code.hf import SequenceClassifier

__all__ = ["NAME", "FinetuneConfig", "FinetuneFolder", "FinetunePlan", "execute_finetune", "plan_finetune"]

NAME = "adversarial-finetune"
_OWN_FORMAT = ("checkpoint", "task")  # options of the target under which its weights are not save_pretrained's
Watch = Callable[[str, Progress | None, tuple[int, int] | None], None]


@dataclass(frozen=True)
class FinetuneConfig(JsonConfig):
    """What was asked for, as it stands in ``run.json``.

    Attributes:
        data: what the model was trained on, and is trained on again; attack_limit: attack only so many of them.
        test_data: held-out programs.
        attack, attack_options: the attack; of the training set always the same as of the held-out programs.
        budget: queries a program.
    """

    target: str
    data: str
    test_data: str
    target_options: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    attack_limit: int | None = None
    test_limit: int | None = None
    attack: str = "alert"
    attack_options: dict[str, Any] = field(default_factory=lambda: {"search": "greedy"})
    budget: int = 200
    epochs: int = 3
    lr: float = 5e-5
    batch_size: int = 16
    seed: int = 0
    max_batch: int | None = None
    device: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        for name in ("budget", "limit", "attack_limit", "test_limit", "max_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if not self.target.startswith("hf-code:"):
            raise UsageError(f"{NAME} trains a model of transformers, given as hf-code:DIR; {self.target} is none")
        for option in _OWN_FORMAT:
            if option in self.target_options:
                raise UsageError(f"{NAME} trains what save_pretrained wrote; save the model so, and leave out {option}")

    @property
    def training(self) -> Training:
        return Training(self.epochs, self.lr, self.batch_size, self.seed)

    def run(self, data: str, limit: int | None, target: str | None = None) -> Config:
        """The attack of one stage."""
        return Config(
            attack=self.attack,
            attack_options=self.attack_options,
            target=target or self.target,
            target_options=self.target_options,
            data=data,
            limit=limit,
            seed=self.seed,
            budget=self.budget,
            norm="names",
            max_batch=self.max_batch,
            device=self.device,
            trust=self.trust,
        )


@dataclass(frozen=True)
class FinetunePlan:
    """The experiment, its parts loaded and fit together."""

    config: FinetuneConfig
    training: Plan
    test: Plan
    whole: CodeSet

    @property
    def target(self) -> SequenceClassifier:
        return cast(SequenceClassifier, self.training.oracle.target)

    def describe(self, command: str) -> dict[str, Any]:
        """The content of ``run.json``."""
        described = describe_run(self.training, command)
        test = {"name": self.test.data.name, "fingerprint": self.test.data.fingerprint()}
        return {"kind": NAME, **described, "config": self.config.to_json(), "test": test}


def plan_finetune(config: FinetuneConfig) -> FinetunePlan:
    """Load model and data, check that they fit, and ask the model two programs (on the ``probe`` ledger).

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    need_trainer()
    Training(config.epochs, config.lr, config.batch_size, config.seed)
    attack = make_attack(config.attack, config.attack_options)
    target = targets.load(config.target, options=config.target_options, trust=config.trust, device=config.device)
    if cast(SequenceClassifier, target).model.dtype != torch.float32:
        raise UsageError(f"{NAME} trains in float32; leave out dtype")
    whole: Any = data_module.load(config.data).select(limit=config.limit)
    test: Any = data_module.load(config.test_data).select(limit=config.test_limit)
    for data in (whole, test):
        if data.labels is None:
            raise UsageError(f"{data.name} has no labels, and {NAME} trains and measures with them")
    training = prepare(config.run(config.data, config.attack_limit), attack, target, whole)
    held_out = prepare(config.run(config.test_data, None), attack, target, test)
    return FinetunePlan(config, training, held_out, match_classes(whole, target))


class FinetuneFolder(PlainFolder):
    """The folder of an adversarial fine-tuning."""

    kind = NAME
    noun = "fine-tuning"

    def check(self) -> None:
        self.config()

    def config(self) -> FinetuneConfig:
        return FinetuneConfig.from_json(self.run()["config"])

    def check_same(self, plan: FinetunePlan) -> None:
        """Refuse to go on with another model or other data than the experiment began with."""
        run = self.run()
        for what, began, now in (
            (plan.config.target, run["target"]["fingerprint"], plan.target.fingerprint()),
            (plan.config.data, run["data"]["fingerprint"], plan.training.data.fingerprint()),
            (plan.config.test_data, run["test"]["fingerprint"], plan.test.data.fingerprint()),
        ):
            if began != now:
                raise InputError(f"{what} has changed since {self.path} began; start a new run")


def execute_finetune(plan: FinetunePlan, folder: FinetuneFolder, *, watch: Watch | None = None) -> dict[str, Any]:
    """Attack the training set, train, and measure both models; returns the content of ``results.json``.

    Queries: ``budget`` a program at most in each of the three attacks, each with its own books in its run folder; and
    one for each adversarial program of the original model (``evaluate``).

    Args:
        watch: called with a stage, and what an attack or the training has done.

    Raises:
        TargetError, StorageError: the folder keeps what was done.
    """
    done: dict[str, Any] | None = folder.read("results.json")
    if done is not None:
        return done
    report = watch or (lambda *_: None)
    attacked = _attack(plan.training, folder, "attack-training", report)
    trained: dict[str, Any] | None = folder.read("training.json")
    if trained is None:
        trained = _train(plan, folder, report)
    config = plan.config
    hardened = targets.load(
        f"hf-code:{folder.path / 'model'}", options=config.target_options, trust=config.trust, device=config.device
    )
    before = _attack(plan.test, folder, "attack-original", report)
    again = prepare(config.run(config.test_data, None, hardened.name), plan.test.attack, hardened, plan.test.data)
    after = _attack(again, folder, "attack-hardened", report)
    transfer = _transfer(folder, again.oracle, report)
    results = {
        "target": config.target,
        "data": config.data,
        "test_data": config.test_data,
        "attack": config.attack,
        "attack_options": config.attack_options,
        "budget": config.budget,
        "seed": config.seed,
        "training": {"attacked": attacked["summary"]["attacked"], **trained},
        "original": _accuracies(config.target, before),
        "hardened": _accuracies(hardened.name, after),
        "transfer": transfer,
    }
    folder.write("results.json", results)
    return results


def _attack(plan: Plan, folder: FinetuneFolder, name: str, report: Watch) -> dict[str, Any]:
    """Run one attack into a folder of its own, or go on with it."""
    path = folder.path / name
    if (path / "run.json").exists():
        run = RunFolder.open(path)
        check_same(plan, run)
    else:
        shutil.rmtree(path, ignore_errors=True)  # killed before it began
        run = RunFolder.create(path, describe_run(plan, f"bbox defend {NAME}"))
    with run:
        return execute(plan, run, on_progress=lambda progress: report(name, progress, None))


def _train(plan: FinetunePlan, folder: FinetuneFolder, report: Watch) -> dict[str, Any]:
    """Train on the training set and the adversarial programs that were found in it; save the model."""
    began = time.monotonic()
    with RunFolder.open(folder.path / "attack-training") as run:
        found = [e for e in run.examples().values() if e.success]
        adversarial = Programs(read_program(run, "adversarial", e.index) for e in found)
    truth = cast(Tensor, plan.whole.labels)
    labels = torch.cat([truth, torch.tensor([e.label for e in found], dtype=torch.int64)])
    programs = Programs.cat([plan.whole.inputs, adversarial])
    model, figures = finetune(
        plan.target,
        programs,
        labels,
        plan.config.training,
        report=lambda step, steps: report("train", None, (step, steps)),
    )
    part, path = folder.path / "model.part", folder.path / "model"
    try:
        for left in (part, path):  # of a session that was killed before it wrote training.json
            shutil.rmtree(left, ignore_errors=True)
        model.save_pretrained(part)
        plan.target.tokenizer.save_pretrained(part)
        part.rename(path)
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    trained = {**asdict(plan.config.training), "adversarial": len(found), **figures}
    trained["seconds"] = round(time.monotonic() - began, 1)
    folder.write("training.json", trained)
    return trained


def _transfer(folder: FinetuneFolder, oracle: Oracle, report: Watch) -> dict[str, Any]:
    """The hardened model on the adversarial programs of the original one, which that gets wrong one and all."""
    report("transfer", None, None)
    with RunFolder.open(folder.path / "attack-original") as run:
        found = [e for e in run.examples().values() if e.success]
        programs = Programs(read_program(run, "adversarial", e.index) for e in found)
    if not found:
        return {"programs": 0, "right": 0, "accuracy": None, "queries": 0}
    answers = oracle.ask(programs, "evaluate").labels
    right = int((answers == torch.tensor([e.label for e in found])).sum())
    return {
        "programs": len(found),
        "right": right,
        "accuracy": right / len(found),
        "queries": oracle.books["evaluate"].queries,
    }


def _accuracies(target: str, results: dict[str, Any]) -> dict[str, Any]:
    """Over all held-out programs: right, and right whatever the attack tried within its budget."""
    summary = results["summary"]
    total, attacked = summary["examples"], summary["attacked"]
    broken = sum(bool(e["success"]) for e in results["examples"])
    return {
        "target": target,
        "programs": total,
        "clean_accuracy": attacked / total,
        "robust_accuracy": (attacked - broken) / total,
        "attack_success_rate": broken / attacked if attacked else None,
        "attack_queries": summary["attack_queries"],
    }
