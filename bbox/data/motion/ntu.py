"""NTU RGB+D 60 and 120: the .skeleton text files of Kinect v2 (Shahroudy et al., CVPR 2016; Liu et al., PAMI 2020)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bbox.data.base import MotionSet
from bbox.data.motion.text import motion_files, read_numbers, read_text
from bbox.data.motion.units import positive
from bbox.errors import InputError
from bbox.motion.skeletons import skeleton_named

__all__ = ["load_ntu"]

Subset = Literal["all", "xsub-train", "xsub-test", "xview-train", "xview-test", "xset-train", "xset-test"]

_NAME = re.compile(r"S(?P<setup>\d{3})C(?P<camera>\d{3})P(?P<subject>\d{3})R\d{3}A(?P<action>\d{3})")
# The subjects that train in NTU RGB+D 120; those up to 40 are the ones that train in NTU RGB+D (60).
_SUBJECTS = {
    *(1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38),
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87), 89, *range(91, 96), 97, 98, 100, 103),
}
_TRAINS: Mapping[str, Callable[[re.Match[str]], bool]] = {
    "xsub": lambda name: int(name["subject"]) in _SUBJECTS,
    "xview": lambda name: int(name["camera"]) in (2, 3),
    "xset": lambda name: int(name["setup"]) % 2 == 0,
}
_SPINE = 1  # the middle of the spine
_log = logging.getLogger(__name__)


def load_ntu(
    path: Path,
    *,
    frames: int = 300,
    bodies: int = 2,
    subset: Subset = "all",
    center: bool = True,
    limit: int | None = None,
) -> MotionSet:
    """Load one .skeleton file, or those of a folder sorted by path, in metres at 30 frames a second.

    A motion begins and ends with a frame that holds a body, and is then padded with zeros, or its first ``frames``
    frames are taken. A body is what has one body ID; one that Kinect loses and finds again under another ID is two.
    Labels are the action of the file name less one. In a folder, files that hold no body (535 of NTU RGB+D 120) are
    left out, and the log counts them.

    Args:
        frames: of each motion.
        bodies: keep so many, those that spread the most (as 2s-AGCN: the sum over axes of the standard deviation over
            frames and joints), the widest first.
        subset: by the published protocols: subject, camera (NTU RGB+D 60) or setup (120), each for training or testing.
        center: take the middle of the first body's spine, in its first frame, as the origin (as CTR-GCN).
        limit: read only so many motions.

    Raises:
        UsageError: an option is out of range.
        InputError: a file is refused, or none is in the subset.
    """
    positive(frames=frames, bodies=bodies, limit=limit)
    skeleton = skeleton_named("ntu25")
    files, names = motion_files(path, ".skeleton")
    matches = [_NAME.search(Path(name).stem) for name in names]
    chosen = [place for place, match in enumerate(matches) if _within(path, names[place], match, subset)]
    if not chosen:
        raise InputError(f"{path}: none of {len(names)} files is in the subset {subset}")
    motions: list[NDArray[np.float32]] = []
    rows: list[int] = []
    bodiless: list[str] = []
    for place in chosen:
        tracks = _read(files[place], len(skeleton))
        if tracks:
            motions.append(_arrange(tracks, frames, bodies, center))
            rows.append(place)
        else:
            bodiless.append(names[place])
        if len(rows) == limit:
            break
    if not rows:
        raise InputError(f"{path}: no body in any frame" + (" of any file" if path.is_dir() else ""))
    if bodiless:
        _log.warning("%s: left out %d files, which hold no body, first %s", path, len(bodiless), bodiless[0])
    actions = [match and int(match["action"]) - 1 for match in (matches[row] for row in rows)]
    labels = [action for action in actions if action is not None]
    return MotionSet(
        name=str(path),
        inputs=torch.from_numpy(np.stack(motions)),
        labels=torch.tensor(labels) if len(labels) == len(rows) else None,
        indices=torch.tensor(rows),
        ids=tuple(names[row] for row in rows),
        skeleton=skeleton,
        frame_rate=30.0,
    )


def _within(path: Path, name: str, match: re.Match[str] | None, subset: Subset) -> bool:
    if subset == "all":
        return True
    if match is None:
        raise InputError(f"{path}: the name {name} is not like S001C001P001R001A001, which subset={subset} goes by")
    rule, _, part = subset.partition("-")
    return _TRAINS[rule](match) == (part == "train")


def _read(path: Path, joints: int) -> list[NDArray[np.float64]]:
    """Each body by its ID, in the order of appearance: (frames, joints, 3), zeros where it is not seen."""
    lines = read_text(path).splitlines()
    place = 0

    def take(what: str) -> str:
        nonlocal place
        if place >= len(lines):
            raise InputError(f"{path}: cut off after line {len(lines)}, where {what} is expected")
        place += 1
        return lines[place - 1]

    def count(what: str) -> int:
        line = take(what).strip()
        if not (line.isascii() and line.isdigit()):
            raise InputError(f"{path}: line {place} is {line[:40]!r}, expected {what}")
        return int(line)

    places: list[str] = []
    order: list[tuple[str, int]] = []
    frames = count("the number of frames")
    for frame in range(frames):
        for _ in range(count("the number of bodies")):
            body = take("a body ID").partition(" ")[0]
            if (found := count("the number of joints")) != joints:
                raise InputError(f"{path}: line {place}: a body of {found} joints, expected {joints}")
            for _ in range(joints):
                words = take("a joint").split()  # x y z, places in two pictures, an orientation, and a state
                if len(words) != 12:
                    raise InputError(f"{path}: line {place} has {len(words)} numbers, expected the 12 of a joint")
                places += words[:3]
            order.append((body, frame))
    positions = read_numbers(path, " ".join(places)).reshape(-1, joints, 3)
    tracks = {body: np.zeros((frames, joints, 3)) for body, _ in order}
    for row, (body, frame) in enumerate(order):
        tracks[body][frame] = positions[row]
    return [track for track in tracks.values() if track.any()]


def _arrange(tracks: list[NDArray[np.float64]], frames: int, bodies: int, center: bool) -> NDArray[np.float32]:
    """(3, frames, joints, bodies) of the bodies that spread the most."""
    tracks = sorted(tracks, key=_spread, reverse=True)[:bodies]
    motion = np.stack(tracks, -1)  # (frames, joints, 3, bodies)
    there = (motion != 0).any((1, 2))
    if center:
        motion = (motion - tracks[0][there[:, 0]][0, _SPINE, :, None]) * there[:, None, None]
    first, last = np.flatnonzero(there.any(1))[[0, -1]]
    motion = motion[first : last + 1][:frames]
    arranged = np.zeros((3, frames, motion.shape[1], bodies), np.float32)
    arranged[:, : len(motion), :, : len(tracks)] = motion.transpose(2, 0, 1, 3)
    return arranged


def _spread(track: NDArray[np.float64]) -> float:
    return float(track[(track != 0).any((1, 2))].std((0, 1)).sum())
