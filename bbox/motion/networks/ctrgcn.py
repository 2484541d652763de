"""CTR-GCN: a graph of each channel, refined from the motion, and convolutions over time at several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbox.errors import UsageError
from bbox.motion.networks.base import GraphNetwork, keep, temporal_conv, thin
from bbox.motion.networks.graph import directed_graphs
from bbox.motion.skeleton import Skeleton

__all__ = ["CTRGCN"]

_BRANCHES = 4
_DILATIONS = (1, 2)


class CTRGCN(GraphNetwork):
    """Channel-wise topology refinement graph convolution (Chen et al., ICCV 2021).

    Each channel has a graph of its own: a learned one, which all share, plus a refinement from the differences of
    joints averaged over time (section 3.2). Time is seen through two dilated convolutions, a maximum and a copy.

    Args:
        widths: channels of each block, multiples of 4.
        strides: stride over time of each block.
        kernel: frames that a convolution over time sees, odd.
        reduction: channels of the refinement are the block's inputs divided by this, and 8 in the first block.
        center: the joint towards which the directed graphs point; ``None`` for the skeleton's root.

    Raises:
        UsageError: a width is no multiple of 4.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        classes: int,
        *,
        widths: Sequence[int] = (32, 32, 64),
        strides: Sequence[int] = (1, 2, 2),
        kernel: int = 5,
        reduction: int = 8,
        center: int | None = None,
        bodies: int = 1,
        as_published: bool = False,
    ) -> None:
        if any(width % _BRANCHES for width in widths):
            raise UsageError(f"CTR-GCN has widths {tuple(widths)}, expected multiples of {_BRANCHES}")
        super().__init__(skeleton, classes, widths[-1], bodies=bodies, as_published=as_published)
        graphs = directed_graphs(skeleton, center)
        self.stack(
            widths,
            strides,
            lambda i, o, stride, place: _Block(i, o, graphs, kernel, stride, reduction, residual=place > 0),
        )


class _Block(nn.Module):
    """A refined graph convolution over joints, convolutions over time at several scales, and a way around both."""

    def __init__(
        self, inputs: int, outputs: int, graphs: Tensor, kernel: int, stride: int, reduction: int, *, residual: bool
    ) -> None:
        super().__init__()
        self.stride, self.residual = stride, residual
        self.spatial = _RefinedGraphs(inputs, outputs, graphs, 8 if inputs == 3 else max(inputs // reduction, 1))
        self.spatial_norm = nn.BatchNorm2d(outputs)
        self.spatial_around = _normed(nn.Conv2d(inputs, outputs, 1)) if inputs != outputs else nn.Identity()
        self.temporal = _MultiScale(outputs, kernel, stride)
        around = residual and (inputs != outputs or stride != 1)
        self.around = _normed(nn.Conv2d(inputs, outputs, 1, (stride, 1))) if around else nn.Identity()

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        spatial = torch.relu(self.spatial_norm(self.spatial(hidden, mask)) + self.spatial_around(hidden))
        out = self.temporal(keep(spatial, mask), mask)
        if self.residual:
            out = out + self.around(hidden)
        mask = thin(mask, self.stride)
        return keep(torch.relu(out), mask), mask


class _RefinedGraphs(nn.Module):
    """The sum of three graph convolutions, each with a graph of its own for every channel (equations 4 to 7)."""

    def __init__(self, inputs: int, outputs: int, graphs: Tensor, inner: int) -> None:
        super().__init__()
        count = len(graphs)
        self.graphs = nn.Parameter(graphs.clone())
        self.strength = nn.Parameter(torch.zeros(1))
        # One convolution for the three graphs together, wherever each has its own.
        self.receiver = nn.Conv2d(inputs, count * inner, 1)
        self.giver = nn.Conv2d(inputs, count * inner, 1)
        self.refine = nn.Conv2d(count * inner, count * outputs, 1, groups=count)
        self.values = nn.Conv2d(inputs, count * outputs, 1)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        rows, _, frames, joints = hidden.shape
        count = len(self.graphs)
        # The mean first: convolutions of one frame are linear, so this is theirs, at a frame's cost.
        mean = hidden.mean(2, keepdim=True) if mask is None else hidden.sum(2, keepdim=True) / mask.sum(2, keepdim=True)
        apart = torch.tanh(self.receiver(mean).transpose(2, 3) - self.giver(mean))
        refined = self.refine(apart).view(rows, count, -1, joints, joints) * self.strength
        values = self.values(hidden).view(rows, count, -1, frames, joints)
        return torch.einsum("nkcuv,nkctv->nctu", refined + self.graphs[:, None], values)


class _MultiScale(nn.Module):
    """Two dilated convolutions over time, a maximum over three frames, and a copy, side by side."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride, width = stride, channels // _BRANCHES

        def narrow() -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU())

        self.narrow = nn.ModuleList(narrow() for _ in range(_BRANCHES - 1))
        self.dilated = nn.ModuleList(_normed(temporal_conv(width, width, kernel, stride, d)) for d in _DILATIONS)
        self.maximum = nn.Sequential(nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(width))
        self.copy = _normed(nn.Conv2d(channels, width, 1, (stride, 1)))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        narrow = [keep(branch(hidden), mask) for branch in self.narrow]
        over = (*self.dilated, self.maximum)
        return torch.cat([*(b(h) for b, h in zip(over, narrow, strict=True)), self.copy(hidden)], 1)


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
