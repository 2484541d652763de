"""Long motions cut into windows of one length, at one frame rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut", "resample"]


def resample(positions: NDArray[np.float64], frame_rate: float, rate: float) -> NDArray[np.float64]:
    """The motion at another frame rate, linearly between frames; as it is where the rates differ by under 0.1%.

    Shapes:
        positions: (frames, ...), the first at time 0.
    """
    if abs(frame_rate / rate - 1.0) < 1e-3 or len(positions) == 1:
        return positions
    last = len(positions) - 1
    count = int(last * rate / frame_rate + 1e-3) + 1  # frame times in files are rounded
    place = np.minimum(np.arange(count) * (frame_rate / rate), last)
    before = np.minimum(place.astype(np.int64), last - 1)
    part = (place - before).reshape(-1, *(1,) * (positions.ndim - 1))
    between: NDArray[np.float64] = positions[before] * (1.0 - part) + positions[before + 1] * part
    return between


def cut(positions: NDArray[np.float64], frames: int, stride: int) -> NDArray[np.float64]:
    """Windows that begin every ``stride`` frames; what is left at the end, or a motion that is shorter, gives none.

    Shapes:
        positions: (frames in all, ...).
        returns: (windows, frames, ...).
    """
    starts = np.arange(0, len(positions) - frames + 1, stride)
    windows: NDArray[np.float64] = positions[starts[:, None] + np.arange(frames)]
    return windows
