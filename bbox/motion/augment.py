"""Random views of a motion: what an encoder must not see, and what an attack may average over.

Every view keeps zeros zero, so padding frames and absent bodies stay what they are (``bbox.motion.present``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bbox.motion.presence import present

__all__ = ["Views", "retime"]

Drawn = Mapping[str, Tensor]


@dataclass(frozen=True)
class Views:
    """A family of random views; a strength of zero leaves that change out.

    Temporal crop, pose shear and joint corruption are those of Thoker et al. (ACM MM 2021, section 3.3); there, a view
    has either shear or corruption, each with probability one half. The others are ours, for small data.

    Args:
        crop: shortest part of the motion's own extent that is kept and stretched to the whole, in (0, 1]; 1 keeps all.
        rotate: largest angle, in radians, about a random axis through the origin.
        scale: largest relative change of size.
        shear: off-diagonal entries of the shear are uniform in [-shear, shear].
        corrupt: fraction of the joints that are zeroed or multiplied by one random matrix.
        noise: standard deviation of the sensor noise of each coordinate, in metres; each view draws its size up to it.
        drift: the same of noise that is smooth in time, half of it one constant offset a joint, in metres.
    """

    crop: float = 1.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    corrupt: float = 0.0
    noise: float = 0.0
    drift: float = 0.0

    def draw(self, motions: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of one view of each motion, on its device; all have the motions in front.

        Draw for one motion at a time, each with a generator of its own, and join the numbers by ``torch.cat``, where
        a motion's view must not depend on its batch.
        """
        n, axes, frames, joints, bodies = motions.shape
        drawn: dict[str, Tensor] = {}

        def uniform(*shape: int) -> Tensor:
            return torch.rand(n, *shape, generator=generator, device=generator.device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(n, *shape, generator=generator, device=generator.device)

        if self.crop < 1:
            drawn["crop"] = uniform(2)
        if self.rotate:
            drawn["rotate"] = functional.normalize(normal(3), dim=1) * (2 * uniform(1) - 1)
        if self.scale:
            drawn["scale"] = 2 * uniform() - 1
        if self.shear or self.corrupt:
            drawn["either"] = uniform(2)
        if self.shear:
            drawn["shear"] = 2 * uniform(3, 3) - 1
        if self.corrupt:
            drawn["joints"] = uniform(joints)
            drawn["matrix"] = 2 * uniform(3, 3) - 1
        if self.noise:
            drawn["noise"] = uniform(1, 1, 1, 1) * normal(axes, frames, joints, bodies)
        if self.drift:
            knots = max(2, frames // 12)
            drawn["drift"] = uniform(1, 1, 1, 1) * normal(axes, knots, joints, bodies)
            drawn["offset"] = uniform(1, 1, 1, 1) * normal(axes, 1, joints, bodies)
        return {name: numbers.to(motions.device, motions.dtype) for name, numbers in drawn.items()}

    def apply(self, motions: Tensor, drawn: Drawn) -> Tensor:
        """One view of each motion, by numbers that ``draw`` gave; differentiable in the motions.

        Shapes:
            motions, returns: (n, 3, frames, joints, bodies).
        """
        out = motions
        if "noise" in drawn or "drift" in drawn:
            out = out + self._disturbance(drawn, motions.shape[2]) * present(motions)
        matrix = torch.eye(3, dtype=out.dtype, device=out.device).expand(len(out), 3, 3)
        if "scale" in drawn:
            matrix = matrix * (1 + self.scale * drawn["scale"])[:, None, None]
        if "rotate" in drawn:
            matrix = _times(_rotation(self.rotate * drawn["rotate"]), matrix)
        if "shear" in drawn:
            shear = self.shear * drawn["shear"] * (1 - torch.eye(3, dtype=out.dtype, device=out.device))
            matrix = matrix + _times(shear, matrix) * self._sheared(drawn)[:, None, None]
        if {"scale", "rotate", "shear"} & drawn.keys():
            out = _times(matrix, out)
        if "matrix" in drawn:
            out = self._corrupted(out, drawn)
        if "crop" in drawn:
            kept = self.crop + (1 - self.crop) * drawn["crop"][:, 0]
            out = retime(out, kept, (1 - kept) * drawn["crop"][:, 1])
        return out

    def __call__(self, motions: Tensor, generator: torch.Generator) -> Tensor:
        """One random view of each motion."""
        return self.apply(motions, self.draw(motions, generator))

    def _sheared(self, drawn: Drawn) -> Tensor:
        shear = drawn["either"][:, 0] < 0.5 if self.corrupt else torch.ones_like(drawn["either"][:, 0])
        return shear.to(drawn["either"].dtype)

    def _corrupted(self, motions: Tensor, drawn: Drawn) -> Tensor:
        chosen = drawn["joints"].argsort(1).argsort(1) < round(self.corrupt * motions.shape[3])
        if self.shear:
            chosen = chosen & (drawn["either"][:, :1] >= 0.5)
        matrix = drawn["matrix"] * (drawn["either"][:, 1] < 0.5)[:, None, None]
        changed = _times(matrix, motions)
        return torch.where(chosen[:, None, None, :, None], changed, motions)

    def _disturbance(self, drawn: Drawn, frames: int) -> Tensor:
        total = torch.zeros((), device=next(iter(drawn.values())).device)
        if "noise" in drawn:
            total = total + self.noise * drawn["noise"]
        if "drift" in drawn:
            n, axes, knots, joints, bodies = drawn["drift"].shape
            columns = drawn["drift"].movedim(2, -1).reshape(n, -1, knots)
            smooth = functional.interpolate(columns, frames, mode="linear", align_corners=True)
            smooth = smooth.reshape(n, axes, joints, bodies, frames).movedim(-1, 2)
            total = total + self.drift * 0.5**0.5 * (smooth + drawn["offset"])
        return total


def retime(motions: Tensor, kept: Tensor, start: Tensor) -> Tensor:
    """Stretch a part of each motion over the motion's own extent (its first to its last frame with a body).

    Linear interpolation between frames; a frame beside padding takes the frame that is there.

    Args:
        kept: (n,) fraction of the extent that is kept, in (0, 1].
        start: (n,) where it begins, as a fraction of the extent, at most 1 - kept.

    Shapes:
        motions, returns: (n, 3, frames, joints, bodies).
    """
    frames = motions.shape[2]
    here = present(motions)
    some = here.any(4).flatten(1)
    count = torch.arange(frames, device=motions.device, dtype=motions.dtype)
    first = torch.where(some, count, frames).amin(1, keepdim=True).clamp(max=frames - 1)
    extent = (torch.where(some, count, -1).amax(1, keepdim=True) - first).clamp(min=0)
    place = first + start[:, None] * extent + kept[:, None] * (count - first)
    place = torch.where((count < first) | (count > first + extent), count, place).clamp(0, frames - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=frames - 1)
    part = (place - low)[:, None, :, None, None]

    def at(rows: Tensor, values: Tensor) -> Tensor:
        return values.gather(2, rows[:, None, :, None, None].expand(-1, values.shape[1], -1, *values.shape[3:]))

    before, after = (1 - part) * at(low, here), part * at(high, here)
    total = (before + after).clamp(min=1e-12)
    return (before * at(low, motions) + after * at(high, motions)) / total


def _times(matrices: Tensor, motions: Tensor) -> Tensor:
    """(n, 3, 3) times (n, 3, ...), by products and sums: a matrix product rounds otherwise in another batch."""
    spread: Tensor = matrices.view(*matrices.shape, *[1] * (motions.ndim - 2))
    product: Tensor = spread[:, :, 0] * motions[:, None, 0]
    return product + spread[:, :, 1] * motions[:, None, 1] + spread[:, :, 2] * motions[:, None, 2]


def _rotation(turn: Tensor) -> Tensor:
    """(n, 3, 3) rotations about axes (n, 3) whose lengths are the angles, in radians (Rodrigues' formula)."""
    angle = turn.norm(dim=1).clamp(min=1e-9)[:, None, None]
    x, y, z = (turn / angle[:, 0]).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    identity = torch.eye(3, dtype=turn.dtype, device=turn.device)
    rotation: Tensor = identity + angle.sin() * cross + (1 - angle.cos()) * _times(cross, cross)
    return rotation
