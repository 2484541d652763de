"""What stands in for the victims that a no-box attack may not see: an encoder, learned from unlabelled motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bbox.data.base import MotionSet
from bbox.errors import BboxError, InputError, UsageError
from bbox.motion.encoders import ENCODERS, MotionEncoder, features, load_encoder, make_encoder, save_encoder
from bbox.motion.objective import Objective, PreparedObjective
from bbox.motion.pretraining import Epoch, pretrain
from bbox.motion.recipes import RECIPES
from bbox.targets.frozen import digest
from bbox.targets.torch_factory import load as load_module

__all__ = ["Report", "Surrogate", "check_encoder", "encoder_at_hand", "learn", "surrogate_of"]

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Surrogate:
    """An encoder and what is climbed on it.

    Attributes:
        goal: J of each motion of the data that it was made for, by place.
        facts: what ``results.json`` says of the encoder.
    """

    encoder: nn.Module
    goal: PreparedObjective
    facts: dict[str, Any]


def check_encoder(spec: str, recipe: str) -> None:
    """Refuse an encoder that is none, before anything is computed.

    Raises:
        UsageError: neither a kind, a folder nor ``torch:PACKAGE.MODULE:FACTORY``; or no such recipe.
    """
    if recipe not in RECIPES:
        raise UsageError(f"recipe is {recipe!r}, expected {' or '.join(RECIPES)}")
    if spec not in ENCODERS and not spec.startswith("torch:") and not Path(spec).is_dir():
        raise UsageError(
            f"encoder is {spec!r}, expected {', '.join(ENCODERS)}, a folder that holds one, or "
            "torch:PACKAGE.MODULE:FACTORY, a module from (n, 3, frames, joints, bodies) to features"
        )


def encoder_at_hand(spec: str, data: MotionSet, device: torch.device) -> nn.Module:
    """An encoder that needs no training, tried on one motion.

    Raises:
        UsageError, InputError: there is none, or it cannot take the motions.
    """
    if spec.startswith("torch:"):
        encoder = load_module(spec.removeprefix("torch:"), options={}, trust=False, device=str(device)).module
    else:
        encoder = load_encoder(Path(spec), device)
    try:
        features(encoder, data.inputs[:1].to(device))
    except BboxError:
        raise
    except Exception as error:  # whatever a module of the user's may raise
        shape = tuple(data.inputs.shape[1:])
        raise InputError(f"encoder {spec} fails on motions of shape {shape} of {data.name}: {error}") from error
    return encoder


def learn(
    spec: str,
    data: MotionSet,
    *,
    recipe: str,
    epochs: int,
    device: torch.device,
    seed: int,
    folder: Path | None,
    report: Report,
) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder of this name: one that is at hand, or one that learns now (labels are for its quality figure alone).

    Args:
        folder: where it is kept, and where a checkpoint of its training lies; a killed run goes on there.
    """
    if spec not in ENCODERS:
        encoder = encoder_at_hand(spec, data, device)
        return encoder, {"encoder": spec, "fingerprint": digest(encoder)}
    chosen = RECIPES[recipe] if epochs == 0 else replace(RECIPES[recipe], epochs=epochs, steps=0)
    bodies = data.inputs.shape[4]
    # Inter-skeleton contrast is between a graph and a sequence encoder: both learn, and the one asked for is kept.
    kind = "both" if chosen.objective == "contrast" else spec
    made = make_encoder(kind, data.skeleton, bodies=bodies if bodies > 1 else 1, seed=seed, full=recipe == "paper")

    def progress(epoch: Epoch) -> None:
        report(f"encoder: loss {epoch.loss:.3f}, {epoch.seconds_left:.0f} s left, epoch", epoch.done, epoch.total)

    report("encoder: epoch", 0, chosen.epochs)
    found = pretrain(
        made,
        data.inputs.to(device),
        chosen,
        seed=seed,
        labels=None if data.labels is None else data.labels.to(device),
        folder=folder,
        progress=progress,
    )
    encoder = found.encoder if kind == spec else MotionEncoder({spec: found.encoder.networks[spec]})
    if folder is not None:
        save_encoder(folder, encoder)
    facts = {
        "encoder": spec,
        "recipe": asdict(chosen),
        "motions": len(data),
        "before": asdict(found.before),
        "after": asdict(found.after),
        "losses": list(found.losses),
        "kept": found.kept,
        "warning": found.warning,
        "fingerprint": digest(encoder),
    }
    return encoder.eval(), facts


def surrogate_of(
    encoder: nn.Module, facts: dict[str, Any], data: MotionSet, objective: Objective, *, device: torch.device, seed: int
) -> Surrogate:
    """The encoder with the objective of this data's motions."""
    return Surrogate(encoder, objective.prepare(encoder, data.inputs.to(device), seed=seed), facts)
