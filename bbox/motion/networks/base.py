"""What every motion classifier here shares: normalisation, one body at a time, the mean over those that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from bbox.errors import UsageError
from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton

__all__ = ["GraphNetwork", "MotionNetwork", "keep", "mean_pool", "temporal_conv", "thin"]


class MotionNetwork(nn.Module):
    """A classifier of skeleton motion; a subclass writes ``body_features`` for one body.

    The input is normalised inside, as in ST-GCN (Yan et al., AAAI 2018): batch normalisation of each axis of each
    joint. It is not centred: motions come centred from their reader. Absent bodies are left out, and frames of
    padding are zero at the input of every convolution over time and are left out of every mean, so neither can change
    an answer.

    Args:
        skeleton: the bone graph of a body.
        classes: number of logits.
        width: number of features.
        bodies: 1 for a normalisation that any number of bodies share, more for one for each body's place.
        as_published: count padding and absent bodies like any others, as the public training code does (for its
            checkpoints).

    Attributes:
        options: what ``make_network`` was given beside skeleton, classes and bodies.

    Shapes:
        motions: (n, 3, frames, joints, bodies) in metres.
        returns: (n, classes) logits.
    """

    FULL: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, skeleton: Skeleton, classes: int, width: int, *, bodies: int = 1, as_published: bool = False
    ) -> None:
        super().__init__()
        self.skeleton, self.classes, self.width, self.bodies = skeleton, classes, width, bodies
        self.as_published = as_published
        self.name, self.options = type(self).__name__, dict[str, Any]()
        self.norm = nn.BatchNorm1d(bodies * len(skeleton) * 3)
        self.head = nn.Linear(width, classes)

    def body_features(self, motions: Tensor, mask: Tensor | None) -> Tensor:
        """Features of single bodies.

        Shapes:
            motions: (rows, 3, frames, joints), normalised; padding frames are zero.
            mask: (rows, 1, frames, 1) float, 1 where there is a body; ``None`` where all frames of all rows count.
            returns: (rows, width).
        """
        raise NotImplementedError

    def features(self, motions: Tensor) -> Tensor:
        """Features of the motions before the last layer: (n, width), the mean over the bodies that are there.

        Raises:
            UsageError: another number of joints or bodies than the network's.
        """
        n, _, frames, joints, bodies = motions.shape
        if joints != len(self.skeleton) or (self.bodies > 1 and bodies != self.bodies):
            raise UsageError(
                f"motions have {joints} joints and {bodies} bodies, {self.name} takes {len(self.skeleton)} joints"
                + (f" and {self.bodies} bodies" if self.bodies > 1 else "")
            )
        places = motions.permute(0, 4, 3, 1, 2).reshape(n * bodies // self.bodies, -1, frames)
        rows = self.norm(places).view(n * bodies, joints, 3, frames).permute(0, 2, 3, 1)
        if self.as_published:
            return self.body_features(rows.contiguous(), None).view(n, bodies, -1).mean(1)

        mask = present(motions)[:, 0, :, 0].transpose(1, 2).reshape(n * bodies, 1, frames, 1)
        if bool(mask.all()):
            return self.body_features(rows.contiguous(), None).view(n, bodies, -1).mean(1)
        there = mask.any(2).flatten()
        owners = there.nonzero().flatten()
        weights = mask[owners].to(rows.dtype)
        found = self.body_features(rows[owners] * weights, weights)
        spread = found.new_zeros(n * bodies, found.shape[1]).index_copy(0, owners, found)
        return spread.view(n, bodies, -1).sum(1) / there.view(n, bodies).sum(1, keepdim=True).clamp(min=1)

    def forward(self, motions: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(motions))
        return logits


class GraphNetwork(MotionNetwork):
    """Blocks of a graph convolution over joints and a convolution over time, and the mean over both at the end."""

    # Widths and strides that ST-GCN, 2s-AGCN and CTR-GCN share.
    FULL: ClassVar[dict[str, Any]] = {
        "widths": (64,) * 4 + (128,) * 3 + (256,) * 3,
        "strides": (1, 1, 1, 1, 2, 1, 1, 2, 1, 1),
    }
    blocks: nn.ModuleList

    def stack(
        self, widths: Sequence[int], strides: Sequence[int], block: Callable[[int, int, int, int], nn.Module]
    ) -> None:
        """Make the blocks: ``block(inputs, outputs, stride, place)``; each takes and gives motions and their mask."""
        shapes = zip((3, *widths[:-1]), widths, strides, strict=True)
        self.blocks = nn.ModuleList(block(*shape, place) for place, shape in enumerate(shapes))

    def body_features(self, motions: Tensor, mask: Tensor | None) -> Tensor:
        for block in self.blocks:
            motions, mask = block(motions, mask)
        return mean_pool(motions, mask)


def keep(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros in the frames of padding. Shapes: hidden (rows, channels, frames, joints), mask as in ``body_features``."""
    return hidden if mask is None else hidden * mask


def mean_pool(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over joints and the frames that count: (rows, channels, frames, joints) to (rows, channels)."""
    if mask is None:
        return hidden.mean((2, 3))
    return (hidden * mask).sum((2, 3)) / (mask.sum((2, 3)) * hidden.shape[3])


def thin(mask: Tensor | None, stride: int) -> Tensor | None:
    """The mask of every ``stride``-th frame, where a strided convolution with a centred kernel puts its answers."""
    return None if mask is None else mask[:, :, ::stride]


def temporal_conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution over time with a centred kernel of odd length: (rows, inputs, frames, joints) to outputs."""
    padding = (kernel - 1) * dilation // 2
    return nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
