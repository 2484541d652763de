"""From a ``Config`` to a ``Plan``, and what ``run.json`` says of it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bbox import __version__, data, targets
from bbox.attacks import make_attack
from bbox.attacks.base import Attack
from bbox.calibrate import usable_cores
from bbox.data.base import Examples, MotionSet
from bbox.errors import InputError
from bbox.results.craft_folder import ADVERSARIAL, CraftFolder
from bbox.results.fits import only_images
from bbox.results.plain_folder import kind_of
from bbox.results.plan import Plan, prepare
from bbox.results.records import SCHEMA_VERSION, Config
from bbox.results.store import RunFolder
from bbox.targets.account import Terms, on_account
from bbox.targets.base import Target

__all__ = ["check_same", "describe_data", "describe_machine", "describe_run", "load_plan", "load_target"]

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "foolbox")


def load_plan(config: Config, *, used_requests: int = 0) -> Plan:
    """Load target, data and attack, and check that they fit.

    Args:
        used_requests: requests of the run's limit that earlier sessions have reserved.

    Raises:
        UsageError, InputError: see ``bbox.targets.load``, ``bbox.data.load``, ``bbox.results.run.prepare``.
    """
    attack = make_attack(config.attack, config.attack_options)
    images = data.load(
        config.data, size=config.image_size, labels=None if config.labels is None else Path(config.labels)
    )
    starts: Tensor | None = None
    if config.start_from is not None:
        starts = _starts(config, images)
    return prepare(config, attack, load_target(config), images, starts=starts, used_requests=used_requests)


class _TargetConfig(Protocol):
    """Options that name a target and say how long a live one is waited for."""

    @property
    def target(self) -> str: ...
    @property
    def target_options(self) -> dict[str, Any]: ...
    @property
    def trust(self) -> bool: ...
    @property
    def device(self) -> str | None: ...
    def terms(self) -> Terms: ...


def load_target(config: _TargetConfig) -> Target:
    """The target that a run asks; a live one is waited for as long as the run's patience says.

    Raises:
        UsageError, InputError, TargetError: see ``bbox.targets.load``.
    """
    with on_account(config.terms()):
        return targets.load(config.target, options=config.target_options, trust=config.trust, device=config.device)


def _starts(config: Config, examples: Examples) -> Tensor:
    path = Path(config.start_from or "")
    if kind_of(path) == CraftFolder.kind:
        return _crafted(CraftFolder.open(path), examples.select(limit=config.limit, indices=config.indices))
    if path.is_file() and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
        return data.read_image(path)[None]
    found = data.load(str(config.start_from), size=config.image_size)
    starts: Tensor = found.inputs if isinstance(examples, MotionSet) else only_images(found).inputs
    return starts


def _crafted(folder: CraftFolder, examples: Examples) -> Tensor:
    """The motions of a no-box run, to start from; the original where it has none."""
    starts: Tensor = examples.inputs.clone()
    places = [place for place, index in enumerate(examples.indices.tolist()) if folder.has(ADVERSARIAL, index)]
    if not places:
        raise InputError(f"{folder.path} has no adversarial motion of the examples that are attacked")
    chosen = examples.indices[places].tolist()
    if not torch.equal(folder.motions("originals", chosen), examples.inputs[places]):
        raise InputError(f"{folder.path} holds other motions than {examples.name}; start from a run on the same data")
    starts[places] = folder.motions(ADVERSARIAL, chosen)
    return starts


def describe_run(plan: Plan, command: str) -> dict[str, Any]:
    """The content of ``run.json``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "config": plan.config.to_json(),
        "target": _target(plan),
        **_attack(getattr(plan, "attack", None)),
        "data": describe_data(plan.data),
        **describe_machine(plan.oracle.device),
    }


def describe_data(examples: Examples) -> dict[str, Any]:
    """What ``run.json`` says of the data."""
    described: dict[str, Any] = {
        "name": examples.name,
        "kind": examples.kind,
        "fingerprint": examples.fingerprint(),
        "examples": len(examples),
        "shape": list(examples.inputs.shape[1:]),
        "class_names": None if examples.class_names is None else list(examples.class_names),
    }
    if isinstance(examples, MotionSet):
        described |= {"skeleton": examples.skeleton.to_json(), "frame_rate": examples.frame_rate}
    return described


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What ``run.json`` says of versions and hardware."""
    return {
        "versions": {
            "bbox": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": usable_cores(),
            "device": _device_name(device),
        },
    }


def check_same(plan: Plan, folder: RunFolder) -> None:
    """Refuse to go on with another target or other data than the run began with.

    Raises:
        InputError: a fingerprint differs.
    """
    run = folder.run()
    if run["target"]["fingerprint"] != plan.oracle.fingerprint:
        raise InputError(f"{plan.config.target} has changed since {folder.path} began; start a new run")
    if run["data"]["fingerprint"] != plan.data.fingerprint():
        raise InputError(f"{plan.config.data} has changed since {folder.path} began; start a new run")


def _target(plan: Plan) -> dict[str, Any]:
    target = plan.oracle.target
    return {
        "name": target.name,
        "fingerprint": plan.oracle.fingerprint,
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
