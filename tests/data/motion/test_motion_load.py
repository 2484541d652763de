"""motion: specs, what is recognised without one, and what is not motion."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import bbox.zoo
from bbox.data import CodeSet, Dataset, MotionSet, load
from bbox.errors import InputError, UsageError
from bbox.motion import Skeleton

PERSON = (
    "HIERARCHY ROOT Hips { OFFSET 0 0 0 CHANNELS 1 Yrotation JOINT Head { OFFSET 0 0.9 0 CHANNELS 0 } "
    "JOINT Foot { OFFSET 0 -0.9 0 CHANNELS 0 } } MOTION Frames: 60 Frame Time: 0.0333333 " + "1 " * 60
)


def put(path, text=PERSON):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_prefix(tmp_path):
    put(tmp_path / "a/walk/x.BVH")
    put(tmp_path / "a/run/x.bvh")
    put(tmp_path / "a/meta.json", "{}")
    for spec in (str(tmp_path / "a"), f"motion:{tmp_path / 'a'}"):
        data = load(spec)
        assert isinstance(data, MotionSet) and data.name == spec and data.inputs.shape == (2, 3, 48, 3, 1)
        assert (data.labels.tolist(), data.class_names) == ([0, 1], ("run", "walk"))
    with pytest.raises(UsageError, match="is motion, which has its labels within"):
        load(str(tmp_path / "a"), labels=tmp_path / "labels.csv")
    with pytest.raises(UsageError, match="is motion, which has no image size; leave 8 out"):
        load(str(tmp_path / "a"), size=8)
    with pytest.raises(UsageError, match=r"motion:.* \(bvh\) has no option 'labels'; did you mean 'label'"):
        load(f"motion:{tmp_path / 'a'}", labels=tmp_path / "labels.csv")


def test_pictures_and_code_stay_what_they_are(tmp_path):
    put(tmp_path / "code/x.bvh")
    put(tmp_path / "code/x.py", "x = 1")
    assert isinstance(load(str(tmp_path / "code")), CodeSet)
    put(tmp_path / "images/x.bvh")
    Image.new("RGB", (8, 8)).save(tmp_path / "images/a.png")
    assert isinstance(load(str(tmp_path / "images")), Dataset)
    assert isinstance(load(f"motion:{tmp_path / 'images'}"), MotionSet)
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3, 4, 4), np.float32))
    assert isinstance(load(str(tmp_path / "a.npz")), Dataset)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("motion:", UsageError, "'motion:' ends after its kind; expected motion:PATH"),
        ("motion:gone", InputError, "gone: no such file or folder; expected a .bvh, a .skeleton"),
        ("motion:empty", InputError, "empty: no motions in it; expected"),
        ("motion:arrays", InputError, "no motions in it; arrays are read from one file, name it"),
        ("motion:arrays,format=arrays", UsageError, "arrays is a folder"),
        ("motion:mixed", UsageError, "holds motions of several kinds; give one, as in format=bvh"),
        ("motion:mixed,format=ntu", InputError, "cut off after line 0"),
        ("motion:a.txt", InputError, "a.txt: not a kind of motion that is told by its name"),
        ("motion:a.txt,format=bvhs", UsageError, "format is 'bvhs', expected auto, bvh, ntu, kinetics, arrays"),
        ("motoin:a", UsageError, "unknown kind of data 'motoin' in 'motoin:a'; did you mean 'motion'"),
    ],
)
def test_refuses(tmp_path, monkeypatch, spec, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    put(tmp_path / "arrays/a.npy", "")
    put(tmp_path / "mixed/a.bvh")
    put(tmp_path / "mixed/a.skeleton", "")
    put(tmp_path / "a.txt")
    with pytest.raises(error, match=message) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_another_ending(tmp_path):
    assert len(load(f"motion:{put(tmp_path / 'a.txt')},format=bvh")) == 1


def test_the_zoo_may_load_motions(monkeypatch):
    def loader():
        return MotionSet(
            "zoo:m", torch.ones(1, 3, 2, 1, 1), None, torch.arange(1), ("0",), skeleton=Skeleton("p", ("p",), (-1,))
        )

    monkeypatch.setitem(sys.modules, "bbox_test_motions", SimpleNamespace(loader=loader))
    entry = SimpleNamespace(loader="bbox_test_motions:loader", needs="", summary="")
    monkeypatch.setattr(bbox.zoo, "DATA", {"m": entry})
    assert isinstance(load("zoo:m"), MotionSet)
    with pytest.raises(UsageError, match="zoo:m is motion, which has no image size"):
        load("zoo:m", size=8)
