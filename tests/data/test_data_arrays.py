"""Files of arrays: every layout that is read, and each that is refused."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from bbox.data import load
from bbox.errors import InputError

IMAGES = np.random.default_rng(0).random((5, 3, 6, 4), dtype=np.float32)
LABELS = np.array([3, 1, 4, 1, 5])


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return str(path)


@pytest.fixture(params=["npz", "safetensors"])
def path(request, tmp_path):
    return tmp_path / f"data.{request.param}"


@pytest.mark.parametrize("images", ["inputs", "images", "x"])
@pytest.mark.parametrize("labels", ["labels", "y"])
def test_keys(path, images, labels):
    data = load(write(path, **{images: IMAGES, labels: LABELS}))
    assert torch.equal(data.inputs, torch.from_numpy(IMAGES)) and data.labels.tolist() == LABELS.tolist()
    assert data.name == str(path) and data.ids == ("0", "1", "2", "3", "4") and data.labels.dtype == torch.int64


def test_without_labels(path):
    assert load(write(path, x=IMAGES)).labels is None


def test_bytes_are_divided_by_255(path):
    levels = np.arange(5 * 3 * 6 * 4, dtype=np.uint8).reshape(5, 3, 6, 4)
    data = load(write(path, x=levels))
    assert torch.equal(data.inputs, torch.from_numpy(levels) / 255)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(path, dtype):
    assert load(write(path, x=IMAGES.astype(dtype))).inputs.dtype == torch.float32


@pytest.mark.parametrize("labels", [LABELS.astype(np.uint8), LABELS.astype(np.int32), LABELS[:, None]])
def test_other_labels(path, labels):
    assert load(write(path, x=IMAGES, y=labels)).labels.tolist() == LABELS.tolist()


def test_channels_last_is_moved_and_said(path, caplog):
    data = load(write(path, x=IMAGES.transpose(0, 2, 3, 1)))
    assert torch.equal(data.inputs, torch.from_numpy(IMAGES))
    assert "read as (examples, height, width, channels)" in caplog.text


@pytest.mark.parametrize("shape", [(2, 3, 8, 3), (2, 1, 8, 1), (2, 3, 8, 1), (2, 4, 8, 8)])
def test_channels_first_is_kept_where_it_may_be_meant(path, caplog, shape):
    assert load(write(path, x=np.zeros(shape, dtype=np.float32))).inputs.shape == shape
    assert caplog.text == ""


def test_three_dimensions_are_grayscale(path):
    assert load(write(path, x=IMAGES[:, 0], y=LABELS)).inputs.shape == (5, 1, 6, 4)


def test_size(path):
    assert load(write(path, x=IMAGES), size=8).inputs.shape == (5, 3, 8, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES, "images": IMAGES}, "holds both images and x; keep one"),
        ({"x": IMAGES, "y": LABELS, "labels": LABELS}, "holds both labels and y"),
        ({"pictures": IMAGES}, "holds pictures; expected images under inputs or images or x"),
        ({"labels": LABELS}, "expected images under inputs"),
        ({"x": IMAGES, "y": LABELS[:3]}, "5 images but 3 labels"),
        ({"x": IMAGES, "y": -LABELS}, "label -5 is negative"),
        (
            {"x": IMAGES, "y": LABELS.astype(np.float32)},
            r"labels are \(5,\) torch.float32, expected one integer",
        ),
        (
            {"x": IMAGES, "y": np.eye(5, dtype=np.int64)},
            r"labels are \(5, 5\).*take the argmax of one-hot rows",
        ),
        ({"x": IMAGES * 255}, r"pixels reach from .* expected \[0, 1\]; divide by 255"),
        ({"x": IMAGES - 0.5}, r"pixels reach from -0.49.* expected \[0, 1\]$"),
        ({"x": np.where(IMAGES > 0.99, np.nan, IMAGES)}, "image [0-4] has a value that is not finite"),
        ({"x": np.full_like(IMAGES, np.inf)}, "image 0 has a value that is not finite"),
        ({"x": IMAGES.astype(np.int32)}, r"images are torch.int32, expected uint8, or floats"),
        ({"x": IMAGES[0, 0]}, r"images have shape \(6, 4\)"),
        ({"x": IMAGES[None]}, r"images have shape \(1, 5, 3, 6, 4\)"),
        ({"x": IMAGES[:0]}, "no images found"),
    ],
)
def test_refuses(path, arrays, message):
    with pytest.raises(InputError, match=message) as caught:
        load(write(path, **arrays))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["npz", "npy", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x93NUMPY\x01\x00"])
def test_junk(tmp_path, suffix, content):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=f"a.{suffix}: not a readable .{suffix} file") as caught:
        load(str(tmp_path / f"a.{suffix}"))
    assert "\n" not in str(caught.value)


class Boom:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_pickles_are_never_read(tmp_path):
    objects = np.empty(1, dtype=object)
    objects[0] = Boom()
    np.savez(tmp_path / "a.npz", x=objects)
    np.save(tmp_path / "a.npy", objects)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Boom()))
    for name in ("a.npz", "a.npy", "b.npy"):
        with pytest.raises(InputError, match=f"{name}: not a readable .* .it holds Python objects"):
            load(str(tmp_path / name))


def test_a_file_under_another_name_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "b.npz", x=IMAGES)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    for name in ("a.npz", "b.npy"):
        with pytest.raises(InputError, match=f"{name}: its content is not what"):
            load(str(tmp_path / name))


def test_text_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array(["a", "b"]))
    with pytest.raises(InputError, match=r"a.npz: x is <U1, expected numbers"):
        load(str(tmp_path / "a.npz"))


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    assert load(str(tmp_path / "a.npy")).labels is None
    np.save(tmp_path / "y.npy", LABELS)
    (tmp_path / "y.csv").write_text("label\n3\n1\n4\n1\n5\n")
    for labels in ("y.npy", "y.csv"):
        data = load(str(tmp_path / "a.npy"), labels=tmp_path / labels)
        assert data.labels.tolist() == LABELS.tolist()


def test_label_files_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "short.npy", LABELS[:2])
    (tmp_path / "y.txt").write_text("1")
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    for name, labels, message in (
        ("a.npy", "short.npy", "5 images but 2 labels"),
        ("a.npy", "y.txt", r"expected a .npy or .csv file"),
        ("a.npy", "gone.npy", "no such file"),
        ("a.npz", "short.npy", "has labels of its own"),
    ):
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / name), labels=tmp_path / labels)


def test_big_endian_arrays(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES.astype(">f4"))
    assert torch.equal(load(str(tmp_path / "a.npy")).inputs, torch.from_numpy(IMAGES))


def test_the_file_is_not_mapped(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    data = load(str(tmp_path / "a.npy"))
    (tmp_path / "a.npy").unlink()
    data.inputs.zero_()
