"""The skeleton player of a report: motions, and what was added to them, as data that the page's own script draws."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton

__all__ = ["MOST", "Shown", "joint_bars", "player", "upright"]

MOST = 24  # motions to choose from
_FEW = 3  # so many are shown whatever it takes; then frames are left out
_CHARACTERS = 2_400_000  # of all motions, as they stand in the page
_ABSENT = -32768  # stands for a joint of a body that is not there
_FINEST = 1e-4  # metres a step of an original's coordinate
_HEADS = re.compile(r"head|neck|nose", re.IGNORECASE)
_FEET = re.compile(r"foot|ankle|toe", re.IGNORECASE)
# (right, up, toward the viewer) for each axis that may be up, so that no motion is shown in a mirror.
_VIEWS = {0: ((1, 1), (0, 1), (2, -1)), 1: ((0, 1), (1, 1), (2, 1)), 2: ((0, 1), (2, 1), (1, -1))}


@dataclass(frozen=True)
class Shown:
    """A motion for the player.

    Shapes: original and each of changed: (3, frames, joints, bodies), metres.

    Attributes:
        title: how the list calls it; details: lines about it.
        changed: what each method made of it.
        clean: what each target says of the original; answers: of what each method made, and whether that fooled it.
    """

    title: str
    original: Tensor
    changed: Mapping[str, Tensor]
    details: Sequence[str] = ()
    clean: Sequence[str] = ()
    answers: Mapping[str, Sequence[tuple[str, bool]]] = field(default_factory=dict)


def player(
    skeleton: Skeleton,
    frame_rate: float,
    methods: Mapping[str, str],
    shown: Sequence[Shown],
    *,
    targets: Sequence[str] = (),
) -> dict[str, Any] | None:
    """The variables of ``motion_player.html.j2``; ``None`` where there is no motion.

    As many motions as fit, in the order given. Frames are left out only where fewer than three would fit.

    Args:
        methods: key and name of each method, as in ``Shown.changed``.
    """
    if not shown:
        return None
    sizes = [_size(each) for each in shown]
    step = max(1, -(-sum(sizes[:_FEW]) // _CHARACTERS))
    fits = int((np.cumsum(sizes) <= _CHARACTERS * step).sum())
    kept = shown[: max(1, fits)]
    axis, sign, how = upright(skeleton, [each.original for each in kept])
    script, style = _text("motion.js"), _text("motion.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "titles": [each.title for each in kept],
        "methods": list(methods.items()),
        "shown": len(kept),
        "step": step,
        "up": f"{'-' if sign < 0 else ''}{'xyz'[axis]}, {how}",
        "script": Markup(script),  # Markup: our own files, with nothing of the user's in them
        "style": Markup(style),
        "source": f"sha256-{digest}",
        "data": {
            "joints": list(skeleton.joints),
            "bones": [list(bone) for bone in skeleton.bones],
            "rate": frame_rate,
            "step": step,
            "methods": dict(methods),
            "targets": list(targets),
            "examples": [_example(each, skeleton, _axes(axis, sign), step) for each in kept],
        },
    }


def upright(skeleton: Skeleton, originals: Iterable[Tensor]) -> tuple[int, int, str]:
    """Which axis of the data is up, its sign, and how that was found.

    Data sets differ: up is y as cameras and motion capture give it, and z in the aligned NTU arrays of 2s-AGCN's and
    CTR-GCN's pipelines.

    Shapes: each original (3, frames, joints, bodies).
    """
    heads, feet = ([j for j, name in enumerate(skeleton.joints) if end.search(name)] for end in (_HEADS, _FEET))
    rows = np.concatenate([_bodies(original) for original in originals], axis=1)
    if heads and feet:
        rise = (rows[:, :, heads].mean(2) - rows[:, :, feet].mean(2)).mean(1)
        axis = int(np.abs(rise).argmax())
        return axis, -1 if rise[axis] < 0 else 1, "the axis from feet to head"
    return int(rows.std(2).mean(1).argmax()), 1, "the axis along which bodies are longest"


def joint_bars(
    skeleton: Skeleton, methods: Mapping[str, str], pairs: Iterable[tuple[Tensor, Mapping[str, Tensor]]], of: str
) -> dict[str, Any] | None:
    """Mean displacement of each joint in millimetres, over all frames of bodies that are there; ``None`` over nothing.

    Args:
        methods: key and name of each method, the attack first.
        of: the motions, in a few words.

    Shapes: pairs of (n, 3, frames, joints, bodies) and, for each method, the same of what it made.
    """
    sums = {method: np.zeros(len(skeleton)) for method in methods}
    count = 0
    for originals, made in pairs:
        there = present(originals)
        count += int(there.sum())
        for method in methods:
            moved = (made[method].double() - originals.double()).square().sum(1, keepdim=True).sqrt() * there
            sums[method] += 1000 * moved.sum((0, 1, 2, 4)).numpy()
    if not count:
        return None
    columns = [{"name": name, "means": (sums[method] / count).tolist()} for method, name in methods.items()]
    most = max(value for column in columns for value in column["means"])
    return {"joints": list(skeleton.joints), "columns": columns, "most": most or 1.0, "of": of}


def _bodies(original: Tensor) -> NDArray[np.float64]:
    """The frames of all bodies that are there: (3, frames, joints)."""
    there = present(original[None])[0, 0, :, 0].numpy()  # (frames, bodies)
    rows: NDArray[np.float64] = original.double().numpy().transpose(0, 1, 3, 2)[:, there]
    return rows


def _extent(original: Tensor) -> tuple[int, NDArray[np.int64], NDArray[np.bool_]]:
    """Frames up to the last one with a body, which bodies are ever there, and where: (frames, bodies)."""
    there = present(original[None])[0, 0, :, 0].numpy()
    frames = int(np.flatnonzero(there.any(1)).max(initial=0)) + 1
    bodies = np.flatnonzero(there.any(0))
    return frames, bodies, there[:frames][:, bodies]


def _size(shown: Shown) -> int:
    """Characters that a motion takes in the page with all its frames."""
    frames, bodies, _ = _extent(shown.original)
    values = frames * len(bodies) * shown.original.shape[2] * 3
    return -(-values * 2 * 4 // 3) * (1 + len(shown.changed))


def _axes(axis: int, sign: int) -> NDArray[np.float64]:
    """The rotation from the data's axes to (right, up, toward the viewer): (3, 3)."""
    turn = np.zeros((3, 3))
    for row, (column, way) in enumerate(_VIEWS[axis]):
        turn[row, column] = way * (1 if row == 0 else sign)
    return turn


def _example(shown: Shown, skeleton: Skeleton, axes: NDArray[np.float64], step: int) -> dict[str, Any]:
    frames, bodies, there = _extent(shown.original)

    def rows(motion: Tensor) -> NDArray[np.float64]:
        """(frames, bodies, joints, 3) of what is shown, in the view's axes."""
        part = motion.double().numpy()[:, :frames:step][..., bodies]
        turned: NDArray[np.float64] = np.einsum("ac,ctvm->tmva", axes, part)
        return turned

    original = rows(shown.original)
    missing = ~there[::step]
    place = original[~missing].mean((0, 1)) if not missing.all() else np.zeros(3)
    return {
        "frames": frames,
        "bodies": [int(body) + 1 for body in bodies],
        "yaw": _facing(original[~missing], skeleton),
        "original": _pack(original - place, _FINEST, missing),
        "changes": {method: _pack(rows(made) - original, 0.0, missing) for method, made in shown.changed.items()},
        "details": list(shown.details),
        "clean": list(shown.clean),
        "answers": {method: [list(answer) for answer in said] for method, said in shown.answers.items()},
    }


def _facing(rows: NDArray[np.float64], skeleton: Skeleton) -> float:
    """The turn, in radians, after which a body faces the viewer: its left is on the viewer's right."""
    if not skeleton.sides or not len(rows):
        return 0.0
    left, right = (list(side) for side in zip(*skeleton.sides, strict=True))
    across = (rows[:, left] - rows[:, right]).mean((0, 1))
    return round(float(np.arctan2(across[2], across[0])), 3)


def _pack(values: NDArray[np.float64], finest: float, missing: NDArray[np.bool_]) -> dict[str, Any]:
    """Numbers as little-endian int16 times a unit in metres."""
    unit = max(finest, float(np.abs(values[~missing]).max(initial=0.0)) / 32767) or 1.0
    whole = (values / unit).round()
    whole[missing] = _ABSENT
    return {"unit": unit, "data": base64.b64encode(whole.astype("<i2").tobytes()).decode("ascii")}


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
