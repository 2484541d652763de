"""Bit depth: fewer grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bbox.defenses.base import Defense, Wrapped
from bbox.defenses.ranges import between
from bbox.targets.base import Target

__all__ = ["BitDepth"]


@dataclass(frozen=True)
class BitDepth(Defense):
    """Round each value to one of 2**bits levels from 0 to 1 (Xu, Evans, Qi, "Feature Squeezing", NDSS 2018; it uses 1
    bit on MNIST and 4 or 5 on colour images).

    Args:
        bits: 1 to 8.

    Queries: one forward row each.
    """

    bits: int = 5

    summary: ClassVar[str] = "fewer grey levels (Feature Squeezing, NDSS 2018)"
    cost: ClassVar[str] = "no forward; accuracy on coarse images"
    weakness: ClassVar[str] = "steps of more than one level: the decision is as easy to attack as before"
    adaptations: ClassVar[tuple[str, ...]] = ("large-steps",)

    def __post_init__(self) -> None:
        between("bits", self.bits, 1, 8)

    def wrap(self, target: Target) -> Target:
        return _Shallow(target, self, name="bit-depth")


class _Shallow(Wrapped):
    defense: BitDepth

    def __call__(self, rows: Tensor) -> Tensor:
        steps = 2**self.defense.bits - 1
        return self.inner((rows * steps).round_().div_(steps))
