"""The coordinator's light decoder: a feature map of a few cells becomes a prompt of the image's size.

Oh et al. 2023, "BlackVIP", section 3.2. Every layer is a transposed convolution with kernel 2 and stride 2, or a 1x1
convolution, so no layer mixes neighbouring cells: each cell of the source grows into a tree of 2^levels by 2^levels
pixels, by one small network that all cells share. Up-sampling is then a matrix product and a reshape, and the decoders
of many weight vectors are one batched product a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Backend", "Decoder", "Norm", "Statistics"]

Norm = Literal["group", "batch", "none"]
Backend = Literal["bmm", "loop", "vmap"]
Statistics = list[tuple[Tensor, Tensor]]  # mean and variance of each channel, a pair a batch norm

_EPS = 1e-5
_CACHE = 1 << 20  # numbers of a layer that stay in a CPU's cache; passes over more cost several times as much
_GROUPS = 8
# Levels to (source channels, then a stage: channels after the transposed and after the 1x1 convolution). Five levels
# are the paper's; with fewer the source is smaller too, so that small images do not get more parameters than pixels.
_STAGES: dict[int, tuple[int, tuple[tuple[int, int], ...]]] = {
    2: (16, ((16, 32),)),
    3: (16, ((16, 32), (32, 16))),
    4: (16, ((32, 32), (32, 32), (32, 16))),
    5: (32, ((64, 64), (64, 32), (32, 32), (32, 16))),
}


@dataclass(frozen=True)
class Decoder:
    """A decoder whose weights are a vector that is given, so that many of them run at once.

    Args:
        shape: (channels, height, width) of the prompt.
        least: numbers that the source has to hold at least; it gets as many channels as that takes.
        norm: group (a row's prompt does not depend on the rows beside it), batch (as published), none.

    At 3x224x224 with 768 features it has the paper's 32x7x7 source and 9,920 parameters with the trigger.
    """

    shape: tuple[int, int, int]
    least: int = 0
    norm: Norm = "group"

    @cached_property
    def levels(self) -> int:
        """How often the source is doubled: so that it is about 7 cells a side, as at 224 pixels."""
        return min(5, max(2, round(math.log2(max(self.shape[1:]) / 7))))

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Cells of the source, (height, width); the prompt is cropped where they grow beyond the image."""
        side = 2**self.levels
        return -(-self.shape[1] // side), -(-self.shape[2] // side)

    @cached_property
    def channels(self) -> int:
        """Channels of the source."""
        channels = _STAGES[self.levels][0]
        while channels * math.prod(self.grid) < self.least:
            channels *= 2
        return channels

    @property
    def source(self) -> int:
        """Numbers that the source holds."""
        return self.channels * math.prod(self.grid)

    @cached_property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """(channels in, after the transposed convolution, after the 1x1 convolution) a stage."""
        stages, inside = [], self.channels
        for grown, out in _STAGES[self.levels][1]:
            # Depthwise: each channel grows into a whole number of channels.
            stages.append((inside, inside * max(1, grown // inside), out))
            inside = out
        return tuple(stages)

    @cached_property
    def layout(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of the parameters, in the order in which they lie in the vector."""
        parts: list[tuple[str, tuple[int, ...]]] = []
        for i, (inside, grown, out) in enumerate(self.stages):
            parts += [(f"up{i}", (inside, grown // inside, 4)), (f"up-bias{i}", (grown,)), (f"mix{i}", (out, grown))]
            if self.norm != "none":
                parts += [(f"norm{i}", (out,)), (f"norm-bias{i}", (out,))]
        return (*parts, ("out", (self.stages[-1][2], self.shape[0], 4)))

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for _, shape in self.layout)

    @cached_property
    def _largest(self) -> int:
        """Numbers that an image takes in the largest layer."""
        cells = math.prod(self.grid)
        sizes: list[int] = [cells * out << 2 * (level + 1) for level, (_, _, out) in enumerate(self.stages)]
        return max(sizes)

    def start(self, generator: torch.Generator, *, zero: bool) -> Tensor:
        """Torch's own initial weights for these layers; the last at zero if ``zero``, so that there is no prompt."""
        # Uniform with bound 1/sqrt(fan in), where a transposed convolution counts its outputs as fan in.
        fans = {"out": 4 * self.shape[0]}
        for i, (inside, grown, _) in enumerate(self.stages):
            fans |= {f"up{i}": 4 * grown // inside, f"up-bias{i}": 4 * grown // inside, f"mix{i}": grown}
        parts = []
        for name, shape in self.layout:
            if name.startswith("norm"):
                parts.append(torch.full(shape, 0.0 if "bias" in name else 1.0))
            else:
                drawn = torch.rand(shape, generator=generator) * 2 - 1
                parts.append(drawn / math.sqrt(fans[name]) * (0.0 if zero and name == "out" else 1.0))
        return torch.cat([part.flatten() for part in parts])

    def __call__(
        self, weights: Tensor, source: Tensor, *, statistics: Statistics | None = None, backend: Backend = "bmm"
    ) -> Tensor:
        """The prompts that each weight vector makes of its sources.

        Shapes:
            weights: (m, dim); source: (m, n, channels * cells).
            returns: (m, n, *shape), not bounded.

        Args:
            statistics: of the batch norms; ``None`` takes those of the batch, apart for each weight vector.
        """
        if backend == "bmm":
            together = len(weights) if weights.is_cuda else max(1, _CACHE // (source.shape[1] * self._largest))
            parts = zip(torch.split(weights, together), torch.split(source, together), strict=True)
            return torch.cat([self._trees(some, sources, statistics)[0] for some, sources in parts])
        if backend == "loop":
            return torch.stack([self._convolve(w, s, statistics) for w, s in zip(weights, source, strict=True)])
        return torch.vmap(lambda w, s: self._convolve(w, s, statistics))(weights, source)

    def statistics(self, weights: Tensor, source: Tensor) -> Statistics | None:
        """The batch norms' statistics over all sources, to serve with. Shapes: weights (dim,), source (n, ...)."""
        return self._trees(weights[None], source[None], None)[1] if self.norm == "batch" else None

    def _parts(self, weights: Tensor) -> dict[str, Tensor]:
        sizes = [math.prod(shape) for _, shape in self.layout]
        pieces = torch.split(weights, sizes, dim=-1)
        return {
            name: piece.reshape(*weights.shape[:-1], *shape)
            for (name, shape), piece in zip(self.layout, pieces, strict=True)
        }

    def _trees(self, weights: Tensor, source: Tensor, statistics: Statistics | None) -> tuple[Tensor, Statistics]:
        """All decoders at once: one batched product a layer, cells as rows, children beside their parents."""
        m, n = source.shape[:2]
        parts, seen = self._parts(weights), Statistics()
        rows = source.reshape(m, n, self.channels, -1).transpose(2, 3).reshape(m, -1, self.channels)
        for i, (inside, grown, out) in enumerate(self.stages):
            # The two convolutions of a stage have nothing between them: one product, a cell to its children.
            up, mix = parts[f"up{i}"], parts[f"mix{i}"].reshape(m, out, inside, grown // inside)
            kernel = torch.einsum("mcrq,mocr->mcqo", up, mix).reshape(m, inside, 4 * out)
            bias = torch.bmm(parts[f"mix{i}"], parts[f"up-bias{i}"][:, :, None]).transpose(1, 2).repeat(1, 1, 4)
            rows = torch.baddbmm(bias, rows, kernel).reshape(m, n, -1, out)
            if self.norm == "group":
                # Plain means over cells, then over a group's channels: torch.var_mean takes eight times as long here.
                mean = _of_groups(rows.mean(2, keepdim=True))
                rows = rows - mean
                spread = _of_groups(rows.square().mean(2, keepdim=True))
                factor = torch.rsqrt(spread + _EPS) * parts[f"norm{i}"][:, None, None]
                rows = torch.addcmul(parts[f"norm-bias{i}"][:, None, None], rows, factor)
            elif self.norm == "batch":
                if statistics is None:
                    mean = rows.mean((1, 2), keepdim=True)
                    variance = (rows - mean).square().mean((1, 2), keepdim=True)
                else:
                    mean, variance = (part[None, None, None] for part in statistics[i])
                seen.append((mean[0, 0, 0], variance[0, 0, 0]))
                factor = torch.rsqrt(variance + _EPS) * parts[f"norm{i}"][:, None, None]
                rows = torch.addcmul(parts[f"norm-bias{i}"][:, None, None], rows - mean, factor)
            rows = F.gelu(rows).reshape(m, -1, out)
        last = parts["out"].permute(0, 1, 3, 2).reshape(m, self.stages[-1][2], -1)  # (m, inside, 4 * channels)
        leaves = torch.bmm(rows, last)
        # A leaf's place is its cell's, then a bit of y and a bit of x a level.
        high, wide = self.grid
        tree = leaves.reshape(m, n, high, wide, *([2, 2] * self.levels), self.shape[0])
        ys, xs = [4 + 2 * level for level in range(self.levels)], [5 + 2 * level for level in range(self.levels)]
        image = tree.permute(0, 1, tree.ndim - 1, 2, *ys, 3, *xs)
        image = image.reshape(m, n, self.shape[0], high << self.levels, wide << self.levels)
        return image[..., : self.shape[1], : self.shape[2]], seen

    def _convolve(self, weights: Tensor, source: Tensor, statistics: Statistics | None) -> Tensor:
        """One decoder, by torch's own convolutions: what ``_trees`` has to equal."""
        parts = self._parts(weights)
        maps = source.reshape(-1, self.channels, *self.grid)
        for i, (inside, grown, out) in enumerate(self.stages):
            kernel = parts[f"up{i}"].reshape(inside, grown // inside, 2, 2)
            maps = F.conv_transpose2d(maps, kernel, parts[f"up-bias{i}"], stride=2, groups=inside)
            maps = F.conv2d(maps, parts[f"mix{i}"].reshape(out, grown, 1, 1))
            if self.norm == "group":
                maps = F.group_norm(maps, _GROUPS, parts[f"norm{i}"], parts[f"norm-bias{i}"], _EPS)
            elif self.norm == "batch":
                mean, variance = (None, None) if statistics is None else statistics[i]
                scale, shift = parts[f"norm{i}"], parts[f"norm-bias{i}"]
                maps = F.batch_norm(maps, mean, variance, scale, shift, statistics is None, 0.0, _EPS)
            maps = F.gelu(maps)
        image = F.conv_transpose2d(maps, parts["out"].reshape(*parts["out"].shape[:2], 2, 2), stride=2)
        return image[..., : self.shape[1], : self.shape[2]]


def _of_groups(means: Tensor) -> Tensor:
    """Each channel's mean replaced by its group's. Shapes: (m, n, 1, channels), both."""
    grouped = means.reshape(*means.shape[:3], _GROUPS, -1)
    spread: Tensor = grouped.mean(4, keepdim=True).expand_as(grouped).flatten(3)
    return spread
