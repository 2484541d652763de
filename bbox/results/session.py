"""From a ``Config`` to a ``Plan``, and what ``run.json`` says of it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox import __version__, data, targets
from bbox.attacks import make_attack
from bbox.attacks.base import Attack
from bbox.calibrate import usable_cores
from bbox.errors import InputError
from bbox.results.fits import only_images
from bbox.results.records import SCHEMA_VERSION, Config
from bbox.results.run import Plan, prepare
from bbox.results.store import RunFolder

__all__ = ["check_same", "describe_run", "load_plan"]

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "foolbox")


def load_plan(config: Config) -> Plan:
    """Load target, data and attack, and check that they fit.

    Raises:
        UsageError, InputError: see ``bbox.targets.load``, ``bbox.data.load``, ``bbox.results.run.prepare``.
    """
    attack = make_attack(config.attack, config.attack_options)
    images = data.load(
        config.data, size=config.image_size, labels=None if config.labels is None else Path(config.labels)
    )
    starts: Tensor | None = None
    if config.start_from is not None:
        starts = _starts(config)
    target = targets.load(config.target, options=config.target_options, trust=config.trust, device=config.device)
    return prepare(config, attack, target, images, starts=starts)


def _starts(config: Config) -> Tensor:
    path = Path(config.start_from or "")
    if path.is_file() and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
        return data.read_image(path)[None]
    starts: Tensor = only_images(data.load(str(config.start_from), size=config.image_size)).inputs
    return starts


def describe_run(plan: Plan, command: str) -> dict[str, Any]:
    """The content of ``run.json``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "config": plan.config.to_json(),
        "target": _target(plan),
        **_attack(getattr(plan, "attack", None)),
        "data": {
            "name": plan.data.name,
            "kind": plan.data.kind,
            "fingerprint": plan.data.fingerprint(),
            "examples": len(plan.data),
            "shape": list(plan.data.inputs.shape[1:]),
            "class_names": None if plan.data.class_names is None else list(plan.data.class_names),
        },
        "versions": {
            "bbox": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": usable_cores(),
            "device": _device_name(plan.oracle.device),
        },
    }


def check_same(plan: Plan, folder: RunFolder) -> None:
    """Refuse to go on with another target or other data than the run began with.

    Raises:
        InputError: a fingerprint differs.
    """
    run = folder.run()
    if run["target"]["fingerprint"] != plan.oracle.target.fingerprint():
        raise InputError(f"{plan.config.target} has changed since {folder.path} began; start a new run")
    if run["data"]["fingerprint"] != plan.data.fingerprint():
        raise InputError(f"{plan.config.data} has changed since {folder.path} began; start a new run")


def _target(plan: Plan) -> dict[str, Any]:
    target = plan.oracle.target
    return {
        "name": target.name,
        "fingerprint": target.fingerprint(),
        "access": target.access,
        "input_shape": None if target.input_shape is None else list(target.input_shape),
        "num_classes": target.num_classes,
    }


def _attack(attack: Attack | None) -> dict[str, Any]:
    """What the figures need to know of the attack; nothing for runs of other commands, which have none."""
    if attack is None:
        return {}
    return {"attack": {"takes": attack.takes, "functions": bool(getattr(attack, "functions", False))}}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
