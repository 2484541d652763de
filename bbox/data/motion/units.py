"""Numbers that options give; lengths in metres, whatever unit a file has them in; and what has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bbox.errors import InputError, UsageError

__all__ = ["guess_unit", "positive", "read_unit", "warn_of_confidence"]

_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
_SPAN = 2.0  # metres along the bones of an adult, from one hand or foot to the farthest other
_log = logging.getLogger(__name__)


def positive(**numbers: float | None) -> None:
    """Refuse numbers that are not above 0, by their names.

    Raises:
        UsageError: one is not.
    """
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise UsageError(f"{name} is {number:g}, expected more than 0")


def read_unit(unit: str) -> float:
    """Metres in a unit: m, cm, mm, inch, or a number of metres.

    Raises:
        UsageError: it is none.
    """
    try:
        metres = _UNITS[unit] if unit in _UNITS else float(unit)
    except ValueError:
        metres = 0.0
    if not 0.0 < metres < float("inf"):
        raise UsageError(f"unit is {unit!r}, expected {', '.join(_UNITS)}, or a number of metres")
    return metres


def guess_unit(path: Path, pose: NDArray[np.float64], parents: Sequence[int]) -> float:
    """Metres in the unit that makes a body, by its longest way along the bones, most nearly the size of an adult's.

    The way does not depend on the pose. A line in the log says what was guessed.

    Shapes:
        pose: (joints, 3), a parent before its children.

    Raises:
        InputError: no unit makes it 1.3 to 3.2 m, within a factor of 1.6 (between inch and cm lies 2.5).
    """
    span = _longest_way(pose, parents)
    ratios = {name: max(span * metres / _SPAN, _SPAN / (span * metres or 1e-30)) for name, metres in _UNITS.items()}
    nearest = min(ratios, key=ratios.__getitem__)
    if ratios[nearest] > 1.6:
        raise InputError(
            f"{path}: a body that is {span:.4g} long along its bones has no known unit; give one, as in unit=cm, or "
            "the number of metres in it, as in unit=0.056"
        )
    _log.info("%s: lengths are in %s, by the size of the body (%.2f m)", path, nearest, span * _UNITS[nearest])
    return _UNITS[nearest]


def warn_of_confidence(path: Path) -> None:
    """Say in the log that joints found in pictures have no depth and no metres."""
    _log.warning("%s: the third axis is the joint's confidence, and lengths are parts of a picture, not metres", path)


def _longest_way(pose: NDArray[np.float64], parents: Sequence[int]) -> float:
    """The diameter of the tree of bones."""
    deepest, longest = [0.0] * len(parents), 0.0
    for joint in range(len(parents) - 1, -1, -1):
        parent = parents[joint]
        if parent != -1:
            way = deepest[joint] + float(np.linalg.norm(pose[joint] - pose[parent]))
            longest = max(longest, deepest[parent] + way)
            deepest[parent] = max(deepest[parent], way)
    return longest
