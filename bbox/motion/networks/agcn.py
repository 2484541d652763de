"""AGCN and 2s-AGCN: graph convolutions whose graph is learned, and adapts to each motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bbox.motion.networks.base import GraphNetwork, MotionNetwork, keep, temporal_conv, thin
from bbox.motion.networks.graph import directed_graphs
from bbox.motion.skeleton import Skeleton

__all__ = ["AGCN", "TwoStreamAGCN"]


class AGCN(GraphNetwork):
    """One stream of 2s-AGCN (Shi, Zhang, Cheng, Lu, CVPR 2019).

    The graph of each layer is the sum of the body's, a learned one, and one of each motion from the likeness of its
    joints (section 3.2).

    Args:
        widths: channels of each block.
        strides: stride over time of each block.
        kernel: frames that a convolution over time sees, odd.
        reduction: channels of the likeness are the block's divided by this.
        center: the joint towards which the directed graphs point; ``None`` for the skeleton's root.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        classes: int,
        *,
        widths: Sequence[int] = (32, 32, 64),
        strides: Sequence[int] = (1, 2, 2),
        kernel: int = 9,
        reduction: int = 4,
        center: int | None = None,
        bodies: int = 1,
        as_published: bool = False,
    ) -> None:
        super().__init__(skeleton, classes, widths[-1], bodies=bodies, as_published=as_published)
        graphs = directed_graphs(skeleton, center)
        self.stack(
            widths,
            strides,
            lambda i, o, stride, place: _Block(i, o, graphs, kernel, stride, reduction, residual=place > 0),
        )


class TwoStreamAGCN(MotionNetwork):
    """2s-AGCN (Shi et al., CVPR 2019, section 3.4): one AGCN on joints, one on bones, and the sum of their logits.

    Args:
        options: those of each stream (``AGCN``).
    """

    FULL: ClassVar[dict[str, Any]] = AGCN.FULL

    def __init__(self, skeleton: Skeleton, classes: int, *, bodies: int = 1, **options: Any) -> None:
        nn.Module.__init__(self)
        self.joint = AGCN(skeleton, classes, bodies=bodies, **options)
        self.bone = AGCN(skeleton, classes, bodies=bodies, **options)
        self.skeleton, self.classes, self.bodies = skeleton, classes, bodies
        self.width, self.as_published = 2 * self.joint.width, self.joint.as_published
        self.name, self.options = type(self).__name__, {}
        # A root is its own parent: it has a bone of length 0, as in the paper.
        self._parents = [joint if parent == -1 else parent for joint, parent in enumerate(skeleton.parents)]

    def features(self, motions: Tensor) -> Tensor:
        return torch.cat([self.joint.features(motions), self.bone.features(self._bones(motions))], 1)

    def forward(self, motions: Tensor) -> Tensor:
        logits: Tensor = self.joint(motions) + self.bone(self._bones(motions))
        return logits

    def _bones(self, motions: Tensor) -> Tensor:
        return motions - motions[:, :, :, self._parents]


class _Block(nn.Module):
    """An adaptive graph convolution over joints, a convolution over time, and a way around both."""

    graphs: Tensor

    def __init__(
        self, inputs: int, outputs: int, graphs: Tensor, kernel: int, stride: int, reduction: int, *, residual: bool
    ) -> None:
        super().__init__()
        self.stride, self.residual, self.inner = stride, residual, max(outputs // reduction, 1)
        self.register_buffer("graphs", graphs, persistent=False)
        self.learned = nn.Parameter(torch.full_like(graphs, 1e-6))
        count = len(graphs)
        # One convolution for the three graphs together; what they gather is summed by the last one.
        self.query = nn.Conv2d(inputs, count * self.inner, 1)
        self.key = nn.Conv2d(inputs, count * self.inner, 1)
        self.mix = nn.Conv2d(count * inputs, outputs, 1)
        self.spatial_norm = nn.BatchNorm2d(outputs)
        self.spatial_around = _project(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.temporal = nn.Sequential(temporal_conv(outputs, outputs, kernel, stride), nn.BatchNorm2d(outputs))
        around = residual and (inputs != outputs or stride != 1)
        self.around = _project(inputs, outputs, stride) if around else nn.Identity()

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        rows, channels, frames, joints = hidden.shape
        graphs = self.graphs + self.learned + self._likeness(hidden, mask)
        flat = hidden.reshape(rows, 1, channels * frames, joints)
        gathered = (flat @ graphs).view(rows, len(self.graphs) * channels, frames, joints)
        spatial = torch.relu(self.spatial_norm(self.mix(gathered)) + self.spatial_around(hidden))
        out = self.temporal(keep(spatial, mask))
        if self.residual:
            out = out + self.around(hidden)
        mask = thin(mask, self.stride)
        return keep(torch.relu(out), mask), mask

    def _likeness(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax, over the joints that give, of embedded inner products: (rows, graphs, joints, joints)."""
        rows, _, frames, joints = hidden.shape
        shape = (rows, len(self.graphs), self.inner * frames, joints)
        query, key = keep(self.query(hidden), mask).view(shape), self.key(hidden).view(shape)
        length = frames if mask is None else mask.sum(2, keepdim=True)
        return torch.softmax(query.transpose(2, 3) @ key / (self.inner * length), 2)


def _project(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, (stride, 1)), nn.BatchNorm2d(outputs))
