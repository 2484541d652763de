"""Checkpoints of the authors' public code (yysijie/st-gcn, lshiwjx/2s-AGCN, Uason-Chen/CTR-GCN), into our modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox.errors import InputError, UsageError
from bbox.motion.networks.agcn import TwoStreamAGCN
from bbox.motion.networks.base import MotionNetwork
from bbox.motion.skeleton import Skeleton
from bbox.motion.skeletons import skeleton_for

__all__ = ["PUBLIC", "load_public", "load_public_two_stream"]

_NORM = (r"^data_bn\.", "norm.")
_UNIT = (
    _NORM,
    (r"^fc\.", "head."),
    (r"^l(\d+)\.", lambda found: f"blocks.{int(found[1]) - 1}."),
    (r"residual\.conv\.", "around.0."),
    (r"residual\.bn\.", "around.1."),
    (r"gcn1\.bn\.", "spatial_norm."),
    (r"gcn1\.down\.", "spatial_around."),
)
# Their names, piece by piece, and ours. Names that become one are joined in the order of their numbers.
PUBLIC: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "st-gcn": (
        _NORM,
        (r"^fcn\.", "head."),
        (r"^edge_importance\.(\d+)", r"blocks.\1.importance"),
        (r"^st_gcn_networks\.", "blocks."),
        (r"gcn\.conv\.", "spatial."),
        (r"tcn\.0\.", "spatial_norm."),
        (r"tcn\.2\.", "temporal.0."),
        (r"tcn\.3\.", "temporal.1."),
        (r"residual\.", "around."),
    ),
    "agcn": (
        *_UNIT,
        (r"gcn1\.PA", "learned"),
        (r"gcn1\.conv_a\.\d+", "query"),
        (r"gcn1\.conv_b\.\d+", "key"),
        (r"gcn1\.conv_d\.\d+", "mix"),
        (r"tcn1\.conv\.", "temporal.0."),
        (r"tcn1\.bn\.", "temporal.1."),
    ),
    "ctr-gcn": (
        *_UNIT,
        (r"gcn1\.PA", "spatial.graphs"),
        (r"gcn1\.alpha", "spatial.strength"),
        (r"gcn1\.convs\.\d+\.conv1", "spatial.receiver"),
        (r"gcn1\.convs\.\d+\.conv2", "spatial.giver"),
        (r"gcn1\.convs\.\d+\.conv3", "spatial.values"),
        (r"gcn1\.convs\.\d+\.conv4", "spatial.refine"),
        (r"tcn1\.branches\.([012])\.([01])\.", r"temporal.narrow.\1.\2."),
        (r"tcn1\.branches\.([01])\.3\.conv\.", r"temporal.dilated.\1.0."),
        (r"tcn1\.branches\.([01])\.3\.bn\.", r"temporal.dilated.\1.1."),
        (r"tcn1\.branches\.2\.4\.", "temporal.maximum.1."),
        (r"tcn1\.branches\.3\.", "temporal.copy."),
    ),
}


def load_public(path: Path, name: str, *, skeleton: Skeleton | None = None) -> MotionNetwork:
    """A network at the paper's size with weights from the authors' code, in evaluation mode.

    Padding and absent bodies count as in that code (``as_published``). Classes, joints and bodies are read off the
    weights. Their outputs and ours agree to 1e-4 of their size on random weights and NTU-sized motion; their trained
    files were not at hand.

    Args:
        path: a state dict, .safetensors, or a torch file (read with ``weights_only=True``).
        name: ``st-gcn``, ``agcn`` (one stream of 2s-AGCN) or ``ctr-gcn``.
        skeleton: the bone graph; ``None`` for the known one with that number of joints. Its root is the graph's centre.

    Raises:
        UsageError: no such network.
        InputError: the file is unreadable, or holds other weights.
    """
    from bbox.motion.networks import make_network

    if name not in PUBLIC:
        raise UsageError(f"no key map for network {name!r}, there is one for {', '.join(PUBLIC)}")
    state = _renamed(_read(path), PUBLIC[name])
    if not {"norm.weight", "head.weight"} <= state.keys():
        raise InputError(f"weights {path}: not those of the public {name}, which has data_bn and a last layer")
    bodies = 1 if name == "st-gcn" else 2
    state["head.weight"] = state["head.weight"].flatten(1)
    skeleton = skeleton or skeleton_for(len(state["norm.weight"]) // (3 * bodies))
    network = make_network(name, skeleton, len(state["head.weight"]), bodies=bodies, full=True, as_published=True)
    own = network.state_dict()
    for key, tensor in own.items():
        if not key.endswith("num_batches_tracked") and (key not in state or state[key].shape != tensor.shape):
            there = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise InputError(f"weights {path}: do not fit {name}: {key} {there}, expected {tuple(tensor.shape)}")
    network.load_state_dict({key: state.get(key, tensor) for key, tensor in own.items()})
    if "A" in state:
        # The public ST-GCN knows distances of one bone only: beyond that all neighbours fall in one part.
        for block in network.get_submodule("blocks").children():
            block.get_buffer("graphs").copy_(state["A"])
    return network.eval()


def load_public_two_stream(joint: Path, bone: Path, *, skeleton: Skeleton | None = None) -> TwoStreamAGCN:
    """2s-AGCN from the checkpoints of its two streams; see ``load_public``."""
    streams = [load_public(path, "agcn", skeleton=skeleton) for path in (joint, bone)]
    first, options = streams[0], streams[0].options
    network = TwoStreamAGCN(first.skeleton, first.classes, bodies=first.bodies, **options)
    network.name, network.options = "2s-agcn", options
    network.joint.load_state_dict(streams[0].state_dict())
    network.bone.load_state_dict(streams[1].state_dict())
    return network.eval()


def _renamed(state: Mapping[str, Tensor], names: tuple[tuple[str, Any], ...]) -> dict[str, Tensor]:
    pieces: dict[str, list[Tensor]] = {}
    for key in sorted(state):
        name = key.removeprefix("module.")
        for pattern, ours in names:
            name = re.sub(pattern, ours, name)
        pieces.setdefault(name, []).append(state[key])
    return {name: _joined(name, parts) for name, parts in pieces.items()}


def _joined(name: str, parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    if ".mix." in name:  # it sums over the graphs
        return torch.cat(parts, 1) if name.endswith("weight") else torch.stack(parts).sum(0)
    return torch.cat(parts)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: object = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"weights {path}: not a readable .safetensors or state-dict file ({reason})") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise InputError(f"weights {path}: holds no tensors by name; save model.state_dict()")
    return loaded
