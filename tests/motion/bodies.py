"""Bodies in motion whose bones keep their lengths: smooth random joint rotations through a small skeleton."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.motion import Skeleton

SKELETON = Skeleton(
    "small",
    ("hips", "chest", "head", "elbow_l", "hand_l", "elbow_r", "hand_r", "knee_l", "foot_l"),
    (-1, 0, 1, 1, 3, 1, 5, 0, 7),
    ((3, 5), (4, 6)),
)
LENGTHS = (0.0, 0.4, 0.25, 0.3, 0.28, 0.3, 0.28, 0.45, 0.42)


def move(count: int, frames: int, *, bodies: int = 1, seed: int = 0) -> Tensor:
    """Motions (count, 3, frames, 9, bodies) float32, metres, at about 30 frames a second."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(count, bodies, *shape, generator=generator, dtype=torch.float64)

    time = torch.arange(frames, dtype=torch.float64) / 30
    waves = (2 * torch.pi * (draw(2, len(LENGTHS), 3, 1) * 1.2 + 0.1) * time + 6.3 * draw(2, len(LENGTHS), 3, 1)).sin()
    angles = (waves * draw(2, len(LENGTHS), 3, 1)).sum(2) + 3 * draw(len(LENGTHS), 3, 1)  # (n, bodies, joints, 3, t)
    places = [angles[:, :, 0] * 0.2 + torch.tensor([0.3, 1.0, -0.2])[:, None]]
    for joint, parent in SKELETON.bones:
        direction = torch.nn.functional.normalize(angles[:, :, joint], dim=2)
        places.append(places[parent] + LENGTHS[joint] * direction)
    return torch.stack(places, 3).permute(0, 2, 4, 3, 1).float().contiguous()


def ragged(count: int = 4, frames: int = 20, seed: int = 0) -> Tensor:
    """Two bodies; the second absent from the first motion, late and short in the second, with a gap in the third."""
    motions = move(count, frames, bodies=2, seed=seed)
    motions[0, ..., 1] = 0
    motions[1, :, :3, :, 1] = 0
    motions[1, :, 14:] = 0
    motions[2, :, 11:13, :, 1] = 0
    return motions
