"""A network as one safetensors file: its weights, and in the header what it takes to build it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bbox.errors import BboxError, InputError
from bbox.files import write_whole
from bbox.motion.networks.base import MotionNetwork
from bbox.motion.skeleton import Skeleton

__all__ = ["load_network", "save_network"]

_KEY = "bbox.motion.network"


def save_network(network: MotionNetwork, path: Path, *, half: bool = False) -> None:
    """Write a network that ``make_network`` made.

    Args:
        half: store floats in 16 bits.
    """
    state = {name: _stored(tensor, half) for name, tensor in network.state_dict().items()}
    skeleton = network.skeleton
    header = {
        "name": network.name,
        "classes": network.classes,
        "bodies": network.bodies,
        "options": network.options,
        "skeleton": [skeleton.name, skeleton.joints, skeleton.parents, skeleton.sides],
    }
    write_whole(path, save(state, {_KEY: json.dumps(header)}))


def load_network(path: Path) -> MotionNetwork:
    """The network of a file, in evaluation mode, on the CPU; the caller's random state stays as it was.

    Raises:
        InputError: the file is missing, or not one that ``save_network`` wrote.
    """
    from bbox.motion.networks import make_network

    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        name, joints, parents, sides = header["skeleton"]
        skeleton = Skeleton(name, tuple(joints), tuple(parents), tuple((left, right) for left, right in sides))
        with torch.random.fork_rng(devices=[]):
            network = make_network(
                header["name"], skeleton, header["classes"], bodies=header["bodies"], **header["options"]
            )
        network.load_state_dict({k: t.float() if t.is_floating_point() else t for k, t in state.items()})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, BboxError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"motion network {path}: not a file that bbox wrote ({reason})") from error
    return network.eval()


def _stored(tensor: Tensor, half: bool) -> Tensor:
    return tensor.half() if half and tensor.is_floating_point() else tensor.contiguous()
