"""Skeleton motion: bone graphs, dynamics, validity, encoders; knows no target, oracle or attack.

A motion is a float32 tensor (3, frames, joints, bodies), axes x y z in metres; a batch is (n, 3, frames, joints,
bodies), the (N, C, T, V, M) of the field. Padding and absent bodies are zeros (``bbox.motion.presence``).
"""

from __future__ import annotations

from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton

__all__ = ["Skeleton", "present"]
