"""HCN: a plain convolutional network in which all joints become channels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.motion.networks.base import MotionNetwork, keep, temporal_conv
from bbox.motion.skeleton import Skeleton

__all__ = ["HCN"]


class HCN(MotionNetwork):
    """Hierarchical co-occurrence network (Li, Zhong, Xie, Pu, IJCAI 2018).

    Two streams, of positions and of their differences from frame to frame: each joint's axes are mixed first, then
    all joints at once (section 3.2). Here the last convolution is averaged over time, where the paper has a layer for
    a fixed number of frames, and bodies are averaged, where it takes their maximum.

    Args:
        point: channels of a joint alone.
        across: channels of a joint over three frames, which lie along an axis of the picture afterwards.
        widths: channels of the four convolutions over all joints; the first two are in both streams.
        dropout: probability of dropping a value after the last four layers.
    """

    FULL: ClassVar[dict[str, Any]] = {"point": 64, "across": 32, "widths": (32, 64, 128, 256), "dropout": 0.5}

    def __init__(
        self,
        skeleton: Skeleton,
        classes: int,
        *,
        point: int = 32,
        across: int = 16,
        widths: tuple[int, int, int, int] = (32, 32, 64, 64),
        dropout: float = 0.0,
        bodies: int = 1,
        as_published: bool = False,
    ) -> None:
        super().__init__(skeleton, classes, widths[-1], bodies=bodies, as_published=as_published)
        first, second, third, fourth = widths
        self.streams = nn.ModuleList(_Stream(len(skeleton), point, across, first, second, dropout) for _ in range(2))
        self.third = nn.Conv2d(2 * second, third, 3, padding=1)
        self.fourth = nn.Conv2d(third, fourth, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(fourth * -(-across // 16), fourth)  # four maxima over pairs leave a sixteenth

    def body_features(self, motions: Tensor, mask: Tensor | None) -> Tensor:
        moved = functional.pad(motions.diff(dim=2), (0, 0, 0, 1))
        if mask is not None:  # nobody moves from the last frame into the padding
            moved = moved * functional.pad(mask[:, :, 1:], (0, 0, 0, 1))
        (place, shorter), (change, _) = (s(x, mask) for s, x in zip(self.streams, (motions, moved), strict=True))
        hidden, mask = _halve(self.third(torch.cat([place, change], 1)), shorter)
        hidden, mask = _halve(self.fourth(self.dropout(hidden)), mask)
        hidden = self.dropout(hidden)
        mean = hidden.mean(2) if mask is None else hidden.sum(2) / mask.sum(2)
        features: Tensor = self.dropout(torch.relu(self.last(mean.flatten(1))))
        return features


class _Stream(nn.Module):
    """Each joint alone, then over three frames, then all joints as the channels of a picture of frames by channels."""

    def __init__(self, joints: int, point: int, across: int, first: int, second: int, dropout: float) -> None:
        super().__init__()
        self.point = nn.Conv2d(3, point, 1)
        self.frames = temporal_conv(point, across, 3)
        self.first = nn.Conv2d(joints, first, 3, padding=1)
        self.second = nn.Conv2d(first, second, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, motions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        points = self.frames(keep(torch.relu(self.point(motions)), mask))
        hidden, mask = _halve(self.first(keep(points, mask).permute(0, 3, 2, 1)), mask)
        hidden, mask = _halve(self.second(hidden), mask)
        return self.dropout(hidden), mask


def _halve(hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The greatest positive value of each 2x2 patch, and which of the pairs of frames have one that counts."""
    # Values are 0 or more, so that padding, which is 0, wins over none.
    halved = functional.max_pool2d(keep(torch.relu(hidden), mask), 2, ceil_mode=True)
    return halved, None if mask is None else functional.max_pool2d(mask, (2, 1), ceil_mode=True)
