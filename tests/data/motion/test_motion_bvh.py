"""BVH: forward kinematics by hand, windows, labels, units, and files that are none."""

import itertools
import logging

import numpy as np
import pytest
import torch

from bbox.data import MotionSet, load
from bbox.data.motion.bvh_clip import read_bvh
from bbox.data.motion.windows import resample
from bbox.errors import InputError, UsageError

QUARTER = {  # a turn by 90 degrees about each axis, of a column vector
    "X": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "Y": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "Z": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
}
PERSON = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Head
  {
    OFFSET 0 80 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 0
    }
  }
  JOINT LeftFoot
  {
    OFFSET 10 -90 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 0 20
    }
  }
  JOINT RightFoot
  {
    OFFSET -10 -90 0
    CHANNELS 3 Zrotation Xrotation Yrotation
  }
}
MOTION
"""


def motion(rows, width=15, frame_time=1 / 30):
    """The MOTION of a person whose root is at these places."""
    lines = [" ".join(f"{value:.6f}" for value in (*row, *[0.0] * (width - len(row)))) for row in rows]
    return f"Frames: {len(rows)}\nFrame Time: {frame_time:.7f}\n" + "\n".join(lines) + "\n"


def walk(frames, **kwargs):
    return PERSON + motion([(5.0 + frame, 90.0, -3.0) for frame in range(frames)], **kwargs)


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("order", [*itertools.permutations("XYZ"), "Y", "ZXZ"])
def test_quarter_turns_in_each_order(tmp_path, order):
    """A chain of two joints, both turned: the matrices multiply in the order of the channels, root first."""
    channels = " ".join(f"{axis}rotation" for axis in order)
    text = (
        f"HIERARCHY ROOT a {{ OFFSET 1 2 3 CHANNELS {3 + len(order)} {channels} Xposition Yposition Zposition "
        f"JOINT b {{ OFFSET 1 10 100 CHANNELS {len(order)} {channels} End Site {{ OFFSET 4 50 600 }} }} }} MOTION "
    )
    turns, still = [90] * len(order), [0] * len(order)
    rows = [[*turns, 7, 8, 9, *still], [*still, 7, 8, 9, *turns], [*turns, 7, 8, 9, *turns]]
    clip = read_bvh(put(tmp_path / "a.bvh", text + motion(rows, width=len(rows[0]))))
    turn = np.linalg.multi_dot([np.eye(3), *(QUARTER[axis] for axis in order), np.eye(3)])
    for place, (first, second) in zip(
        clip.positions(), ((turn, np.eye(3)), (np.eye(3), turn), (turn, turn)), strict=True
    ):
        root = np.array([7, 8, 9])
        joint = root + first @ [1, 10, 100]
        end = joint + first @ second @ [4, 50, 600]
        np.testing.assert_allclose(place, [root, joint, end], atol=1e-9)
    assert (clip.names, clip.parents, clip.ends) == (("a", "b", "b_end"), (-1, 0, 1), (False, False, True))


def test_turns_against_scipy(tmp_path):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    rows = np.random.default_rng(0).uniform(-180, 180, (5, 15)).round(6)
    clip = read_bvh(put(tmp_path / "a.bvh", PERSON + motion(rows.tolist())))
    for row, place in zip(rows, clip.positions(), strict=True):
        hips, left = (
            rotation.from_euler("ZXY", row[3:6], degrees=True),
            rotation.from_euler("ZXY", row[9:12], degrees=True),
        )
        foot = row[:3] + hips.apply([10, -90, 0])
        np.testing.assert_allclose(place[3:5], [foot, foot + (hips * left).apply([0, 0, 20])], atol=1e-9)


def test_windows(tmp_path, caplog):
    put(tmp_path / "d/one.bvh", walk(9))
    put(tmp_path / "d/two.bvh", walk(3))
    put(tmp_path / "d/notes.txt", "no motion")
    with caplog.at_level(logging.INFO, "bbox"):
        data = load(f"motion:{tmp_path / 'd'},frames=4,stride=2")
    assert "left out 1 of 2 clips, which are shorter than 4 frames" in caplog.text
    assert "lengths are in cm, by the size of the body (1.81 m)" in caplog.text
    assert isinstance(data, MotionSet) and data.inputs.shape == (3, 3, 4, 4, 1) and data.labels is None
    assert data.ids == ("one.bvh@0", "one.bvh@2", "one.bvh@4") and data.frame_rate == 30.0
    assert (data.skeleton.name, data.skeleton.joints) == ("d", ("Hips", "Head", "LeftFoot", "RightFoot"))
    assert (data.skeleton.parents, data.skeleton.sides) == ((-1, 0, 0, 0), ((2, 3),))
    hips, head = data.inputs[:, :, :, 0, 0], data.inputs[:, :, :, 1, 0]
    expected = torch.tensor([[0.0, 0.01, 0.02, 0.03], [0.9] * 4, [0.0] * 4])
    assert torch.allclose(hips, expected.expand(3, 3, 4), atol=1e-6)
    assert torch.allclose(head - hips, torch.tensor([0.0, 0.8, 0.0]).view(1, 3, 1), atol=1e-6)
    whole = load(f"motion:{tmp_path / 'd'},frames=4,stride=2,center=no,unit=0.02,ends=yes,limit=2")
    assert whole.inputs.shape == (2, 3, 4, 6, 1) and whole.skeleton.joints[2] == "Head_end"
    assert torch.allclose(whole.inputs[1, :, 1, 0, 0], torch.tensor([0.16, 1.8, -0.06]))


def test_rates(tmp_path):
    path = put(tmp_path / "fast.bvh", walk(13, frame_time=1 / 120))
    data = load(f"motion:{path},frames=4,center=no")
    assert torch.allclose(data.inputs[0, 0, :, 0, 0], torch.tensor([0.05, 0.09, 0.13, 0.17]), atol=1e-6)
    slow = resample(np.array([[0.0], [10.0], [0.0]]), 10.0, 40.0)
    np.testing.assert_allclose(slow[:, 0], [0, 2.5, 5, 7.5, 10, 7.5, 5, 2.5, 0])
    assert resample(np.zeros((1, 2)), 10.0, 40.0).shape == (1, 2)


def test_a_root_of_the_scene_is_left_out(tmp_path):
    body = (
        "JOINT Hips { OFFSET 0 9 0 CHANNELS 3 Xposition Yposition Zposition JOINT Head { OFFSET 0 200 0 CHANNELS 0 } }"
    )
    text = f"HIERARCHY ROOT World {{ OFFSET 0 0 0 CHANNELS 3 Xposition Yposition Zposition {body} }} MOTION\n"
    path = put(tmp_path / "a.bvh", text + motion([(0, 0, 0, x, 90, 0) for x in (1, 2, 4)], width=6))
    data = load(f"motion:{path},frames=3,center=no")
    assert (data.skeleton.joints, data.skeleton.parents) == (("Hips", "Head"), (-1, 0))
    assert torch.allclose(data.inputs[0, :, 2, :, 0].T, torch.tensor([[0.04, 0.9, 0.0], [0.04, 2.9, 0.0]]))
    still = put(tmp_path / "b.bvh", text + motion([(0, 0, 0, 1, 90, 0)] * 3, width=6))
    assert load(f"motion:{still},frames=3").skeleton.joints == ("World", "Hips", "Head")


@pytest.mark.parametrize(
    ("label", "labels", "classes"),
    [
        ("content", [0, 1, 1], ("run", "walk")),
        ("style", [0, 0, 1], ("glad", "tired")),
        ("content-style", [0, 1, 2], ("run_glad", "walk_glad", "walk_tired")),
        (r"_(\d+)$", [7, 1, 2], None),
        ("folder", [1, 1, 0], ("a", "b")),
        (None, [1, 1, 0], ("a", "b")),
        ("none", None, None),
    ],
)
def test_labels(tmp_path, label, labels, classes):
    for name in ("b/set_run_glad_7", "b/set_walk_glad_1", "a/set_walk_tired_2"):
        put(tmp_path / f"{name}.bvh", walk(2))
    data = load(f"motion:{tmp_path},frames=2" + (f",label={label}" if label else ""))
    found = None if data.labels is None else dict(zip(data.ids, data.labels.tolist(), strict=True))
    names = ("b/set_run_glad_7.bvh@0", "b/set_walk_glad_1.bvh@0", "a/set_walk_tired_2.bvh@0")
    assert found == (None if labels is None else dict(zip(names, labels, strict=True)))
    assert data.class_names == classes


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("frames=0", UsageError, "frames is 0, expected more than 0"),
        ("rate=-1", UsageError, "rate is -1, expected more than 0"),
        ("limit=0", UsageError, "limit is 0"),
        ("unit=feet", UsageError, "unit is 'feet', expected m, cm, mm, inch"),
        ("unit=nan", UsageError, "unit is 'nan'"),
        ("label=verb", UsageError, "label is 'verb', expected folder, none, content"),
        ("label=(", UsageError, "no regular expression"),
        ("label=folder", InputError, "a.bvh lies in no subfolder"),
        ("label=content", InputError, "the name a.bvh gives no label by label=content"),
        ("frames=99", InputError, "no clip has 99 frames at 30 a second; give fewer"),
        ("stride=x", UsageError, "stride is 'x', expected an integer"),
        ("strides=2", UsageError, "no option 'strides'; did you mean 'stride'"),
    ],
)
def test_refuses_options(tmp_path, options, error, message):
    path = put(tmp_path / "a.bvh", walk(48))
    with pytest.raises(error, match=message) as caught:
        load(f"motion:{path},{options}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "does not begin with HIERARCHY"),
        (lambda text: text[:60], "it ends in the middle"),
        (lambda text: text.partition("MOTION")[0], "no 'Frames:' and 'Frame Time:' after the skeleton"),
        (lambda text: text[:-40], r"numbers, expected 720 \(48 frames of 15 channels\); the file is cut off"),
        (lambda text: text + "1.0\n", "721 numbers, expected 720 .* the file is damaged"),
        (lambda text: text.replace("90.000000", "90,000000"), "'90,000000' where a number is expected"),
        (lambda text: text.replace("90.000000", "nan", 1), "'nan' where a number is expected"),
        (lambda text: text.replace("Frames: 48", "Frames: 0"), "0 frames of 15 channels"),
        (lambda text: text.replace("0.0333333", "0"), "frame time is 0, expected seconds above 0"),
        (lambda text: text.replace("0.0333333", "fast"), "frame time is fast"),
        (lambda text: text.replace("OFFSET 0 80 0", "OFFSET 0 high 0"), "'high' where a number is expected"),
        (lambda text: text.replace("Xrotation", "Wrotation"), "the channel 'Wrotation'"),
        (lambda text: text.replace("ROOT Hips", "ROOT"), "a ROOT without a name"),
        (lambda text: text.replace("ROOT", "JOINT"), "'JOINT' where none is expected"),
        (lambda text: text.replace(" 80 ", " 8000 "), r"a body that is \d+ long along its bones has no known unit"),
    ],
)
def test_refuses_files(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        load(str(put(tmp_path / "a.bvh", change(walk(48)))))
    assert "a.bvh" in str(caught.value) and "\n" not in str(caught.value)


def test_refuses_other_bytes_and_mixed_bodies(tmp_path):
    (tmp_path / "a.bvh").write_bytes(b"HIERARCHY ROOT \xff")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 15"):
        load(str(tmp_path / "a.bvh"))
    put(tmp_path / "d/a.bvh", walk(48))
    put(tmp_path / "d/b.bvh", walk(48).replace("Head", "Skull"))
    with pytest.raises(InputError, match=r"b.bvh: its joints are not those of .*a.bvh"):
        load(str(tmp_path / "d"))
