"""Data sets of skeleton motion: how they are read, and how they are written for others to read."""

from __future__ import annotations

from bbox.data.motion.arrays import save_motions
from bbox.data.motion.load import load_motion

__all__ = ["load_motion", "save_motions"]
