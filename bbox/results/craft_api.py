"""The library call of a no-box attack: adversarial motions without a target."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from bbox.data.base import MotionSet
from bbox.results.craft_config import CraftConfig
from bbox.results.craft_folder import ADVERSARIAL, CraftFolder
from bbox.results.craft_run import Report, execute_craft, plan_craft

__all__ = ["CraftResult", "craft"]


@dataclass(frozen=True)
class CraftResult:
    """What a no-box attack made.

    Shapes (n motions, in the order of the data):
        adversarial: (n, 3, frames, joints, bodies); baselines: the same of each.

    Attributes:
        results: the content of ``results.json``.
        folder: the run folder, where one was asked for.
    """

    adversarial: Tensor
    baselines: dict[str, Tensor]
    results: dict[str, Any]
    folder: Path | None


def craft(
    data: MotionSet,
    attack: str = "smi",
    *,
    options: Mapping[str, object] | None = None,
    norm: str = "linf",
    indices: tuple[int, ...] | None = None,
    limit: int | None = None,
    baselines: tuple[str, ...] = (),
    seed: int = 0,
    batch: int = 64,
    device: str | None = None,
    out: str | Path | None = None,
    report: Report | None = None,
) -> CraftResult:
    """Make adversarial motions with no access to any target, its training data, or labels.

    Args:
        data: motions (``bbox.data.load``); the encoder learns from all of them.
        options: of the attack, for example ``{"epsilon": 0.01, "preset": "paper"}``.
        norm: what epsilon bounds, ``"linf"`` or ``"l2"``.
        indices, limit: which motions are attacked.
        baselines: of ``bbox.results.craft_run.ALL_BASELINES``.
        out: a run folder, so that it can be resumed, evaluated (``bbox.evaluate_folder``) and reported.

    Queries: none.

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    config = CraftConfig(
        attack=attack,
        attack_options=dict(options or {}),
        data=data.name,
        limit=limit,
        indices=indices,
        seed=seed,
        norm=norm,
        baselines=tuple(baselines),
        batch=batch,
        device=device,
    )
    plan = plan_craft(config, data)
    with ExitStack() as stack:
        place = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory(prefix="bbox-")))
        folder = CraftFolder.create(place, plan.describe(f"bbox.craft(..., attack={attack!r})"))
        results = execute_craft(plan, folder, report=report)
        chosen = plan.data.indices.tolist()
        return CraftResult(
            adversarial=folder.motions(ADVERSARIAL, chosen),
            baselines={name: folder.motions(name, chosen) for name in plan.config.baselines},
            results=results,
            folder=None if out is None else place,
        )
