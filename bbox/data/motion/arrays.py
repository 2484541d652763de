"""Motions in arrays: bbox's own .npz, the .npz of CTR-GCN, and the .npy of ST-GCN and 2s-AGCN."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bbox.data.base import MotionSet
from bbox.data.motion.rows import ArrayFile
from bbox.data.motion.units import positive, read_unit, warn_of_confidence
from bbox.errors import InputError, UsageError
from bbox.files import write_whole
from bbox.motion.skeleton import Skeleton
from bbox.motion.skeletons import mirror_pairs, skeleton_for, skeleton_named

__all__ = ["load_motion_arrays", "save_motions"]

_log = logging.getLogger(__name__)


def load_motion_arrays(
    path: Path,
    *,
    split: Literal["test", "train"] = "test",
    labels: Path | None = None,
    skeleton: str | None = None,
    rate: float | None = None,
    unit: str = "m",
    limit: int | None = None,
) -> MotionSet:
    """Load motions from an .npz or .npy file. One without a body is left out, and the log counts them.

    - .npz with ``inputs`` or ``x``: (n, 3, frames, joints, bodies), and what there is of ``labels`` or ``y``,
      ``parents``, ``joints``, ``frame_rate``, ``class_names``, ``ids``, ``indices`` (``save_motions`` writes them).
    - .npz with ``x_test`` or ``x_train``: CTR-GCN's (n, frames, bodies * joints * 3), labels one-hot in ``y_test``,
      ``y_train``.
    - .npy: the (n, 3, frames, joints, bodies) of ST-GCN and 2s-AGCN, labels in another file.

    Args:
        split: of a file like CTR-GCN's.
        labels: a .npy file with one integer a motion.
        skeleton: one that bbox knows by name (``ntu25`` ...); default the file's own, else by the number of joints.
        rate: frames a second; default the file's own, else 30.
        unit: of lengths: ``m``, ``cm``, ``mm``, ``inch``, or the number of metres in it.
        limit: read only so many, the first; the rest of the file is not touched.

    Raises:
        UsageError: an option is wrong.
        InputError: the file is refused.
    """
    positive(rate=rate, limit=limit)
    file, scale = ArrayFile(path, limit), read_unit(unit)
    if {"x_test", "x_train"} & set(file.names):
        inputs, numbers = _flat(file.floats(f"x_{split}"), file, skeleton), _one_hot(file, f"y_{split}")
    else:
        inputs = file.floats(*([""] if path.suffix.lower() == ".npy" else ["inputs", "x"]))
        numbers = _whole(path, "labels", file.pick("labels", "y"))
    if inputs.ndim != 5:
        raise InputError(f"{path}: motions have shape {inputs.shape}, expected (motions, 3, frames, joints, bodies)")
    if labels is not None:
        if numbers is not None:
            raise UsageError(f"{path} has labels of its own; leave out {labels}")
        numbers = _label_file(labels, limit)
    ids, places = file.texts("ids"), _whole(path, "indices", file.pick("indices"))
    for what, column in (("labels", numbers), ("ids", ids), ("indices", places)):
        if column is not None and len(column) != len(inputs):
            raise InputError(f"{path}: {len(inputs)} motions but {len(column)} {what}")
    motions = torch.from_numpy(inputs)
    there = (motions != 0).flatten(1).any(1)
    rows = there.nonzero().flatten()
    if len(rows) < len(motions):
        _log.warning("%s: left out %d of %d motions, which hold no body", path, len(motions) - len(rows), len(motions))
        motions = motions[rows]
    body = _skeleton(ArrayFile(path), skeleton, inputs.shape[3])
    if body.name == "kinetics18":
        warn_of_confidence(path)
    return MotionSet(
        name=str(path),
        inputs=motions if scale == 1.0 else motions * scale,
        labels=None if numbers is None else torch.from_numpy(numbers)[rows],
        indices=rows if places is None else torch.from_numpy(places)[rows],
        ids=tuple(str(row) if ids is None else ids[row] for row in rows.tolist()),
        class_names=ArrayFile(path).texts("class_names"),
        skeleton=body,
        frame_rate=rate or _own_rate(file),
    )


def save_motions(path: Path, data: MotionSet) -> None:
    """Write motions to an .npz file that ``motion:FILE.npz`` loads again, everything but the name of the set."""
    arrays: dict[str, Any] = {
        "inputs": data.inputs.cpu().numpy(),
        "indices": data.indices.numpy(),
        "ids": np.array(data.ids),
        "skeleton": np.array(data.skeleton.name),
        "joints": np.array(data.skeleton.joints),
        "parents": np.array(data.skeleton.parents),
        "axes": np.array(data.skeleton.axes),
        "sides": np.array(data.skeleton.sides, np.int64).reshape(-1, 2),
        "frame_rate": np.array(data.frame_rate),
    }
    if data.labels is not None:
        arrays["labels"] = data.labels.numpy()
    if data.class_names is not None:
        arrays["class_names"] = np.array(data.class_names)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def _flat(flat: NDArray[np.float32], file: ArrayFile, skeleton: str | None) -> NDArray[np.float32]:
    """CTR-GCN's rows of (body, joint, axis) as (n, 3, frames, joints, bodies)."""
    joints = len(skeleton_named(skeleton or "ntu25"))
    if flat.ndim != 3 or flat.shape[2] % (joints * 3):
        raise InputError(f"{file.path}: shape {flat.shape}, expected (motions, frames, bodies * {joints} joints * 3)")
    apart = flat.reshape(*flat.shape[:2], -1, joints, 3)
    return np.ascontiguousarray(apart.transpose(0, 4, 1, 3, 2))


def _one_hot(file: ArrayFile, name: str) -> NDArray[np.int64] | None:
    rows = file.pick(name)
    if rows is None or rows.ndim == 1:
        return _whole(file.path, name, rows)
    if rows.ndim != 2 or not (np.count_nonzero(rows, 1) == 1).all():
        raise InputError(f"{file.path}: {name} has shape {rows.shape}, expected rows with a single 1")
    return np.asarray(rows.argmax(1), np.int64)


def _whole(path: Path, what: str, numbers: NDArray[Any] | None) -> NDArray[np.int64] | None:
    if numbers is not None and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
        raise InputError(f"{path}: {what} are {numbers.shape} {numbers.dtype}, expected one integer a motion")
    return None if numbers is None else np.asarray(numbers, np.int64)


def _label_file(path: Path, limit: int | None) -> NDArray[np.int64] | None:
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(
            f"labels {path}: a pickle can run code when it is read; if you trust it, convert it once with python -c "
            f"\"import pickle, numpy; numpy.save('labels.npy', pickle.load(open('{path}', 'rb'))[1])\", "
            "and give labels=labels.npy"
        )
    if path.suffix.lower() != ".npy":
        raise InputError(f"labels {path}: expected a .npy file with one integer a motion")
    return _whole(path, "labels", ArrayFile(path, limit).pick(""))


def _own_rate(file: ArrayFile) -> float:
    own = file.pick("frame_rate")
    if own is not None and (own.size != 1 or own.dtype.kind not in "fiu"):
        raise InputError(f"{file.path}: frame_rate is {own.shape} {own.dtype}, expected one number")
    return 30.0 if own is None else float(own.item())


def _skeleton(file: ArrayFile, name: str | None, count: int) -> Skeleton:
    """The skeleton by the option, else by the file's own arrays, else by the number of joints."""
    parents = file.pick("parents")
    if name is not None:
        return skeleton_named(name)
    if parents is None:
        return skeleton_for(count)
    whole = _whole(file.path, "parents", parents)
    joints = file.texts("joints") or tuple(f"joint {number}" for number in range(count))
    sides, own_name, axes = file.pick("sides"), file.pick("skeleton"), file.pick("axes")
    if sides is not None and (sides.dtype.kind not in "iu" or sides.shape[1:] != (2,)):
        raise InputError(f"{file.path}: sides are {sides.shape} {sides.dtype}, expected pairs of joints")
    try:
        return Skeleton(
            file.path.stem if own_name is None else str(own_name),
            joints,
            () if whole is None else tuple(whole.tolist()),
            mirror_pairs(joints) if sides is None else tuple((int(left), int(right)) for left, right in sides),
            3 if axes is None else int(axes),
        )
    except UsageError as error:
        raise InputError(f"{file.path}: {error}") from error
