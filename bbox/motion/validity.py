"""How far an adversarial motion is from its original, and how far from what a body does; in millimetres."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton

__all__ = ["Validity", "hinge_angles", "hinge_limits", "measure"]

_MM = 1000.0
_POINT = 1e-6  # metres: a bone below it has no length to compare and no direction


@dataclass(frozen=True)
class Validity:
    """Measures of each motion, over the frames of the bodies that are there; all (n,) float64, NaN over nothing.

    Attributes:
        mean_displacement, max_displacement: how far a joint is moved (l2), mm.
        linf: largest change of a coordinate, mm.
        bone_change, max_bone_change: change of a bone's length over its original length in that frame, %.
        velocity_change: l2 of the change of a joint's step from frame to frame, mean, mm a frame.
        acceleration_change: the same of the second difference, mm a frame squared.
        acceleration_ratio: mean l2 of the second differences, over the original's; inf for one that does not turn.
        hinges_outside: share of (frame, hinge) whose angle is outside ``hinge_limits``.
        hinge_excess: the farthest that one is, degrees.
        perceptual_deviation: Lu et al., ICCV 2023, equation 15, mm: the mean over frames of the l2 norm of the change
            of all coordinates of all bodies, plus that of all bone lengths (a frame counts if a body is in it).
    """

    mean_displacement: Tensor
    max_displacement: Tensor
    linf: Tensor
    bone_change: Tensor
    max_bone_change: Tensor
    velocity_change: Tensor
    acceleration_change: Tensor
    acceleration_ratio: Tensor
    hinges_outside: Tensor
    hinge_excess: Tensor
    perceptual_deviation: Tensor

    def summary(self) -> dict[str, float]:
        """Mean of each measure over the motions that have it, of the ratio the median; NaN where none has.

        A motion that hardly moves makes a ratio of hundreds, and one of them would make the mean.
        """
        means = {f.name: float(torch.nanmean(getattr(self, f.name))) for f in fields(self)}
        return means | {"acceleration_ratio": float(torch.nanmedian(self.acceleration_ratio))}


def measure(motions: Tensor, originals: Tensor, skeleton: Skeleton, limits: Tensor | None = None) -> Validity:
    """Measure motions against their originals.

    Shapes:
        motions, originals: (n, 3, frames, joints, bodies), metres.
        limits: (hinges, 2) from ``hinge_limits``; without them the measures of hinges are NaN.
    """
    there = present(originals)[:, 0]
    moving = there[:, 1:] & there[:, :-1]
    turning = moving[:, 1:] & moving[:, :-1]
    exact, clean = motions.double(), originals.double()
    change = (exact - clean) * _MM
    displacement = _length(change)
    new, old = (_bones(side, skeleton) * _MM for side in (exact, clean))
    bone_there = there & (old > _POINT * _MM)
    bone_change = (new - old).abs() / torch.where(bone_there, old, 1.0) * 100
    shift = (displacement * there).square().sum(-1).sum(-1).sqrt()
    stretch = ((new - old) * there).square().sum(-1).sum(-1).sqrt()
    outside, excess = _hinges(exact, skeleton, limits)
    return Validity(
        mean_displacement=_mean(displacement, there),
        max_displacement=_max(displacement, there),
        linf=_max(change.abs().amax(1), there),
        bone_change=_mean(bone_change, bone_there),
        max_bone_change=_max(bone_change, bone_there),
        velocity_change=_mean(_length(change.diff(dim=2)), moving),
        acceleration_change=_mean(_length(change.diff(n=2, dim=2)), turning),
        acceleration_ratio=_mean(_length(exact.diff(n=2, dim=2)), turning)
        / _mean(_length(clean.diff(n=2, dim=2)), turning),
        hinges_outside=outside,
        hinge_excess=excess,
        perceptual_deviation=_mean((shift + stretch)[..., None, None], there.any(-1, keepdim=True)),
    )


def hinge_angles(motions: Tensor, skeleton: Skeleton) -> Tensor:
    """The angle between the two bones of every ``skeleton.hinges``, degrees: 0 folded, 180 straight.

    NaN where there is no body or a bone has no length.

    Shapes:
        motions: (n, 3, frames, joints, bodies).
        returns: (n, frames, hinges, bodies) float64.
    """
    hinges = torch.tensor(skeleton.hinges, dtype=torch.int64, device=motions.device).view(-1, 3)
    start, middle, end = (motions.double().index_select(3, column) for column in hinges.T)
    first, second = start - middle, end - middle
    across = _length(torch.linalg.cross(first, second, dim=1))
    angle = torch.atan2(across, (first * second).sum(1)).rad2deg()
    known = present(motions)[:, 0] & (_length(first) > _POINT) & (_length(second) > _POINT)
    return torch.where(known, angle, torch.nan)


def hinge_limits(motions: Tensor, skeleton: Skeleton, margin: float = 5.0) -> Tensor:
    """The range of each hinge in clean motions, widened by a margin in degrees; anything for one never seen.

    A range of what was seen, not of what a body can do: it is as wide as the reference motions are varied.

    Shapes:
        returns: (hinges, 2) float64, degrees.
    """
    angles = hinge_angles(motions, skeleton).transpose(0, 2).flatten(1)
    seen = ~angles.isnan()
    least = torch.where(seen, angles, 180.0).amin(1) - margin
    most = torch.where(seen, angles, 0.0).amax(1) + margin
    limits = torch.stack([least.clamp(min=0), most.clamp(max=180)], 1)
    return torch.where(seen.any(1)[:, None], limits, limits.new_tensor([0.0, 180.0]))


def _hinges(motions: Tensor, skeleton: Skeleton, limits: Tensor | None) -> tuple[Tensor, Tensor]:
    if limits is None or not skeleton.hinges:
        return (motions.new_full((len(motions),), torch.nan),) * 2
    angles = hinge_angles(motions, skeleton)
    least, most = limits.to(angles).T[..., None]
    known = ~angles.isnan()
    beyond = torch.maximum(least - angles, angles - most).clamp(min=0)
    return _mean((beyond > 0).double(), known), _max(beyond, known)


def _bones(motions: Tensor, skeleton: Skeleton) -> Tensor:
    """Length of each bone. Shapes: (n, 3, frames, joints, bodies) -> (n, frames, bones, bodies)."""
    bones = torch.tensor(skeleton.bones, dtype=torch.int64, device=motions.device).view(-1, 2)
    return _length(motions.index_select(3, bones[:, 0]) - motions.index_select(3, bones[:, 1]))


def _length(vectors: Tensor) -> Tensor:
    """l2 over the axes. Shapes: (n, 3, ...) -> (n, ...)."""
    return vectors.square().sum(1).sqrt()


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean of each example where ``there``, broadcast. Shapes: (n, a, b, c) -> (n,)."""
    mask = there.expand(values.shape)
    # Axis by axis, so that torch never splits one example's sum over threads (``bbox.domain.row_sum``).
    return torch.where(mask, values, 0.0).sum(-1).sum(-1).sum(-1) / mask.flatten(1).sum(1)


def _max(values: Tensor, there: Tensor) -> Tensor:
    """Like ``_mean``."""
    mask = there.expand(values.shape).flatten(1)
    if mask.shape[1] == 0:
        return values.new_full((len(values),), torch.nan)
    return torch.where(mask.any(1), torch.where(mask, values.flatten(1), -torch.inf).amax(1), torch.nan)
