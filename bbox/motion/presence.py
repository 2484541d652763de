"""Which frames of which bodies hold a motion: padding and absent bodies are zeros, and stay zeros."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["movable", "present"]


def present(motions: Tensor) -> Tensor:
    """Where there is a body: a frame of a body whose every coordinate is zero is padding, or the body is absent.

    The convention of the public NTU and Kinetics pipelines.

    Shapes:
        motions: (n, 3, frames, joints, bodies).
        returns: (n, 1, frames, 1, bodies) bool, to be broadcast over axes and joints.
    """
    return (motions != 0).any(3, keepdim=True).any(1, keepdim=True)


def movable(motions: Tensor, axes: int = 3) -> Tensor:
    """Which coordinates an attack may change: those of bodies that are there, of the first ``axes`` channels.

    Shapes:
        motions: (n, 3, frames, joints, bodies); returns: (n, 1 or 3, frames, 1, bodies) bool.
    """
    there = present(motions)
    if axes == motions.shape[1]:
        return there
    channel = torch.arange(motions.shape[1], device=motions.device) < axes
    return there & channel.view(1, -1, 1, 1, 1)
