"""Kinetics-skeleton: OpenPose's joints in pictures, a JSON file a video (Yan et al., AAAI 2018)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbox.data.base import MotionSet
from bbox.data.motion.text import motion_files, read_text
from bbox.data.motion.units import positive, warn_of_confidence
from bbox.errors import InputError
from bbox.motion.skeletons import skeleton_named

__all__ = ["load_kinetics"]

_SEEN = 5  # people of a frame that the public pipelines look at
_log = logging.getLogger(__name__)


def load_kinetics(path: Path, *, frames: int = 300, bodies: int = 2, limit: int | None = None) -> MotionSet:
    """Load one JSON file, or those of a folder sorted by path, as the pipelines of ST-GCN and 2s-AGCN do.

    The axes are x and y in parts of the picture's width and height, from its middle, y upwards, and **the confidence of
    the joint in place of z**: distances are no metres. A joint that is not found is zeros. The people of each frame
    are sorted by their confidence, so that a body may change its place from frame to frame. Videos in which nobody is
    found are left out, and the log counts them.

    Args:
        frames: of each motion: by the file's frame_index, longer ones are cut.
        bodies: people to keep in each frame, those that are found most surely.
        limit: read only so many motions.

    Raises:
        UsageError: an option is out of range.
        InputError: a file is refused, or nobody is found in any.
    """
    positive(frames=frames, bodies=bodies, limit=limit)
    skeleton = skeleton_named("kinetics18")
    motions: list[NDArray[np.float32]] = []
    labels: list[int | None] = []
    classes: dict[int, str] = {}
    rows: list[int] = []
    files, names = motion_files(path, ".json")
    for place, file in enumerate(files):
        video = _video(file)
        motion = _motion(file, video["data"], frames, len(skeleton), bodies)
        if not motion.any():
            continue
        number = video.get("label_index")
        labels.append(number if isinstance(number, int) and number >= 0 else None)
        if labels[-1] is not None:
            classes[labels[-1]] = str(video.get("label", labels[-1]))
        motions.append(motion)
        rows.append(place)
        if len(rows) == limit:
            break
    if not rows:
        raise InputError(f"{path}: nobody is found in any frame")
    if place + 1 > len(rows):
        _log.warning("%s: left out %d of %d videos, which show nobody", path, place + 1 - len(rows), place + 1)
    warn_of_confidence(path)
    known = [number for number in labels if number is not None]
    return MotionSet(
        name=str(path),
        inputs=torch.from_numpy(np.stack(motions)),
        labels=torch.tensor(known) if len(known) == len(rows) else None,
        indices=torch.tensor(rows),
        ids=tuple(names[row] for row in rows),
        class_names=tuple(classes.get(number, str(number)) for number in range(max(classes) + 1)) if classes else None,
        skeleton=skeleton,
        frame_rate=30.0,
    )


def _video(path: Path) -> dict[str, Any]:
    try:
        video = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(video, dict) or not isinstance(video.get("data"), list):
        raise InputError(f"{path}: expected an object with 'data', a list of frames")
    return video


def _motion(path: Path, listed: list[Any], frames: int, joints: int, bodies: int) -> NDArray[np.float32]:
    """(3, frames, joints, bodies)."""
    motion = np.zeros((3, frames, joints, max(bodies, _SEEN)))
    for frame, body, pose, score in _people(path, listed, joints):
        if frame < frames and body < _SEEN:
            motion[0, frame, :, body], motion[1, frame, :, body] = pose[0::2] - 0.5, 0.5 - pose[1::2]
            motion[2, frame, :, body] = score
    motion[:, motion[2] == 0] = 0.0
    order = (-motion[2].sum(1)).argsort(1, kind="stable")  # (frames, people)
    return np.take_along_axis(motion, order[None, :, None], 3)[..., :bodies].astype(np.float32)


def _people(path: Path, listed: list[Any], joints: int) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any]]]:
    """(frame, number in the frame, pose, score) of everybody."""
    for number, item in enumerate(listed):
        try:
            frame = int(item["frame_index"])
            for body, person in enumerate(item["skeleton"]):
                pose, score = np.array(person["pose"], float), np.array(person["score"], float)
                if frame < 0 or pose.shape != (2 * joints,) or score.shape != (joints,):
                    raise ValueError(f"{pose.size} places and {score.size} scores of {joints} joints")
                yield frame, body, pose, score
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: entry {number + 1} of 'data' is not a frame of people ({error})") from error
