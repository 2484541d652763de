"""The graphs that graph convolutions run on: who is a joint's neighbour, and which are nearer to the body's centre."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.motion.skeleton import Skeleton

__all__ = ["directed_graphs", "hops", "spatial_graphs"]


def hops(skeleton: Skeleton, center: int | None = None) -> Tensor:
    """Number of bones between each joint and the centre: (joints,) int64.

    Args:
        center: a joint; ``None`` for the root of the joint's tree. A joint that no bone ties to the centre counts from
            its own root.
    """
    parents = skeleton.parents
    depth = [0] * len(skeleton)
    for joint in range(len(skeleton)):
        parent = parents[joint]
        while parent != -1:
            depth[joint] += 1
            parent = parents[parent]
    if center is not None:
        found, frontier = {center: 0}, [center]
        while frontier:
            joint = frontier.pop()
            for a, b in skeleton.bones:
                if joint in (a, b) and (other := b if joint == a else a) not in found:
                    found[other] = found[joint] + 1
                    frontier.append(other)
        depth = [found.get(joint, depth[joint]) for joint in range(len(skeleton))]
    return torch.tensor(depth)


def spatial_graphs(skeleton: Skeleton, center: int | None = None) -> Tensor:
    """The spatial partition of ST-GCN (Yan et al., AAAI 2018, section 3.3), divided by the degree of the receiver.

    Shapes:
        returns: (3, joints, joints), from row to column: the joint itself, neighbours farther from the centre than
            it, and neighbours nearer to it.

    Example:
        >>> spatial_graphs(Skeleton("arm", ("shoulder", "elbow", "wrist"), (-1, 0, 1)))[1].mul(6).round()
        tensor([[0., 0., 0.],
                [3., 0., 0.],
                [0., 2., 0.]])
    """
    itself, farther, nearer = _parts(skeleton, center)
    return torch.stack([itself, farther, nearer]) / (itself + farther + nearer).sum(0)


def directed_graphs(skeleton: Skeleton, center: int | None = None) -> Tensor:
    """The three graphs of 2s-AGCN (Shi et al., CVPR 2019) and CTR-GCN, each divided by the degree in that graph.

    Shapes:
        returns: (3, joints, joints), from row to column: the joint itself, neighbours nearer to the centre, and
            neighbours farther from it.
    """
    itself, farther, nearer = _parts(skeleton, center)
    graphs = torch.stack([itself, nearer, farther])
    return graphs / graphs.sum(1, keepdim=True).clamp(min=1)


def _parts(skeleton: Skeleton, center: int | None) -> tuple[Tensor, Tensor, Tensor]:
    count, away = len(skeleton), hops(skeleton, center)
    joined = torch.zeros(count, count)
    for joint, parent in skeleton.bones:
        joined[joint, parent] = joined[parent, joint] = 1.0
    return torch.eye(count), joined * (away[:, None] > away), joined * (away[:, None] < away)
