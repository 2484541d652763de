"""The skeletons of public data sets, by name or by their number of joints."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bbox.errors import InputError, UsageError
from bbox.motion.skeleton import Skeleton

__all__ = ["SKELETONS", "mirror_pairs", "skeleton_for", "skeleton_named"]

_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
_SIDE = re.compile(
    r"[Ll]eft|[Rr]ight|LEFT|RIGHT"  # anywhere
    r"|(?<![A-Za-z])[LRlr](?![A-Za-z])"  # Hand_L, r_hand, hand.l
    r"|^[LRlr](?=[A-Z][a-z])"  # LHand, rHand
)


def mirror_pairs(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs (left, right) of joints, by their names.

    Example:
        >>> mirror_pairs(["Hips", "Hand_L", "Hand_R", "RightFoot", "LeftFoot"])
        ((1, 2), (4, 3))
    """
    place = {name: joint for joint, name in enumerate(joints)}
    pairs = []
    for joint, name in enumerate(joints):
        side = _SIDE.search(name)
        if side is not None and side[0][0] in "Ll" and (other := _SIDE.sub(_exchanged, name)) in place:
            pairs.append((joint, place[other]))
    return tuple(pairs)


def _exchanged(side: re.Match[str]) -> str:
    other = _OTHER[side[0].lower()]
    return other.upper() if side[0].isupper() else other.capitalize() if side[0][0].isupper() else other


def _skeleton(name: str, bones: str, axes: int = 3) -> Skeleton:
    """A skeleton from lines of ``joint`` (a root) or ``joint<parent``, in the order of the joints."""
    pairs = [bone.partition("<")[::2] for bone in bones.split()]
    joints = tuple(joint for joint, _ in pairs)
    parents = tuple(joints.index(parent) if parent else -1 for _, parent in pairs)
    return Skeleton(name, joints, parents, mirror_pairs(joints), axes)


SKELETONS = {
    skeleton.name: skeleton
    for skeleton in (
        # Kinect v2 as in NTU RGB+D (Shahroudy et al., CVPR 2016), less one from its numbers. Bones as in the graphs of
        # the public pipelines (ST-GCN, 2s-AGCN, CTR-GCN), where the tip of the hand hangs on the thumb.
        _skeleton(
            "ntu25",
            "SpineBase<SpineMid SpineMid<SpineShoulder Neck<SpineShoulder Head<Neck "
            "ShoulderLeft<SpineShoulder ElbowLeft<ShoulderLeft WristLeft<ElbowLeft HandLeft<WristLeft "
            "ShoulderRight<SpineShoulder ElbowRight<ShoulderRight WristRight<ElbowRight HandRight<WristRight "
            "HipLeft<SpineBase KneeLeft<HipLeft AnkleLeft<KneeLeft FootLeft<AnkleLeft "
            "HipRight<SpineBase KneeRight<HipRight AnkleRight<KneeRight FootRight<AnkleRight SpineShoulder "
            "HandTipLeft<ThumbLeft ThumbLeft<HandLeft HandTipRight<ThumbRight ThumbRight<HandRight",
        ),
        # OpenPose's COCO layout, with the bones of ST-GCN (Yan et al., AAAI 2018): hips hang on shoulders.
        _skeleton(
            "kinetics18",
            "Nose<Neck Neck RShoulder<Neck RElbow<RShoulder RWrist<RElbow LShoulder<Neck LElbow<LShoulder "
            "LWrist<LElbow RHip<RShoulder RKnee<RHip RAnkle<RKnee LHip<LShoulder LKnee<LHip LAnkle<LKnee REye<Nose "
            "LEye<Nose REar<REye LEar<LEye",
            axes=2,  # the third channel is OpenPose's confidence
        ),
        # DeepMimic's humanoid (Peng et al., SIGGRAPH 2018).
        _skeleton(
            "humanoid15",
            "root chest<root neck<chest right_hip<root right_knee<right_hip right_ankle<right_knee "
            "right_shoulder<chest right_elbow<right_shoulder right_wrist<right_elbow left_hip<root "
            "left_knee<left_hip left_ankle<left_knee left_shoulder<chest left_elbow<left_shoulder "
            "left_wrist<left_elbow",
        ),
    )
}
"""The skeletons that bbox knows."""


def skeleton_named(name: str) -> Skeleton:
    """The skeleton of this name.

    Raises:
        UsageError: none is called so.
    """
    if name not in SKELETONS:
        raise UsageError(f"unknown skeleton {name!r}; known are: {', '.join(SKELETONS)}")
    return SKELETONS[name]


def skeleton_for(joints: int) -> Skeleton:
    """The skeleton with so many joints.

    Raises:
        InputError: none that bbox knows has.
    """
    found = next((skeleton for skeleton in SKELETONS.values() if len(skeleton) == joints), None)
    if found is None:
        known = ", ".join(f"{name} ({len(skeleton)})" for name, skeleton in SKELETONS.items())
        raise InputError(f"no known skeleton has {joints} joints, only {known}; give each joint's parent as 'parents'")
    return found
