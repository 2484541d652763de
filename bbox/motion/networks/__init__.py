"""Classifiers of skeleton motion, compact by default: victims to attack, and encoders to attack with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bbox.errors import UsageError
from bbox.motion.networks.agcn import AGCN, TwoStreamAGCN
from bbox.motion.networks.base import MotionNetwork
from bbox.motion.networks.ctrgcn import CTRGCN
from bbox.motion.networks.files import load_network, save_network
from bbox.motion.networks.gru import MotionGRU
from bbox.motion.networks.hcn import HCN
from bbox.motion.networks.stgcn import STGCN
from bbox.motion.networks.transformer import MotionTransformer
from bbox.motion.skeleton import Skeleton
from bbox.registry import check_options, did_you_mean

__all__ = [
    "AGCN",
    "CTRGCN",
    "HCN",
    "NETWORKS",
    "STGCN",
    "MotionGRU",
    "MotionNetwork",
    "MotionTransformer",
    "TwoStreamAGCN",
    "load_network",
    "make_network",
    "save_network",
]

NETWORKS: Mapping[str, type[MotionNetwork]] = MappingProxyType(
    {
        "st-gcn": STGCN,
        "agcn": AGCN,
        "2s-agcn": TwoStreamAGCN,
        "ctr-gcn": CTRGCN,
        "gru": MotionGRU,
        "hcn": HCN,
        "transformer": MotionTransformer,
    }
)


def make_network(
    name: str, skeleton: Skeleton, classes: int, *, bodies: int = 1, full: bool = False, **options: Any
) -> MotionNetwork:
    """A new network, with random weights.

    Args:
        name: one of ``NETWORKS``.
        bodies: 1 for any number of bodies that share one normalisation, more for one for each body's place.
        full: the width and depth of the paper, instead of the compact ones.
        options: of the class, over either.

    Raises:
        UsageError: no such network, or no such option of it.

    Example:
        >>> import torch
        >>> arm = Skeleton("arm", ("shoulder", "elbow", "wrist"), (-1, 0, 1))
        >>> network = make_network("st-gcn", arm, 4, widths=(8, 16), strides=(1, 2))
        >>> network(torch.randn(2, 3, 20, 3, 1)).shape
        torch.Size([2, 4])
    """
    if name not in NETWORKS:
        raise UsageError(f"no network {name!r}{did_you_mean(name, NETWORKS)}; bbox has {', '.join(NETWORKS)}")
    kind = NETWORKS[name]
    # The two streams take the options of one.
    known = inspect.signature(AGCN if kind is TwoStreamAGCN else kind).parameters
    check_options(f"network {name}", options, [o for o in known if o not in ("skeleton", "classes", "bodies")])
    chosen = {**kind.FULL, **options} if full else options
    network = kind(skeleton, classes, bodies=bodies, **chosen)
    network.name, network.options = name, chosen
    return network
