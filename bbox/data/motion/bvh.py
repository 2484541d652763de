"""Motion capture in BVH files: windows of joint positions."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bbox.data.base import MotionSet
from bbox.data.code.format import number_labels
from bbox.data.motion.bvh_clip import Clip, read_bvh
from bbox.data.motion.text import motion_files
from bbox.data.motion.units import guess_unit, positive, read_unit
from bbox.data.motion.windows import cut, resample
from bbox.errors import InputError, UsageError
from bbox.motion.skeleton import Skeleton
from bbox.motion.skeletons import mirror_pairs

__all__ = ["load_bvh"]

_SCHEMES = {
    "content": r"^[^_]+_([^_]+)_[^_]+_\d+$",
    "style": r"^[^_]+_[^_]+_([^_]+)_\d+$",
    "content-style": r"^[^_]+_([^_]+_[^_]+)_\d+$",
}
_log = logging.getLogger(__name__)


def load_bvh(
    path: Path,
    *,
    frames: int = 48,
    stride: int = 24,
    rate: float = 30.0,
    label: str | None = None,
    unit: str | None = None,
    center: bool = True,
    ends: bool = False,
    limit: int | None = None,
) -> MotionSet:
    """Load one BVH file, or those of a folder, as windows of joint positions in metres, one body.

    A clip shorter than a window gives none, and the log counts them. A ROOT that stands for the scene rather than the
    body (its only child moves away from it, as in Bandai-Namco's files) is left out.

    Args:
        frames: of a window.
        stride: frames from the start of a window to the start of the next.
        rate: frames a second; clips of another rate are interpolated linearly.
        label: ``folder`` (the subfolder of ``path``), ``none``, ``content``, ``style`` or ``content-style`` (of names
            like Bandai-Namco's ``dataset-2_CONTENT_STYLE_001.bvh``), or a regular expression whose one group is the
            label in a name without its ending. Default: ``folder`` where all files lie in subfolders, else ``none``.
        unit: ``m``, ``cm``, ``mm``, ``inch``, or the number of metres in a unit; default by the size of the first body.
        center: take each window's root in its first frame as the origin of x and z; heights (y) stay.
        ends: keep End Sites, the tips of fingers and toes that have no channels.
        limit: read only so many windows.

    Raises:
        UsageError: an option is out of range.
        InputError: a file is refused, bodies differ, or no clip is long enough.
    """
    positive(frames=frames, stride=stride, rate=rate, limit=limit)
    scale = None if unit is None else read_unit(unit)
    files, names = motion_files(path, ".bvh")
    numbers, classes = number_labels(path, _labels(path, names, label))
    windows: list[NDArray[np.float32]] = []
    ids: list[str] = []
    labels: list[int] = []
    layout, kept, short = None, np.zeros(0, np.int64), 0
    for place, (file, name) in enumerate(zip(files, names, strict=True)):
        clip = read_bvh(file)
        if layout is None:
            layout, kept = clip, _kept(clip, ends)
        elif (clip.names, clip.parents) != (layout.names, layout.parents):
            raise InputError(f"{file}: its joints are not those of {files[0]}; load each kind of body by itself")
        positions = clip.positions()[:, kept]
        if scale is None:
            scale = guess_unit(file, positions[0], _parents(clip, kept))
        cuts = cut(resample(positions * scale, 1.0 / clip.frame_time, rate), frames, stride)
        short += len(cuts) == 0
        if center:
            cuts[..., [0, 2]] -= cuts[:, :1, :1, [0, 2]]
        windows.append(cuts.astype(np.float32))
        ids += [f"{name}@{number * stride}" for number in range(len(cuts))]
        labels += [0 if numbers is None else numbers[place]] * len(cuts)
        if limit is not None and len(ids) >= limit:
            break
    if not ids or layout is None:
        raise InputError(f"{path}: no clip has {frames} frames at {rate:g} a second; give fewer, as in frames=16")
    if short:
        _log.warning("%s: left out %d of %d clips, which are shorter than %d frames", path, short, len(windows), frames)
    inputs = torch.from_numpy(np.concatenate(windows)[:limit]).permute(0, 3, 1, 2)[..., None].contiguous()
    joints = tuple(layout.names[j] for j in kept)
    return MotionSet(
        name=str(path),
        inputs=inputs,
        labels=None if numbers is None else torch.tensor(labels[:limit]),
        indices=torch.arange(len(inputs)),
        ids=tuple(ids[:limit]),
        class_names=classes,
        skeleton=Skeleton(path.stem, joints, _parents(layout, kept), mirror_pairs(joints)),
        frame_rate=rate,
    )


def _kept(clip: Clip, ends: bool) -> NDArray[np.int64]:
    """The joints of the body."""
    kept = [joint for joint in range(len(clip.names)) if ends or not clip.ends[joint]]
    children = [joint for joint, parent in enumerate(clip.parents) if parent == 0]
    if len(children) == 1:
        from_root = clip.translations()[:, children[0]]
        if np.ptp(from_root, 0).max() > 1e-3 * np.abs(from_root).max():
            _log.info("ROOT %s stands for the scene and is left out: %s moves away from it", *clip.names[:2])
            kept.remove(0)
    return np.array(kept)


def _parents(clip: Clip, kept: NDArray[np.int64]) -> tuple[int, ...]:
    place = {joint: number for number, joint in enumerate(kept.tolist())}
    return tuple(place.get(clip.parents[joint], -1) for joint in place)


def _labels(path: Path, names: Sequence[str], label: str | None) -> list[str | None]:
    """The label of each file, by its name."""
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if label == "none" or (label is None and None in folders):
        return [None] * len(names)
    if label in (None, "folder"):
        if None in folders:
            raise InputError(f"{path}: {names[folders.index(None)]} lies in no subfolder, so label=folder has no label")
        return folders
    pattern = _SCHEMES.get(str(label), str(label))
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"label is {label!r}, which is no regular expression ({error})") from error
    if search.groups != 1:
        known = ", ".join(("folder", "none", *_SCHEMES))
        raise UsageError(f"label is {label!r}, expected {known}, or a regular expression with one group")
    found: list[str | None] = []
    for name in names:
        match = search.search(Path(name).stem)
        if match is None or not match[1]:
            raise InputError(f"{path}: the name {name} gives no label by label={label} ({pattern})")
        found.append(match[1])
    return found
