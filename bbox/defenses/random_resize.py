"""Random resizing: each query is shrunk by a random factor and put at a random place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bbox.defenses.base import Defense
from bbox.defenses.randomness import Randomized
from bbox.defenses.ranges import between
from bbox.errors import UsageError
from bbox.targets.base import Target
from bbox.zo import uniform

__all__ = ["RandomResize"]


@dataclass(frozen=True)
class RandomResize(Defense):
    """Resize to a random size, pad with zeros at random sides, ask; fresh for each query (Xie, Wang, Zhang, Ren,
    Yuille, "Mitigating Adversarial Effects Through Randomization", ICLR 2018).

    There 299 pixels are enlarged to 299..330 and padded to 331. Here the size stays, so that any target fits: the image
    shrinks to ``low``..1 of its sides (bilinear, one factor for both) and lies at a random place on a black canvas.

    Args:
        low: least factor, 0.1 to 1; 1 would change nothing and is refused.
        seed: of the factors and places; secret in service.

    Queries: one forward row each.
    """

    low: float = 0.9
    seed: int = 0

    summary: ClassVar[str] = "random shrinking and padding (ICLR 2018)"
    cost: ClassVar[str] = "one resampling; accuracy on shrunk images"
    weakness: ClassVar[str] = "averaging over repeats (expectation over transformation, Athalye et al., ICML 2018)"
    adaptations: ClassVar[tuple[str, ...]] = ("average", "large-steps")

    def __post_init__(self) -> None:
        between("low", self.low, 0.1, 1)
        if self.low == 1:
            raise UsageError(f"low is {self.low!r}, which changes nothing; expected less than 1")

    def wrap(self, target: Target) -> Target:
        if target.input_shape is not None and len(target.input_shape) != 3:
            raise UsageError(f"random-resize works on images (channels, height, width), got {target.input_shape}")
        return _Resized(target, self)


class _Resized(Randomized):
    def __init__(self, inner: Target, defense: RandomResize) -> None:
        super().__init__(inner, defense, name="random-resize", seed=defense.seed)
        self.low = defense.low

    def __call__(self, rows: Tensor) -> Tensor:
        scale, right, down = uniform(self.keys(rows), 3).unbind(1)
        scale = self.low + (1 - self.low) * scale
        # Coordinates run from -1 to 1; the picture's centre may move by as much as its shrinking leaves room for.
        across = _source(rows.shape[-1], scale, right)
        downwards = _source(rows.shape[-2], scale, down)
        n, height, width = len(rows), rows.shape[-2], rows.shape[-1]
        grid = torch.stack(
            [across[:, None, :].expand(n, height, width), downwards[:, :, None].expand(n, height, width)], -1
        )
        moved = functional.grid_sample(rows, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return self.inner(moved.clamp_(0, 1))


def _source(size: int, scale: Tensor, place: Tensor) -> Tensor:
    """Where along one side each output pixel comes from. Shapes: scale, place (n,); returns (n, size)."""
    centre = (1 - scale) * (2 * place - 1)
    out = (torch.arange(size, device=scale.device) * 2 + 1) / size - 1
    return (out - centre[:, None]) / scale[:, None]
