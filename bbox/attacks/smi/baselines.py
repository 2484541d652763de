"""What every figure of SMI stands beside: perturbations of the same size that know no gradient or no dynamics.

On victims that resist sensor noise, a constant offset of each joint fools many times more than white noise, and one
towards the mean pose of another real motion more than that (docs/smi.md); a fooling rate without these rows says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from bbox.attacks.smi.updates import Ascent
from bbox.motion.presence import present
from bbox.zo import fold, gaussian

__all__ = ["BASELINES", "DRIFT", "LOW_PASS", "drift", "perturb"]

# low-pass is the attack itself with a plain temporal filter, whatever the motion: control of the dynamics.
LOW_PASS, DRIFT = "low-pass", "drift"
_STREAM = -11  # of a motion's key, so that baselines and the attack never share a number
_SMOOTH_FRAMES = 3.0  # standard deviation of the smoothing, frames
_RANK = 0.25  # how far down the list of a motion's neighbours the one lies that it drifts to


def _noise(draw: Tensor) -> Tensor:
    return draw


def _smooth(draw: Tensor) -> Tensor:
    """Smoothed over time by a Gaussian window."""
    frames = draw.shape[2]
    place = torch.arange(frames, dtype=draw.dtype, device=draw.device)
    window = torch.exp(-0.5 * ((place[:, None] - place) / _SMOOTH_FRAMES).square())
    return torch.einsum("st,nctvm->ncsvm", window, draw)


def _offset(draw: Tensor) -> Tensor:
    """The same in every frame: it has no velocity and no acceleration."""
    return draw[:, :, :1].expand_as(draw)


_DRAWN: dict[str, Callable[[Tensor], Tensor]] = {"noise": _noise, "smooth-noise": _smooth, "offset": _offset}
BASELINES = (*_DRAWN, DRIFT)


def drift(originals: Tensor, pool: Tensor) -> Tensor:
    """A direction that is the same in every frame: towards the mean pose of another motion of the pool.

    The one at a quarter of the list of those nearest by mean pose: near ones lead to the same class, far ones away from
    any. No label, no encoder, no gradient.

    Shapes:
        originals: (n, 3, frames, joints, bodies); pool: (p, 3, frames, joints, bodies), which may hold them.
        returns: like originals.
    """
    poses, others = _mean_pose(originals), _mean_pose(pool)
    rank = min(max(1, round(_RANK * len(pool))), len(pool) - 1)
    chosen = [(others - pose).square().flatten(1).sum(1).argsort(stable=True)[rank] for pose in poses]
    return (others[torch.stack(chosen)] - poses)[:, :, None].expand_as(originals).to(originals.dtype)


def _mean_pose(motions: Tensor) -> Tensor:
    """The mean over the frames that are there: (n, 3, joints, bodies) float64."""
    count = present(motions).sum(2).clamp(min=1)
    return motions.double().sum(2) / count


def perturb(
    name: str,
    originals: Tensor,
    keys: Tensor,
    *,
    epsilon: float,
    norm: Literal["linf", "l2"],
    axes: int = 3,
    pool: Tensor | None = None,
) -> Tensor:
    """One of the baselines that need no gradient, of the full size of the budget: +-epsilon a coordinate (linf).

    Shapes:
        originals: (n, 3, frames, joints, bodies); keys: (n,) int64 (``bbox.zo.root_keys``); pool: for ``drift``,
        default the originals.
        returns: as originals.
    """
    ascent = Ascent(originals, epsilon=epsilon, norm=norm, update="ifgsm", step=epsilon, decay=0.0, axes=axes)
    if name == DRIFT:
        ascent.climb(drift(originals, originals if pool is None else pool))
        return ascent.point
    draw = gaussian(fold(fold(keys, _STREAM), list(_DRAWN).index(name)), originals[0].numel())
    ascent.climb(_DRAWN[name](draw.view(originals.shape).to(originals.dtype)))
    return ascent.point
