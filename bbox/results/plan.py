"""A run that has been checked and not yet started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox.attacks.base import Attack
from bbox.cache import AnswerCache
from bbox.data.base import Examples, MotionSet
from bbox.engine import Pool
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.results.fits import check_fits, check_kind, match_classes
from bbox.results.records import Config
from bbox.targets.account import Purse
from bbox.targets.base import Target
from bbox.zo import fold, root_keys, uniform

__all__ = ["TUBE", "Plan", "prepare"]

_TARGET_CLASS_STREAM = -7
TUBE = 0.1  # metres


@dataclass(frozen=True)
class Plan:
    """A run that has been checked and not yet started.

    Shapes:
        data: the selected examples; goals: (n,) int64, class to leave or to reach; starts: (n, *shape) or ``None``.

    Attributes:
        purse: what is left of the run's limit on requests, ``None`` without one.
    """

    config: Config
    attack: Attack
    oracle: Oracle
    data: Examples
    goals: Tensor | None
    starts: Tensor | None
    pool: Pool | None
    purse: Purse | None = None

    @property
    def queries_at_most(self) -> int:
        """Upper bound of the attack's queries."""
        total = len(self.data) * self.config.budget
        return total if self.config.max_queries is None else min(total, self.config.max_queries)


def prepare(
    config: Config,
    attack: Attack,
    target: Target,
    data: Examples,
    *,
    starts: Tensor | None = None,
    used_requests: int = 0,
) -> Plan:
    """Check everything that can be checked, and ask the target one row (on the ``probe`` ledger), a live one twice.

    Raises:
        UsageError: options that do not fit each other or the target.
        InputError: the target cannot take the data's images.
    """
    if attack.access == "none":
        raise UsageError(
            f"{config.attack} asks no target: bbox attack {config.attack} --data {config.data}, then bbox evaluate RUN "
            f"--target {config.target}"
        )
    if config.engine == "ray" and find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray; pip install 'bbox-toolkit[ray]'")
    check_kind(target, data)
    norms = attack.norms_on(data.takes)
    if not norms:
        raise UsageError(f"{config.attack} attacks {attack.takes}, and {data.name} holds {data.kind}")
    if attack.takes == "code" and config.norm == "l2":  # the default of images
        config = replace(config, norm=norms[0])
    if config.norm not in norms:
        has = " and ".join(norms) + (" on motions" if isinstance(data, MotionSet) else "")
        raise UsageError(f"{config.attack} minimises {has}, not {config.norm}; give --norm {norms[0]}")
    config = _for_motions(config) if isinstance(data, MotionSet) else _without_tube(config, data)
    _check_access(config, attack, target)
    quantize: Any = config.quantize
    data = match_classes(data, target)
    purse = config.purse(used_requests)
    oracle = Oracle(
        target,
        max_batch=target.rows_a_call(config.max_batch or 128),
        quantize=quantize,
        limit=config.max_queries,
        terms=config.terms(purse),
        cache=_cache(config, target),
    )
    full = data
    data = data.select(limit=config.limit, indices=config.indices)
    shape = tuple(data.inputs.shape[1:])
    classes = check_fits(oracle, data)
    _check_access(config, attack, target)  # some targets show with their first answer what they give
    if full.labels is not None and classes is not None and int(full.labels.max()) >= classes:
        raise InputError(
            f"{data.name} has label {int(full.labels.max())}, but {target.name} has {classes} classes, "
            f"0 to {classes - 1}"
        )
    goals: Tensor | None = None
    pool = None if full.labels is None else Pool(full.inputs, full.labels)
    if pool is None and attack.takes == "code":  # names to take are there without classes, too
        pool = Pool(full.inputs, torch.zeros(len(full), dtype=torch.int64))
    attack.ready(pool, oracle.device)
    if config.target_class is not None:
        if data.labels is None:
            raise UsageError("a targeted attack needs labelled data")
        goals = _target_classes(config, data, classes)
        keep = (goals != data.labels).nonzero()[:, 0]
        if len(keep) == 0:
            raise UsageError(f"every chosen example is of class {config.target_class} already")
        data, goals = data.take(keep), goals[keep]
        starts = None if starts is None or len(starts) == 1 else starts[keep]
        if attack.takes != "code" and starts is None and not _in_pool(pool, goals) and config.start_from is None:
            missing = next(int(g) for g in goals if pool is None or not bool((pool.labels == g).any()))
            raise UsageError(f"{data.name} has none of class {missing} to start from; give --start-from")
    if starts is not None:
        if tuple(starts.shape[1:]) != shape or len(starts) not in (1, len(data)):
            raise UsageError(f"start points have shape {tuple(starts.shape)}, expected one or {len(data)} of {shape}")
        starts = starts.expand(len(data), *shape)
    return Plan(config, attack, oracle, data, goals, starts, pool, purse)


def _check_access(config: Config, attack: Attack, target: Target) -> None:
    if attack.access == "scores" and target.access == "labels":
        hint = "; give --search labels (experimental)" if attack.takes == "code" else ""
        raise UsageError(f"{config.attack} needs scores, and {target.name} answers labels only{hint}")


def _cache(config: Config, target: Target) -> AnswerCache | None:
    if config.cache is None:
        return None
    if not target.deterministic or target.refuses:
        raise UsageError(f"{target.name} may answer the same row in two ways; leave --cache out")
    return AnswerCache(Path(config.cache))


def _for_motions(config: Config) -> Config:
    if config.quantize is not None:
        raise UsageError(f"quantize {config.quantize} is for images, and {config.data} holds motions; leave it out")
    return config if config.tube is not None else replace(config, tube=TUBE)


def _without_tube(config: Config, data: Examples) -> Config:
    if config.tube is not None:
        raise UsageError(f"tube is for motions, and {data.name} holds {data.kind}; leave it out")
    return config


def _target_classes(config: Config, data: Examples, classes: int | None) -> Tensor:
    labels: Tensor | None = data.labels
    if labels is None:
        raise UsageError("a targeted attack needs labelled data")
    if isinstance(config.target_class, int):
        if config.target_class < 0 or (classes is not None and config.target_class >= classes):
            raise UsageError(f"target class {config.target_class} does not exist; the target has {classes} classes")
        return torch.full_like(labels, config.target_class)
    if config.target_class in (data.class_names or ()):
        names = data.class_names or ()
        return torch.full_like(labels, names.index(str(config.target_class)))
    if classes is None:
        raise UsageError("the target does not say how many classes it has; give the target class as a number")
    if config.target_class == "next":
        return (labels + 1) % classes
    if config.target_class == "random":
        draw = uniform(fold(root_keys(config.seed, data.indices), _TARGET_CLASS_STREAM), 1)[:, 0]
        return (labels + 1 + (draw * (classes - 1)).long()) % classes
    raise UsageError(f"target class is {config.target_class!r}, expected a number, a class by name, next or random")


def _in_pool(pool: Pool | None, goals: Tensor) -> bool:
    return pool is not None and all(bool((pool.labels == g).any()) for g in goals)
