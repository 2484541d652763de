"""bbox's attacks inside existing foolbox code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bbox.attacks.base import Attack
from bbox.batch import images
from bbox.engine import drive, make_jobs
from bbox.errors import UsageError
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.targets.foolbox_model import FoolboxTarget
from bbox.zo import root_keys

__all__ = ["as_foolbox"]


def as_foolbox(
    attack: str | Attack, *, budget: int = 1000, seed: int = 0, options: Mapping[str, object] | None = None
) -> Any:
    """A bbox attack as a ``foolbox.attacks`` minimisation attack (l2), with a hard budget an image.

    An image for which nothing is found comes back unchanged, as foolbox does. After a call, ``attack.queries`` holds
    the queries of each image; foolbox itself asks the model once more for each epsilon.

    Args:
        attack: a name of ``bbox.attacks.ATTACKS`` or an attack.
        budget: queries an image.
        options: the attack's options, where it is given by name.

    Example:
        >>> attack = as_foolbox("cgba", budget=500)
        >>> # raw, clipped, success = attack(fmodel, images, labels, epsilons=[1.0, 2.0])
    """
    from foolbox.attacks.base import MinimizationAttack, get_criterion, raise_if_kwargs
    from foolbox.distances import l2

    from bbox.attacks import make_attack

    made = make_attack(attack, options) if isinstance(attack, str) else attack

    class _BboxAttack(MinimizationAttack):  # type: ignore[misc]
        distance = l2

        def __init__(self) -> None:
            self.attack, self.budget, self.seed = made, budget, seed
            self.queries = torch.empty(0, dtype=torch.int64)

        def run(
            self,
            model: Any,
            inputs: Any,
            criterion: Any,
            *,
            early_stop: float | None = None,
            starting_points: Any = None,
            **kwargs: Any,
        ) -> Any:
            raise_if_kwargs(kwargs)
            target = FoolboxTarget(model, name="foolbox model")
            low, span = target.low, target.high - target.low

            def rows(given: Any) -> torch.Tensor:
                raw = given.raw if hasattr(given, "raw") else given
                if not isinstance(raw, torch.Tensor):
                    raise UsageError("bbox attacks take torch tensors; give foolbox a PyTorchModel")
                return ((raw.detach().float() - low) / span).clamp(0, 1)

            originals = rows(inputs)
            oracle = Oracle(target)
            jobs = make_jobs(
                originals,
                _goal(get_criterion(criterion)),
                root_keys(self.seed, torch.arange(len(originals))),
                self.budget,
                device=target.device,
                starts=None if starting_points is None else rows(starting_points),
                stop_at=None if not early_stop else early_stop / span,
            )
            best = originals.clone()
            self.queries = torch.zeros(len(originals), dtype=torch.int64)
            for job in drive(self.attack, oracle, jobs):
                best[job.examples.to(best.device)] = images(job.accounts.best).to(best.device)
                self.queries[job.examples] = job.accounts.spent
            found = best * span + low
            return type(inputs)(found) if hasattr(inputs, "raw") else found

    return _BboxAttack()


def _goal(criterion: Any) -> Goal:
    """The bbox goal of a foolbox criterion."""
    for name, targeted in (("labels", False), ("target_classes", True)):
        labels = getattr(criterion, name, None)
        if labels is not None:
            return Goal(torch.as_tensor(labels.raw).to("cpu", torch.int64), targeted)
    raise UsageError(f"{type(criterion).__name__} is neither Misclassification nor TargetedMisclassification")
