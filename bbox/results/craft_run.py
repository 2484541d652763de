"""A no-box run: from unlabelled data to adversarial examples on disk, with no target. Killed, it can go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bbox import data as data_module
from bbox.attacks import make_attack
from bbox.attacks.smi import BASELINES, LOW_PASS, SMI, perturb
from bbox.attacks.smi.surrogate import Surrogate, encoder_at_hand
from bbox.data.base import MotionSet
from bbox.data.motion import save_motions
from bbox.errors import InputError, UsageError
from bbox.motion.encoders import ENCODERS
from bbox.motion.skeleton import Skeleton
from bbox.registry import did_you_mean
from bbox.results.craft_config import CraftConfig
from bbox.results.craft_folder import ADVERSARIAL, CraftFolder
from bbox.results.motion_figures import motion_figures
from bbox.results.plain_folder import cannot_write
from bbox.results.session import describe_data, describe_machine
from bbox.targets.frozen import pick_device
from bbox.zo import root_keys

__all__ = ["ALL_BASELINES", "CraftPlan", "execute_craft", "plan_craft"]

ALL_BASELINES = (*BASELINES, LOW_PASS)
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CraftPlan:
    """A run that has been checked and not yet started.

    Attributes:
        whole: the unlabelled motions that the encoder learns from; data: those of them that are attacked.
    """

    config: CraftConfig
    attack: SMI
    whole: MotionSet
    data: MotionSet
    device: torch.device

    def describe(self, command: str) -> dict[str, Any]:
        """The content of ``run.json``."""
        labels = [None] * len(self.data) if self.data.labels is None else self.data.labels.tolist()
        places = self.data.indices.tolist()
        return {
            "kind": CraftFolder.kind,
            "schema_version": 1,
            "command": command,
            "config": self.config.to_json(),
            "data": {**describe_data(self.data), "whole": self.whole.fingerprint(), "pool": len(self.whole)},
            "examples": [
                {"index": index, "id": name, "label": label}
                for index, name, label in zip(places, self.data.ids, labels, strict=True)
            ],
            **describe_machine(self.device),
        }


def plan_craft(config: CraftConfig, data: MotionSet | None = None) -> CraftPlan:
    """Load and check everything that a run needs.

    Args:
        data: motions at hand, in place of ``config.data``.

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    attack = make_attack(config.attack, config.attack_options)
    if not isinstance(attack, SMI):
        raise UsageError(f"{config.attack} asks a target; give bbox.attack one, or name smi")
    for name in config.baselines:
        if name not in ALL_BASELINES:
            near = did_you_mean(name, ALL_BASELINES) or ";"
            raise UsageError(f"unknown baseline {name!r}{near} known are {', '.join(ALL_BASELINES)}, all and none")
    whole = data_module.load(config.data) if data is None else data
    if not isinstance(whole, MotionSet):
        raise UsageError(f"{config.attack} attacks motion, and {config.data} holds {whole.kind}")
    if len(whole) < 2 and (attack.encoder in ENCODERS or attack.negatives != "none"):
        raise UsageError(f"{whole.name} holds 1 motion; an encoder learns from 2 or more, and so do far clusters")
    device = pick_device(config.device)
    if attack.encoder not in ENCODERS:
        encoder_at_hand(attack.encoder, whole, device)
    chosen = whole.select(limit=config.limit, indices=config.indices)
    return CraftPlan(config, attack, whole, chosen, device)


def execute_craft(plan: CraftPlan, folder: CraftFolder, *, report: Report | None = None) -> dict[str, Any]:
    """Make adversarial motions and baselines in the folder, or go on with what it holds; returns ``results.json``.

    Queries: none.

    Raises:
        InputError: the data has changed since the run began, or a file of the folder cannot be read.
        StorageError: the folder cannot be written.
    """
    run, data, attack = folder.run(), plan.data, plan.attack
    began_with = (run["data"]["fingerprint"], run["data"]["whole"], Skeleton.from_json(run["data"]["skeleton"]))
    if began_with != (data.fingerprint(), plan.whole.fingerprint(), data.skeleton):
        raise InputError(f"{plan.config.data} has changed since {folder.path} began; start a new run")
    told = report or (lambda what, done, total: None)
    seconds: dict[str, float] = dict((folder.read("results.json") or {}).get("seconds", {}))
    indices = data.indices.tolist()
    for index, motion in zip(indices, data.inputs, strict=True):
        if not folder.has("originals", index):
            folder.save("originals", index, motion)
    surrogate: Surrogate | None = None
    pool = plan.whole.inputs.to(plan.device)  # once, not a batch
    for method in (ADVERSARIAL, *plan.config.baselines):
        missing = [place for place, index in enumerate(indices) if not folder.has(method, index)]
        for start in range(0, len(missing), plan.config.batch):
            began = time.monotonic()
            if surrogate is None and method in (ADVERSARIAL, LOW_PASS):
                surrogate = _learn(plan, folder, told)
                seconds["encoder"] = seconds.get("encoder", 0.0) + time.monotonic() - began
                began = time.monotonic()
            part = missing[start : start + plan.config.batch]

            def on_step(step: int, method: str = method, done: int = start, total: int = len(missing)) -> None:
                told(f"{method}: {done:,} of {total:,} motions, step", step, attack.iterations)

            made = _make(plan, method, part, pool, surrogate, on_step)
            for place, motion in zip(part, made, strict=True):
                folder.save(method, indices[place], motion)
            seconds[method] = seconds.get(method, 0.0) + time.monotonic() - began
    _hand_on(plan, folder)
    results = motion_figures(folder)
    results["encoder"] = folder.read("encoder/facts.json")
    results["seconds"] = seconds
    results["queries"] = 0
    folder.write("results.json", results)
    return results


def _learn(plan: CraftPlan, folder: CraftFolder, told: Report) -> Surrogate:
    """The encoder that the attack climbs: learned now, or as it lies in the folder."""
    place = folder.path / "encoder"
    try:
        place.mkdir(exist_ok=True)
        surrogate = plan.attack.learn(plan.whole, device=plan.device, seed=plan.config.seed, folder=place, report=told)
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    known, kind = folder.read("encoder/facts.json"), plan.attack.encoder
    if kind not in ENCODERS and known is not None and known["fingerprint"] != surrogate.facts["fingerprint"]:
        raise InputError(f"encoder {kind} has changed since {folder.path} began; start a new run")
    folder.write("encoder/facts.json", surrogate.facts)
    return surrogate


def _make(
    plan: CraftPlan,
    method: str,
    places: list[int],
    pool: Tensor,
    surrogate: Surrogate | None,
    on_step: Callable[[int], None],
) -> Tensor:
    part = plan.data.take(places)
    motions = part.inputs.to(plan.device)
    keys = root_keys(plan.config.seed, part.indices).to(plan.device)
    norm: Any = plan.config.norm
    if method in BASELINES:
        size, axes = plan.attack.epsilon, plan.whole.skeleton.axes
        made = perturb(method, motions, keys, epsilon=size, norm=norm, axes=axes, pool=pool)
        return plan.attack.kept(made, motions, plan.whole.skeleton, norm)  # the same constraint as the attack's
    if surrogate is None:
        raise InputError("the encoder is missing")
    attack = plan.attack.plain() if method == LOW_PASS else plan.attack
    where = {index: place for place, index in enumerate(plan.whole.indices.tolist())}
    index = torch.tensor([where[i] for i in part.indices.tolist()], device=plan.device)
    skeleton = plan.whole.skeleton
    return attack.craft(motions, surrogate.goal, skeleton, keys, norm=norm, index=index, pool=pool, on_step=on_step)


def _hand_on(plan: CraftPlan, folder: CraftFolder) -> None:
    """All adversarial motions in one file, which reads as data."""
    made = replace(plan.data, inputs=folder.motions(ADVERSARIAL, plan.data.indices.tolist()))
    try:
        save_motions(folder.path / "adversarial.npz", made)
    except OSError as error:
        raise cannot_write(folder.path, error) from error
