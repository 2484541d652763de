"""A bidirectional GRU over frames."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bbox.motion.networks.base import MotionNetwork, mean_pool
from bbox.motion.skeleton import Skeleton

__all__ = ["MotionGRU"]


class MotionGRU(MotionNetwork):
    """Bidirectional gated recurrent units over the frames, and the mean of their states over time.

    Args:
        hidden: units of each direction.
        layers: how many are stacked.
        dropout: probability of dropping a state between the layers.
    """

    # The sequence encoder of Thoker, Doughty, Snoek, ACM MM 2021.
    FULL: ClassVar[dict[str, Any]] = {"hidden": 1024, "layers": 3}

    def __init__(
        self,
        skeleton: Skeleton,
        classes: int,
        *,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        bodies: int = 1,
        as_published: bool = False,
    ) -> None:
        super().__init__(skeleton, classes, 2 * hidden, bodies=bodies, as_published=as_published)
        self.recurrent = nn.GRU(
            3 * len(skeleton), hidden, layers, batch_first=True, dropout=dropout, bidirectional=True
        )

    def body_features(self, motions: Tensor, mask: Tensor | None) -> Tensor:
        frames = motions.transpose(1, 2).flatten(2)
        if mask is None:
            states: Tensor = self.recurrent(frames)[0]
            return states.mean(1)
        # Packed, so that the backward direction starts at the last frame that is there, not in the padding.
        there = mask[:, 0, :, 0] > 0
        steps = torch.arange(1, there.shape[1] + 1, device=there.device)
        ends = (there * steps).amax(1).cpu()
        packed = pack_padded_sequence(frames, ends, batch_first=True, enforce_sorted=False)
        states = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=frames.shape[1])[0]
        return mean_pool(states.transpose(1, 2).unsqueeze(3), mask)
