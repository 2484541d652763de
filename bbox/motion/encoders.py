"""Motion encoders: modules from a batch of motions to one feature each, and how they are kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.errors import BboxError, InputError, UsageError
from bbox.files import write_whole
from bbox.motion.networks import MotionNetwork, make_network
from bbox.motion.skeleton import Skeleton

__all__ = ["ENCODERS", "MotionEncoder", "features", "load_encoder", "make_encoder", "save_encoder"]

_CONFIG, _WEIGHTS = "encoder.json", "encoder.safetensors"
_SCHEMA_VERSION = 1

ENCODERS: Mapping[str, Mapping[str, str]] = {
    "graph": {"graph": "agcn"},
    "sequence": {"sequence": "gru"},
    "both": {"graph": "agcn", "sequence": "gru"},
}


class MotionEncoder(nn.Module):
    """Features of motions by one network or several, each seen through its ``features``.

    Attributes:
        parts: modules from motions to features, by name. Their features, each l2-normalised where there are several,
            are what ``forward`` joins; ``bbox.motion.objective`` takes the parts apart.

    Shapes:
        motions: (n, 3, frames, joints, bodies) in metres; returns: (n, d).
    """

    def __init__(self, networks: Mapping[str, MotionNetwork]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: _Features(network) for name, network in networks.items()})

    @property
    def networks(self) -> dict[str, MotionNetwork]:
        """The networks of the parts."""
        return {name: cast(_Features, part).network for name, part in self.parts.items()}

    def forward(self, motions: Tensor) -> Tensor:
        found: list[Tensor] = [part(motions) for part in self.parts.values()]
        return found[0] if len(found) == 1 else torch.cat([functional.normalize(f, dim=1) for f in found], 1)


class _Features(nn.Module):
    def __init__(self, network: MotionNetwork) -> None:
        super().__init__()
        network.head = nn.Identity()  # type: ignore[assignment]  # a classifier's; an encoder has none
        self.network = network

    def forward(self, motions: Tensor) -> Tensor:
        return self.network.features(motions)


def make_encoder(
    kind: str, skeleton: Skeleton, *, bodies: int = 1, seed: int = 0, full: bool = False, **options: Mapping[str, Any]
) -> MotionEncoder:
    """A new encoder, with random weights drawn by seed.

    Args:
        kind: ``graph`` (AGCN), ``sequence`` (GRU) or ``both``, as in inter-skeleton contrast (Thoker et al., 2021).
        bodies: as for ``make_network``.
        full: the networks at the width of the papers, instead of the compact ones.
        options: ``graph={...}``, ``sequence={...}``: options of each network.

    Raises:
        UsageError: no such kind, or no such option of a network.
    """
    if kind not in ENCODERS:
        raise UsageError(f"no encoder {kind!r}; expected {', '.join(ENCODERS)}")
    unknown = options.keys() - ENCODERS[kind].keys()
    if unknown:
        raise UsageError(f"encoder {kind} has no part {min(unknown)!r}, it has {', '.join(ENCODERS[kind])}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotionEncoder(
            {
                name: make_network(network, skeleton, 1, bodies=bodies, full=full, **options.get(name, {}))
                for name, network in ENCODERS[kind].items()
            }
        )


def features(encoder: nn.Module, motions: Tensor, *, chunk: int = 128) -> Tensor:
    """Features of many motions with no gradient, in evaluation mode, a chunk at a time.

    Raises:
        InputError: the module gives no (n, d) floats, or values that are not finite.
    """
    was = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            found = torch.cat([encoder(rows) for rows in torch.split(motions, chunk)])
    finally:
        encoder.train(was)
    if found.ndim != 2 or len(found) != len(motions):
        raise InputError(f"the encoder turned {tuple(motions.shape)} into {tuple(found.shape)}, expected (n, features)")
    if not bool(found.isfinite().all()):
        raise InputError("the encoder gives features that are not finite")
    return found


def save_encoder(folder: Path, encoder: MotionEncoder) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json``, which names the networks and the skeleton."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = encoder.networks
    skeleton = next(iter(networks.values())).skeleton
    content = {
        "schema_version": _SCHEMA_VERSION,
        "skeleton": skeleton.to_json(),
        "parts": {n: {"network": w.name, "bodies": w.bodies, "options": w.options} for n, w in networks.items()},
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    write_whole(folder / _WEIGHTS, safetensors.torch.save(weights))
    write_whole(folder / _CONFIG, json.dumps(content, indent=2) + "\n")


def load_encoder(folder: Path, device: str | torch.device | None = None) -> MotionEncoder:
    """The encoder of a folder that ``save_encoder`` wrote, frozen, in evaluation mode.

    Raises:
        InputError: no encoder there, or one that cannot be read.
    """
    try:
        content = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if content["schema_version"] != _SCHEMA_VERSION:
            raise InputError(f"{folder} has schema {content['schema_version']}, this bbox reads {_SCHEMA_VERSION}")
        skeleton = Skeleton.from_json(content["skeleton"])
        with torch.random.fork_rng(devices=[]):
            networks = {
                name: make_network(part["network"], skeleton, 1, bodies=part["bodies"], **part["options"])
                for name, part in content["parts"].items()
            }
        encoder = MotionEncoder(networks)
        # Copies: tensors in a file lie at any address, and torch rounds differently where they are not aligned.
        stored = safetensors.torch.load_file(folder / _WEIGHTS)
        encoder.load_state_dict({name: tensor.clone() for name, tensor in stored.items()})
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no {_CONFIG} with {_WEIGHTS}; give a folder that bbox has written") from error
    except BboxError as error:
        raise InputError(f"{folder}: {error}") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{folder}: the encoder cannot be read: {error}") from error
    except safetensors.SafetensorError as error:
        raise InputError(f"{folder / _WEIGHTS} cannot be read: {error}") from error
    return encoder.to(device).eval().requires_grad_(False)
