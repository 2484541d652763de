"""Make the embedded motion data: ``python -m bbox.zoo.make_motion``, after ``pip install pybullet``.

The wheel of pybullet carries the 15 motion capture clips of DeepMimic (Peng et al., SIGGRAPH 2018) as joint rotations,
and its humanoid. Rotations are interpolated by splines to 120 frames a second (the files have 16 to 60), and joints
placed by forward kinematics. pybullet itself is only read, never run.
"""

from __future__ import annotations

import datetime
import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from bbox.errors import UsageError
from bbox.files import write_whole
from bbox.motion.skeleton import Skeleton
from bbox.motion.skeletons import SKELETONS
from bbox.zoo.motion import ASSETS, FRAME_RATE, UNIT

__all__ = ["clip_names", "main", "make_clips", "read_offsets"]

SCALE = 0.25  # of the humanoid's file to metres: the ``globalScaling`` of pybullet's DeepMimic
# Joints that turn, in the order of a frame: by a quaternion (w, x, y, z), or about z by an angle.
TURNING = {
    "root": 4, "chest": 4, "neck": 4, "right_hip": 4, "right_knee": 1, "right_ankle": 4, "right_shoulder": 4,
    "right_elbow": 1, "left_hip": 4, "left_knee": 1, "left_ankle": 4, "left_shoulder": 4, "left_elbow": 1,
}  # fmt: skip
Floats = NDArray[np.float64]


def package() -> Path:
    """The data folder of the installed pybullet.

    Raises:
        UsageError: it is not installed.
    """
    found = find_spec("pybullet_data")
    if found is None or found.origin is None:
        raise UsageError("pybullet is not installed; pip install pybullet")
    return Path(found.origin).parent


def clip_names(folder: Path) -> list[str]:
    """The humanoid's clips by name, sorted."""
    return sorted(path.stem.removeprefix("humanoid3d_") for path in (folder / "data/motions").glob("humanoid3d_*.txt"))


def read_offsets(folder: Path, skeleton: Skeleton) -> Floats:
    """Where each joint lies in its parent's frame, in metres: (joints, 3); zero for the root."""
    text = (folder / "humanoid/humanoid.urdf").read_text("utf-8")
    tree = ElementTree.fromstring(text[: text.index("</robot>") + len("</robot>")])  # a stray byte follows
    offsets = np.zeros((len(skeleton), 3))
    for joint in tree.findall("joint"):
        name, origin = joint.get("name"), joint.find("origin")
        if name in skeleton.joints and name != "root" and origin is not None:
            offsets[skeleton.joints.index(name)] = [float(x) for x in (origin.get("xyz") or "").split()]
    return offsets * SCALE


def place_joints(frames: Floats, offsets: Floats, skeleton: Skeleton) -> Floats:
    """Positions of the joints of one clip at ``FRAME_RATE``, in metres, y up: (frames, joints, 3).

    Args:
        frames: rows of the file: how long the frame lasts in seconds, the root's position, and ``TURNING``.
    """
    times = np.concatenate([[0.0], frames[:-1, 0].cumsum()])
    moments = np.arange(0.0, times[-1] + 1e-9, 1 / FRAME_RATE)
    root = CubicSpline(times, frames[:, 1:4])(moments)
    turns: dict[str, Rotation] = {}
    column = 4
    for name, size in TURNING.items():
        values = frames[:, column : column + size]
        given = Rotation.from_quat(values[:, [1, 2, 3, 0]]) if size == 4 else Rotation.from_euler("z", values)
        turns[name] = RotationSpline(times, given)(moments)
        column += size
    places, globals_ = np.zeros((len(moments), len(skeleton), 3)), dict[int, Rotation]()
    for joint, parent in enumerate(skeleton.parents):
        turn = turns.get(skeleton.joints[joint], Rotation.identity(len(moments)))
        globals_[joint] = turn if parent == -1 else globals_[parent] * turn
        places[:, joint] = root if parent == -1 else places[:, parent] + globals_[parent].apply(offsets[joint])
    return places


def make_clips(folder: Path) -> tuple[dict[str, NDArray[np.int16]], dict[str, bool]]:
    """Every clip in units of ``UNIT``, and which of them loop.

    The root of the first frame is the origin of x and z; y is the height over the ground.
    """
    skeleton = SKELETONS["humanoid15"]
    offsets = read_offsets(folder, skeleton)
    clips, loops = {}, {}
    for name in clip_names(folder):
        stored: dict[str, Any] = json.loads((folder / f"data/motions/humanoid3d_{name}.txt").read_text("utf-8"))
        places = place_joints(np.array(stored["Frames"], dtype=np.float64), offsets, skeleton)
        places[..., ::2] -= places[:1, :1, ::2].copy()
        clips[name] = np.round(places / UNIT).astype(np.int16)
        loops[name] = stored["Loop"] == "wrap"
    return clips, loops


def main() -> None:
    """Write ``motion.npz`` and ``motion.json`` in ``assets``."""
    clips, loops = make_clips(package())
    ASSETS.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    # Differences from frame to frame take half the room.
    steps = {name: np.diff(clip, axis=0, prepend=np.int16(0)) for name, clip in clips.items()}
    np.savez_compressed(buffer, allow_pickle=False, **steps)
    write_whole(ASSETS / "motion.npz", buffer.getvalue())
    card = {
        "name": "motion",
        "what": "motion capture of 15 actions, positions of 15 joints as steps from frame to frame in 0.1 mm, y up",
        "skeleton": "humanoid15",
        "frame_rate": FRAME_RATE,
        "clips": {name: {"frames": len(clip), "loops": loops[name]} for name, clip in clips.items()},
        "command": "python -m bbox.zoo.make_motion",
        "versions": {package: version(package) for package in ("numpy", "scipy", "pybullet")},
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "origin": (
            "motion clips and humanoid of DeepMimic (X. B. Peng, P. Abbeel, S. Levine, M. van de Panne, SIGGRAPH "
            "2018), as the Python package pybullet (E. Coumans and Y. Bai) carries them in pybullet_data"
        ),
        "licence": "zlib, that of pybullet's wheel",
    }
    text = json.dumps(card, indent=2) + "\n"
    write_whole(ASSETS / "motion.json", text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
