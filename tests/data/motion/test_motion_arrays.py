"""Arrays of motions: bbox's own, CTR-GCN's, those of ST-GCN and 2s-AGCN; written, read in part, and refused."""

import logging
import os

import numpy as np
import pytest
import torch

from bbox.data import load
from bbox.data.motion import save_motions
from bbox.data.motion.rows import ArrayFile
from bbox.errors import InputError, UsageError

RNG = np.random.default_rng(0)


def motions(count=3, frames=4, joints=25, bodies=2):
    return RNG.standard_normal((count, 3, frames, joints, bodies)).astype(np.float32)


def test_what_is_saved_is_loaded(tmp_path):
    arrays = {"x": motions(joints=3), "y": np.array([2, 0, 1]), "parents": np.array([-1, 0, 1])}
    np.savez(tmp_path / "a.npz", **arrays, joints=np.array(["hip", "left knee", "right knee"]), frame_rate=25)
    first = load(f"motion:{tmp_path / 'a.npz'}")
    assert (first.skeleton.name, first.skeleton.parents, first.skeleton.sides) == ("a", (-1, 0, 1), ((1, 2),))
    assert (first.frame_rate, first.labels.tolist(), first.ids) == (25.0, [2, 0, 1], ("0", "1", "2"))
    chosen = first.select(indices=[2, 0])
    save_motions(tmp_path / "b.npz", chosen)
    second = load(f"motion:{tmp_path / 'b.npz'}")
    assert second.fingerprint() == chosen.fingerprint() and torch.equal(second.inputs, chosen.inputs)
    assert (second.skeleton, second.frame_rate, second.ids) == (first.skeleton, 25.0, ("2", "0"))
    assert second.indices.tolist() == [2, 0] and second.class_names is None
    save_motions(tmp_path / "b.npz", second)  # over the old one, the same bytes
    assert load(f"motion:{tmp_path / 'b.npz'},limit=1,rate=50").frame_rate == 50.0


def test_class_names_and_unlabelled(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=motions(2), labels=[0, 1], class_names=np.array(["sit", "stand", "jump"]))
    data = load(f"motion:{tmp_path / 'a.npz'},limit=1")
    assert data.class_names == ("sit", "stand", "jump") and len(data) == 1
    save_motions(tmp_path / "b.npz", data)
    assert load(f"motion:{tmp_path / 'b.npz'}").class_names == data.class_names
    np.savez(tmp_path / "c.npz", inputs=motions(2, joints=15) * 100)
    bare = load(f"motion:{tmp_path / 'c.npz'},unit=cm")
    assert bare.labels is None and bare.skeleton.name == "humanoid15" and float(bare.inputs.abs().max()) < 10


def test_ctr_gcn(tmp_path):
    flat = RNG.standard_normal((3, 5, 150))
    np.savez(
        tmp_path / "NTU60_CS.npz", x_test=flat, y_test=np.eye(60)[[7, 0, 59]], x_train=flat[:1], y_train=np.eye(60)[:1]
    )
    data = load(f"motion:{tmp_path / 'NTU60_CS.npz'}")
    assert data.inputs.shape == (3, 3, 5, 25, 2) and data.labels.tolist() == [7, 0, 59]
    for body, joint, axis in ((0, 0, 0), (0, 24, 2), (1, 3, 1)):
        column = torch.from_numpy(flat[:, :, body * 75 + joint * 3 + axis]).float()
        assert torch.equal(data.inputs[:, axis, :, joint, body], column)
    assert len(load(f"motion:{tmp_path / 'NTU60_CS.npz'},split=train")) == 1
    assert load(f"motion:{tmp_path / 'NTU60_CS.npz'},limit=2").labels.tolist() == [7, 0]
    np.savez(tmp_path / "a.npz", x_test=flat[..., :140], y_test=np.eye(60)[:3])
    with pytest.raises(
        InputError, match=r"shape \(3, 5, 140\), expected \(motions, frames, bodies \* 25 joints \* 3\)"
    ):
        load(f"motion:{tmp_path / 'a.npz'}")
    np.savez(tmp_path / "b.npz", x_test=flat, y_test=np.ones((3, 60)))
    with pytest.raises(InputError, match=r"y_test has shape .* expected rows with a single 1"):
        load(f"motion:{tmp_path / 'b.npz'}")
    with pytest.raises(InputError, match=r"b.npz holds x_test, y_test; expected motions under x_train"):
        load(f"motion:{tmp_path / 'b.npz'},split=train")


def test_npy_with_labels_and_empty_motions(tmp_path, caplog):
    inputs = motions(4)
    inputs[1] = 0.0
    np.save(tmp_path / "data.npy", inputs.astype(">f8"))
    np.save(tmp_path / "labels.npy", np.array([3, 1, 0, 2]))
    with caplog.at_level(logging.WARNING, "bbox"):
        data = load(f"motion:{tmp_path / 'data.npy'},labels={tmp_path / 'labels.npy'}")
    assert "left out 1 of 4 motions, which hold no body" in caplog.text
    assert (data.labels.tolist(), data.indices.tolist(), data.ids) == ([3, 0, 2], [0, 2, 3], ("0", "2", "3"))
    assert torch.equal(data.inputs, torch.from_numpy(inputs)[[0, 2, 3]]) and data.skeleton.name == "ntu25"
    same = load(f"motion:{tmp_path / 'data.npy'}", labels=tmp_path / "labels.npy")
    assert torch.equal(same.labels, data.labels) and load(f"motion:{tmp_path / 'data.npy'}").labels is None
    (tmp_path / "val_label.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=r"a pickle can run code .* numpy.save\('labels.npy'"):
        load(f"motion:{tmp_path / 'data.npy'},labels={tmp_path / 'val_label.pkl'}")
    with pytest.raises(UsageError, match="has labels of its own"):
        load(f"motion:{tmp_path / 'data.npy'},labels=a.npy", labels=tmp_path / "labels.npy")


@pytest.mark.parametrize("packed", [False, True])
def test_a_limit_reads_no_more(tmp_path, packed):
    """The rest of the file may even be missing, and a file of a terabyte is no trouble."""
    if packed:
        path = tmp_path / "a.npz"
        np.savez_compressed(path, x=np.zeros((20000, 3, 20, 15, 1), np.float32) + motions(1, 20, 15, 1))
        assert path.stat().st_size < 5e6
        array = ArrayFile(path, 2).pick("x")
    else:
        path = tmp_path / "a.npy"
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**8, 3, 20, 15, 1)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(motions(2, 20, 15, 1).tobytes())
            os.truncate(path, file.tell())
        array = ArrayFile(path, 2).pick("")
        with pytest.raises(InputError, match="cut off after 7200 of 10800 bytes"):
            ArrayFile(path, 3).pick("")
    assert array.shape == (2, 3, 20, 15, 1) and array.any()
    assert len(load(f"motion:{path},limit=2")) == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": motions()[0]}, r"shape \(3, 4, 25, 2\), expected \(motions, 3, frames, joints, bodies\)"),
        ({"x": motions()[:, :2]}, r"motions have shape \(3, 2, 4, 25, 2\)"),
        ({"x": motions(), "inputs": motions()}, "holds both inputs and x; keep one"),
        ({"z": motions()}, "holds z; expected motions under inputs or x"),
        ({"x": motions(joints=7)}, "no known skeleton has 7 joints"),
        ({"x": motions(joints=7), "parents": np.arange(6) - 1}, "motions have 7 joints|expected as many"),
        ({"x": motions(joints=2), "parents": np.array([1, 0])}, "run in a ring"),
        ({"x": motions(joints=2), "parents": np.array([0.5, 0])}, "parents are .* expected one integer"),
        ({"x": motions(joints=2), "parents": np.array([-1, 0]), "sides": np.arange(3)}, "sides are"),
        ({"x": motions(), "labels": np.arange(2)}, "3 motions but 2 labels"),
        ({"x": motions(), "labels": np.eye(3)}, r"labels are \(3, 3\) float64, expected one integer a motion"),
        ({"x": motions(), "ids": np.array(["a"])}, "3 motions but 1 ids"),
        ({"x": motions(), "ids": np.arange(3)}, "ids is .* expected a row of texts"),
        ({"x": motions(), "frame_rate": np.array(0)}, "frame rate is 0"),
        ({"x": motions(), "frame_rate": np.arange(2)}, "frame_rate is"),
        ({"x": np.where(motions() > 2, np.nan, motions())}, "motion 0 has a value that is not finite"),
        ({"x": motions() * 1000}, "give the unit, for example unit=cm or mm"),
        ({"x": motions().astype(str)}, "motions are <U.*, expected numbers"),
        ({"x": np.array([None])}, "it holds Python objects"),
        ({"x": np.asfortranarray(motions())}, "its order is Fortran's"),
        ({"x": motions(0)}, "no motions found"),
    ],
)
def test_refuses(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load(f"motion:{tmp_path / 'a.npz'}")
    assert "\n" not in str(caught.value)


def test_refuses_files_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", motions())
    whole = (tmp_path / "a.npy").read_bytes()
    for name, content, message in (
        ("b.npy", whole[:1000], "its array is not readable .cut off after 872 of 7200 bytes"),
        ("c.npy", b"no array", "its array is not readable"),
        ("d.npy", b"", "its array is not readable"),
        ("e.npz", whole, "not a readable .npz file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            load(f"motion:{tmp_path / name}")
    np.savez_compressed(tmp_path / "f.npz", x=motions())
    damaged = bytearray((tmp_path / "f.npz").read_bytes())
    damaged[400:480] = bytes(80)
    (tmp_path / "f.npz").write_bytes(damaged)
    with pytest.raises(InputError, match="x is not readable"):
        load(f"motion:{tmp_path / 'f.npz'}")
    with pytest.raises(InputError, match=r"expected a .npy file"):
        load(f"motion:{tmp_path / 'a.npy'},labels=labels.csv")
    with pytest.raises(UsageError, match="unknown skeleton 'ntu'; known are: ntu25, kinetics18, humanoid15"):
        load(f"motion:{tmp_path / 'a.npy'},skeleton=ntu")
