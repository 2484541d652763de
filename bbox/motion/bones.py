"""Give a motion the bone lengths of its original again: a constraint on what an attack may do, not only a measure."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.errors import UsageError
from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton

__all__ = ["project_bones"]

_RIDGE = 1e-9  # keeps a bone of no length, which has no direction, from making the equations singular
_CLOSE = 1e-4  # share of its length that a bone may be off in a frame that is done
_CHUNK = 1 << 23  # float64 numbers held at a time


def project_bones(
    motions: Tensor, originals: Tensor, skeleton: Skeleton, epsilon: float | None = None, iterations: int = 30
) -> Tensor:
    """Motions near the given ones whose bones have the original lengths in every frame, within ``epsilon`` if given.

    Gauss-Newton steps on the lengths: the smallest change of a frame's coordinates that restores all its bones to
    first order, one small linear system a frame (the fast projection of Goldenthal et al., "Efficient simulation of
    inextensible cloth", SIGGRAPH 2007), in turn with a clip to the tube. A frame is done when each bone is within
    0.01 % of its length; one that is not by half of the iterations is from then on drawn half way to its original
    before each step.

    The tube is kept exactly, lengths nearly. Measured on 50 clips of Bandai-Namco's set 2 with every coordinate moved
    by 30 mm (white, smoothed or constant in time), which changes bones by 27 to 29 % on average: all bones are then
    within 0.01 %, joints are 33 mm from the originals instead of 52, and 2,400 frames take 0.3 s on one core.

    Args:
        motions, originals: (n, 3, frames, joints, bodies), metres.
        epsilon: largest change of a coordinate in metres, of which no result is beyond.
        iterations: most steps, at least 1.

    Returns:
        (n, 3, frames, joints, bodies) float32; frames that are absent in the originals are zeros.

    Raises:
        UsageError: epsilon or iterations is out of its range.
    """
    if epsilon is not None and not epsilon > 0:
        raise UsageError(f"epsilon is {epsilon!r}, expected a positive number of metres")
    if iterations < 1:
        raise UsageError(f"iterations is {iterations}, expected at least 1")
    there = present(originals)
    reach = torch.inf if epsilon is None else epsilon
    bones = torch.tensor(skeleton.bones, dtype=torch.int64, device=motions.device).view(-1, 2)
    rows, kept = (side.permute(0, 2, 4, 1, 3).flatten(0, 2) for side in (motions * there, originals))
    step = max(1, _CHUNK // (4 * len(bones) ** 2 + 30 * len(skeleton)))
    parts = []
    for row, old in zip(torch.split(rows, step), torch.split(kept, step), strict=True):
        parts.append(_inside(_project(row.double(), old.double(), bones, reach, iterations), old, reach))
    count, axes, frames, joints, bodies = motions.shape
    found = torch.cat(parts).view(count, frames, bodies, axes, joints).permute(0, 3, 1, 4, 2)
    return (found * there).contiguous()


def _project(rows: Tensor, originals: Tensor, bones: Tensor, reach: float, iterations: int) -> Tensor:
    """Shapes: rows, originals (f, 3, joints) float64; bones (b, 2) joint and parent. Returns (f, 3, joints)."""
    ends = torch.zeros(len(bones), rows.shape[2], dtype=rows.dtype, device=rows.device)
    ends.scatter_(1, bones[:, :1], 1.0).scatter_(1, bones[:, 1:], -1.0)
    shared = ends @ ends.T  # how two bones pull on each other: 2 on themselves, 1 or -1 at a common joint
    ridge = _RIDGE * torch.eye(len(bones), dtype=rows.dtype, device=rows.device)
    lengths = _vectors(originals, bones).square().sum(1).sqrt()
    slack = _CLOSE * lengths.clamp(min=1e-3)
    found = rows.clamp(originals - reach, originals + reach)
    busy = torch.arange(len(rows), device=rows.device)
    for number in range(iterations + 1):
        vectors = _vectors(found[busy], bones)
        now = vectors.square().sum(1).sqrt()
        off = ((now - lengths[busy]).abs() > slack[busy]).any(1)
        busy = busy[off]
        if number == iterations or len(busy) == 0:
            break
        vectors, now = vectors[off], now[off]
        old = originals[busy]
        moved = found[busy]
        if 2 * number >= iterations:
            moved = (moved + old) / 2
            vectors = _vectors(moved, bones)
            now = vectors.square().sum(1).sqrt()
        towards = vectors / now.clamp(min=1e-12)[:, None]
        pulls = torch.linalg.solve((towards.mT @ towards) * shared + ridge, (lengths[busy] - now)[..., None])
        moved = moved + (towards * pulls.mT) @ ends
        found[busy] = moved.clamp(old - reach, old + reach)
    return found


def _vectors(rows: Tensor, bones: Tensor) -> Tensor:
    """Each bone as a vector. Shapes: (f, 3, joints) -> (f, 3, bones)."""
    return rows[:, :, bones[:, 0]] - rows[:, :, bones[:, 1]]


def _inside(rows: Tensor, originals: Tensor, reach: float) -> Tensor:
    """Rows as float32, rounded towards the originals where rounding would leave the tube."""
    found = rows.float()
    beyond = (found.double() - originals.double()).abs() > reach
    return torch.where(beyond, found.nextafter(originals.float()), found)
