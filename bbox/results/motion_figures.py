"""What was done to the motions of a no-box run: displacement, bones, velocity and acceleration, read from its files."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from bbox.motion.validity import Validity, hinge_limits, measure
from bbox.results.craft_folder import CraftFolder
from bbox.results.judged import motion_set

__all__ = ["motion_figures"]


def motion_figures(folder: CraftFolder) -> dict[str, Any]:
    """Figures of the attack and of each baseline, computed from the saved files in float64 (``bbox.motion.validity``).

    The range of a joint's angle is that of the run's own clean motions, widened by 5 degrees.
    """
    data = motion_set(folder)
    indices = data.indices.tolist()
    limits = hinge_limits(data.inputs, data.skeleton)
    methods = [m for m in folder.methods() if all(folder.has(m, i) for i in indices)]
    found = {m: measure(folder.motions(m, indices), data.inputs, data.skeleton, limits) for m in methods}
    return {
        "schema_version": 1,
        "complete": True,
        "methods": {m: {name: _finite(value) for name, value in v.summary().items()} for m, v in found.items()},
        "examples": [
            {**example, "methods": {m: _row(v, place) for m, v in found.items()}}
            for place, example in enumerate(folder.examples())
        ],
    }


def _row(figures: Validity, place: int) -> dict[str, float | None]:
    return {f.name: _finite(float(getattr(figures, f.name)[place])) for f in fields(figures)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
