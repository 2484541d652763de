"""Folders of images: classes, sizes, channels, and what is passed over or refused."""

import pytest
import torch
from PIL import Image

from bbox.data import load
from bbox.errors import InputError


def picture(path, size=(4, 4), mode="RGB", level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)


def test_class_folders(tmp_path):
    for place, name in enumerate(["dog/b.png", "cat/z.jpg", "dog/a.JPEG", "cat/deep/er.bmp"]):
        picture(tmp_path / name, level=place)
    data = load(str(tmp_path))
    assert data.name == str(tmp_path) and data.class_names == ("cat", "dog")
    assert data.ids == ("cat/deep/er.bmp", "cat/z.jpg", "dog/a.JPEG", "dog/b.png")
    assert data.labels.tolist() == [0, 0, 1, 1] and data.indices.tolist() == [0, 1, 2, 3]
    assert data.inputs.shape == (4, 3, 4, 4) and data.inputs[3].eq(0).all()


def test_integer_folders_are_their_own_numbers(tmp_path):
    for number in (2, 10, 0):
        picture(tmp_path / str(number) / "a.png")
    (tmp_path / "7").mkdir()
    data = load(str(tmp_path))
    assert dict(zip(data.ids, data.labels.tolist(), strict=True)) == {
        "0/a.png": 0,
        "2/a.png": 2,
        "10/a.png": 10,
    }
    assert data.class_names is None


def test_flat_folder_has_no_labels(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    data = load(str(tmp_path))
    assert data.labels is None and data.ids == ("a.png", "b.png") and data.class_names is None


def test_hidden_and_other_files_are_passed_over(tmp_path):
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / ".hidden" / "a.png")
    picture(tmp_path / "cat" / ".thumb.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "cat" / "Thumbs.db").write_text("hello")
    assert load(str(tmp_path)).ids == ("cat/a.png",)


def test_channels(tmp_path):
    picture(tmp_path / "a.png", mode="L", level=10)
    assert load(str(tmp_path)).inputs.shape == (1, 1, 4, 4)
    picture(tmp_path / "b.png")
    mixed = load(str(tmp_path)).inputs
    assert mixed.shape == (2, 3, 4, 4) and torch.allclose(mixed[0], torch.full((3, 4, 4), 10 / 255))


def test_sizes(tmp_path):
    picture(tmp_path / "a.png", (4, 5))
    picture(tmp_path / "b.png", (6, 7))
    with pytest.raises(InputError, match=r"a.png is 4x5 and .*b.png is 6x7 \(width x height\); .*--image-size") as e:
        load(str(tmp_path))
    assert e.value.exit_code == 4
    assert load(str(tmp_path), size=3).inputs.shape == (2, 3, 3, 3)


def test_resized_pictures_stay_on_the_grid(tmp_path):
    image = Image.effect_noise((16, 16), 60)
    image.save(tmp_path / "a.png")
    levels = load(str(tmp_path), size=8).inputs * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_images_beside_class_folders(tmp_path):
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "loose.png")
    with pytest.raises(InputError, match=r"1 images lie beside class folders, for example loose.png"):
        load(str(tmp_path))


def test_a_class_folder_without_images(tmp_path):
    picture(tmp_path / "dog" / "a.png")
    (tmp_path / "cat").mkdir()
    (tmp_path / ".git").mkdir()
    with pytest.raises(InputError, match="the class folder 'cat' holds no image, so class numbers are unclear"):
        load(str(tmp_path))


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="no images found"):
        load(str(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"no images found.*; 1 other files are in it"):
        load(str(tmp_path))


def test_broken_image_is_named(tmp_path):
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "b.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"cat/b.png: broken image"):
        load(str(tmp_path))


def test_labels_csv_inside_wins_over_folders(tmp_path):
    picture(tmp_path / "x" / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\nx/a.png,7\nb.png,3\n")
    data = load(str(tmp_path))
    assert data.ids == ("b.png", "x/a.png") and data.labels.tolist() == [3, 7]


def test_labels_given_wins_over_labels_inside(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "labels.csv").write_text("a.png,1")
    (tmp_path / "other.csv").write_text("a.png,2")
    assert load(str(tmp_path / "images"), labels=tmp_path / "other.csv").labels.tolist() == [2]


def test_same_order_on_every_run_whatever_the_disk_says(tmp_path):
    for name in ("b/1.png", "a/2.png", "a-b/3.png", "a/10.png"):
        picture(tmp_path / name)
    assert load(str(tmp_path)).ids == ("a/10.png", "a/2.png", "a-b/3.png", "b/1.png")
    assert load(str(tmp_path)).fingerprint() == load(str(tmp_path)).fingerprint()
