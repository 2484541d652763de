"""The preset skeletons against the published numbers, and pairs of sides by name."""

import pytest

from bbox.errors import InputError, UsageError
from bbox.motion.skeletons import SKELETONS, mirror_pairs, skeleton_for, skeleton_named

# The graph of the public pipelines for NTU RGB+D, numbered from 1: (joint, towards the middle).
NTU = {(1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11), (13, 1)}
NTU |= {(14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19), (22, 23), (23, 8), (24, 25), (25, 12)}
OPENPOSE = {
    (4, 3),
    (3, 2),
    (7, 6),
    (6, 5),
    (13, 12),
    (12, 11),
    (10, 9),
    (9, 8),
    (11, 5),
    (8, 2),
    (5, 1),
    (2, 1),
    (0, 1),
}
OPENPOSE |= {(15, 0), (14, 0), (17, 15), (16, 14)}


def test_bones_are_those_of_the_public_graphs():
    ntu = skeleton_named("ntu25")
    assert {(joint + 1, parent + 1) for joint, parent in ntu.bones} == NTU
    assert [ntu.joints[number] for number in (0, 1, 3, 11, 20, 24)] == [
        "SpineBase", "SpineMid", "Head", "HandRight", "SpineShoulder", "ThumbRight",
    ]  # fmt: skip
    assert ntu.sides == ((4, 8), (5, 9), (6, 10), (7, 11), (12, 16), (13, 17), (14, 18), (15, 19), (21, 23), (22, 24))
    assert set(skeleton_named("kinetics18").bones) == OPENPOSE
    assert {(5, 2), (11, 8), (15, 14)} < set(skeleton_named("kinetics18").sides)
    assert len(skeleton_named("kinetics18").sides) == 8 and len(skeleton_named("humanoid15").sides) == 6


def test_every_skeleton_is_one_tree():
    for name, skeleton in SKELETONS.items():
        assert skeleton.name == name and skeleton.parents.count(-1) == 1
        assert len(skeleton.bones) == len(skeleton) - 1 == len(set(skeleton.joints)) - 1


def test_looking_up():
    assert skeleton_for(25) is SKELETONS["ntu25"] and skeleton_for(15).joints[0] == "root"
    with pytest.raises(UsageError, match="unknown skeleton 'smpl'; known are: ntu25, kinetics18, humanoid15"):
        skeleton_named("smpl")
    with pytest.raises(InputError, match=r"no known skeleton has 17 joints, only ntu25 \(25\)"):
        skeleton_for(17)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("LeftHand", "RightHand"),
        ("HandLeft", "HandRight"),
        ("left_hip", "right_hip"),
        ("Hand_L", "Hand_R"),
        ("l.hand", "r.hand"),
        ("LHip", "RHip"),
        ("lCollar", "rCollar"),
        ("mixamorig:LeftArm", "mixamorig:RightArm"),
        ("LEFT_HIP", "RIGHT_HIP"),
    ],
)
def test_sides_by_name(left, right):
    assert mirror_pairs(["Spine", right, left]) == ((2, 1),)


def test_names_that_only_look_like_sides():
    assert mirror_pairs(["Lower", "Rower", "lever", "rever", "Leg", "Reg", "Hand_L", "LeftToe"]) == ()
