"""One BVH file: its skeleton (HIERARCHY), its channels (MOTION), and where the joints are (forward kinematics).

The format is that of Biovision as described by Meredith and Maddock, "Motion capture file formats explained" (2001).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bbox.data.motion.text import read_numbers, read_text
from bbox.errors import InputError

__all__ = ["Clip", "read_bvh"]

_Array = NDArray[np.float64]
_HEADER = re.compile(r"\s*Frames:\s*(\d+)\s+Frame Time:\s*(\S+)", re.IGNORECASE)
_CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """What a BVH file says, lengths in the file's unit.

    Attributes:
        names, parents: of each joint, a parent before its children; an End Site is called after its joint.
        ends: which of them are End Sites.
        offsets: (joints, 3), from the parent.
        channels: of each joint, in the file's order, (axis, whether it is a rotation).
        values: (frames, channels), angles in degrees.
        frame_time: seconds.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    ends: tuple[bool, ...]
    offsets: _Array
    channels: tuple[tuple[tuple[int, bool], ...], ...]
    values: _Array
    frame_time: float

    def translations(self) -> _Array:
        """Each joint from its parent, in the parent's frame: (frames, joints, 3).

        A position channel replaces that axis of the offset, as Blender and MotionBuilder have it.
        """
        moved = np.repeat(self.offsets[None], len(self.values), 0)
        for joint, axis, column in self._columns(rotation=False):
            moved[:, joint, axis] = self.values[:, column]
        return moved

    def rotations(self) -> _Array:
        """Each joint's own rotation, (frames, joints, 3, 3): the product of its channels in the file's order."""
        joints = len(self.names)
        turns = max(sum(rotation for _, rotation in channels) for channels in self.channels)
        angles = np.zeros((len(self.values), joints, turns))
        crosses = np.zeros((joints, turns, 3, 3))  # matrix of the cross product with each turn's axis
        taken = [0] * joints
        for joint, axis, column in self._columns(rotation=True):
            turn, (b, c) = taken[joint], ((axis + 1) % 3, (axis + 2) % 3)
            angles[:, joint, turn] = np.deg2rad(self.values[:, column])
            crosses[joint, turn, c, b], crosses[joint, turn, b, c] = 1.0, -1.0
            taken[joint] += 1
        sine, versine = np.sin(angles)[..., None, None], 1.0 - np.cos(angles)[..., None, None]
        turned = np.eye(3) + sine * crosses + versine * (crosses @ crosses)  # Rodrigues
        product = np.tile(np.eye(3), (len(self.values), joints, 1, 1))
        for turn in range(turns):
            product = product @ turned[:, :, turn]
        return product

    def positions(self) -> _Array:
        """Where each joint is: (frames, joints, 3)."""
        places, frames = self.translations(), self.rotations()
        for joints in self._levels():
            parents = np.array(self.parents)[joints]
            places[:, joints] = places[:, parents] + (frames[:, parents] @ places[:, joints, :, None])[..., 0]
            frames[:, joints] = frames[:, parents] @ frames[:, joints]
        return places

    def _columns(self, *, rotation: bool) -> list[tuple[int, int, int]]:
        """(joint, axis, column of ``values``) of the channels of one kind."""
        flat = [(joint, *channel) for joint, channels in enumerate(self.channels) for channel in channels]
        return [(joint, axis, column) for column, (joint, axis, turns) in enumerate(flat) if turns == rotation]

    def _levels(self) -> list[list[int]]:
        """The joints below the roots by their depth."""
        depths = [0] * len(self.names)
        for joint, parent in enumerate(self.parents):
            depths[joint] = 0 if parent == -1 else depths[parent] + 1
        return [[j for j, depth in enumerate(depths) if depth == level] for level in range(1, max(depths) + 1)]


def read_bvh(path: Path) -> Clip:
    """Read a BVH file.

    Raises:
        InputError: it cannot be read, is no BVH file, is cut off, or holds what is no finite number.
    """
    head, mark, motion = read_text(path).partition("MOTION")
    words = head.split()
    if words[:1] != ["HIERARCHY"]:
        raise InputError(f"{path}: not a BVH file (it does not begin with HIERARCHY)")
    joints = _Joints(path, words[1:])
    header = _HEADER.match(motion)
    if header is None:
        raise InputError(f"{path}: no 'Frames:' and 'Frame Time:' after {'MOTION' if mark else 'the skeleton'}")
    frames, width = int(header[1]), sum(map(len, joints.channels))
    if frames == 0 or width == 0:
        raise InputError(f"{path}: {frames} frames of {width} channels, expected at least one of each")
    try:
        frame_time = float(header[2])
    except ValueError:
        frame_time = 0.0
    if not 0.0 < frame_time < float("inf"):
        raise InputError(f"{path}: frame time is {header[2]}, expected seconds above 0")
    values = read_numbers(path, motion[header.end() :])
    if values.size != frames * width:
        raise InputError(
            f"{path}: {values.size} numbers, expected {frames * width} ({frames} frames of {width} channels); "
            f"the file is {'cut off' if values.size < frames * width else 'damaged'}"
        )
    return Clip(
        tuple(joints.names),
        tuple(joints.parents),
        tuple(joints.ends),
        np.array(joints.offsets),
        tuple(joints.channels),
        values.reshape(frames, width),
        frame_time,
    )


class _Joints:
    """The words of a HIERARCHY, taken one by one."""

    def __init__(self, path: Path, words: list[str]) -> None:
        self.names: list[str] = []
        self.parents: list[int] = []
        self.ends: list[bool] = []
        self.offsets: list[list[float]] = []
        self.channels: list[tuple[tuple[int, bool], ...]] = []
        self._path = path
        self._words = words[::-1]
        open_joints: list[int] = []
        while self._words:
            word = self._word()
            if word == "}" and open_joints:
                open_joints.pop()
            elif word in ("ROOT", "JOINT", "End") and (word == "ROOT") == (not open_joints):
                self._open(word, open_joints[-1] if open_joints else -1)
                open_joints.append(len(self.names) - 1)
            elif word == "OFFSET" and open_joints:
                self.offsets[open_joints[-1]] = [self._number() for _ in range(3)]
            elif word == "CHANNELS" and open_joints:
                self.channels[open_joints[-1]] = tuple(self._channel() for _ in range(int(self._number())))
            else:
                raise self._fault(f"{word!r} where none is expected")
        if open_joints or not self.names:
            raise self._fault("it ends in the middle" if open_joints else "it has no ROOT")

    def _open(self, kind: str, parent: int) -> None:
        words = []
        while (word := self._word()) != "{":
            words.append(word)
        if kind != "End" and not words:
            raise self._fault(f"a {kind} without a name")
        self.names.append(f"{self.names[parent]}_end" if kind == "End" else " ".join(words))
        self.parents.append(parent)
        self.ends.append(kind == "End")
        self.offsets.append([0.0, 0.0, 0.0])
        self.channels.append(())

    def _channel(self) -> tuple[int, bool]:
        word = self._word()
        match = _CHANNEL.fullmatch(word)
        if match is None:
            raise self._fault(f"the channel {word!r}; known are Xposition to Zposition and Xrotation to Zrotation")
        return "XYZ".index(match[1].upper()), match[2].lower() == "rotation"

    def _number(self) -> float:
        word = self._word()
        try:
            number = float(word)
        except ValueError:
            number = float("nan")
        if not abs(number) < float("inf"):
            raise self._fault(f"{word!r} where a number is expected")
        return number

    def _word(self) -> str:
        if not self._words:
            raise self._fault("it ends in the middle")
        return self._words.pop()

    def _fault(self, what: str) -> InputError:
        return InputError(f"{self._path}: the HIERARCHY is not readable: {what}")
