"""ST-GCN: graph convolution over joints, plain convolution over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bbox.motion.networks.base import GraphNetwork, keep, temporal_conv, thin
from bbox.motion.networks.graph import spatial_graphs
from bbox.motion.skeleton import Skeleton

__all__ = ["STGCN"]


class STGCN(GraphNetwork):
    """Spatial temporal graph convolutional network (Yan, Xiong, Lin, AAAI 2018).

    Spatial partition of the neighbours (section 3.3), and a learned importance of each edge in each layer (3.4).

    Args:
        widths: channels of each block.
        strides: stride over time of each block.
        kernel: frames that a convolution over time sees, odd.
        dropout: probability of dropping a value after each convolution over time but the first.
        center: the joint that the partition measures from; ``None`` for the skeleton's root.
    """

    FULL: ClassVar[dict[str, Any]] = {**GraphNetwork.FULL, "dropout": 0.5}

    def __init__(
        self,
        skeleton: Skeleton,
        classes: int,
        *,
        widths: Sequence[int] = (32, 32, 64),
        strides: Sequence[int] = (1, 2, 2),
        kernel: int = 9,
        dropout: float = 0.0,
        center: int | None = None,
        bodies: int = 1,
        as_published: bool = False,
    ) -> None:
        super().__init__(skeleton, classes, widths[-1], bodies=bodies, as_published=as_published)
        graphs = spatial_graphs(skeleton, center)
        self.stack(
            widths,
            strides,
            lambda i, o, stride, place: _Block(
                i, o, graphs, kernel, stride, dropout if place else 0.0, residual=place > 0
            ),
        )


class _Block(nn.Module):
    """A graph convolution over joints, a convolution over time, and a way around both."""

    graphs: Tensor

    def __init__(
        self, inputs: int, outputs: int, graphs: Tensor, kernel: int, stride: int, dropout: float, *, residual: bool
    ) -> None:
        super().__init__()
        self.stride, self.residual = stride, residual
        self.register_buffer("graphs", graphs, persistent=False)
        self.importance = nn.Parameter(torch.ones_like(graphs))
        self.spatial = nn.Conv2d(inputs, len(graphs) * outputs, 1)
        self.spatial_norm = nn.BatchNorm2d(outputs)
        self.temporal = nn.Sequential(
            temporal_conv(outputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.Dropout(dropout)
        )
        self.around = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, (stride, 1)), nn.BatchNorm2d(outputs))
            if residual and (inputs != outputs or stride != 1)
            else nn.Identity()
        )

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        rows, _, frames, joints = hidden.shape
        weights = self.graphs * self.importance
        messages = self.spatial(hidden).view(rows, len(weights), -1, frames, joints)
        gathered = torch.einsum("nkctv,kvw->nctw", messages, weights)
        out = self.temporal(keep(torch.relu(self.spatial_norm(gathered)), mask))
        if self.residual:
            out = out + self.around(hidden)
        mask = thin(mask, self.stride)
        return keep(torch.relu(out), mask), mask
