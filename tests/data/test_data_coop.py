"""CoOp's split files: each part, the names, the folder of the images, and what is refused."""

import json

import pytest
from PIL import Image

from bbox.data import load
from bbox.errors import InputError, UsageError

SPLITS = {
    "train": [["images/b.png", 1, "pug"], ["images/a.png", 0, "maine coon"]],
    "val": [["images/a.png", 0, "maine coon"]],
    "test": [["images/c.png", 2, "a, b"]],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for level, name in enumerate("abc"):
        Image.new("RGB", (6, 6), (level * 51,) * 3).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def write(folder, content=None, name="split.json"):
    text = content if isinstance(content, str) else json.dumps(SPLITS if content is None else content)
    (folder / name).write_text(text, encoding="utf-8")
    return f"coop:{folder / name}"


def test_the_training_split_in_the_order_of_the_file(folder):
    spec = write(folder)
    data = load(spec)
    assert data.name == spec and data.ids == ("images/b.png", "images/a.png")
    assert data.labels.tolist() == [1, 0] and data.indices.tolist() == [0, 1]
    assert data.inputs[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.0])


def test_the_other_splits_have_the_same_names(folder):
    spec = write(folder)
    for split, labels in (("val", [0]), ("test", [2])):
        data = load(f"{spec},split={split}")
        assert data.name == f"{spec},split={split}" and data.labels.tolist() == labels
        assert data.class_names == load(spec).class_names == ("maine coon", "pug", "a, b")


def test_images_in_another_folder_and_in_another_size(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("with,comma")
    spec = write(elsewhere)
    assert load(f"{spec},split=test,root={folder}", size=3).inputs.shape == (1, 3, 3, 3)
    with pytest.raises(InputError, match=r"split.json names images/b.png, which is not in .*root=DIR"):
        load(spec)


def test_two_sizes_need_one(folder):
    Image.new("RGB", (5, 6)).save(folder / "images" / "a.png")
    with pytest.raises(InputError, match=r"6x6 and .*a.png is 5x6 .*--image-size"):
        load(write(folder))
    assert load(write(folder), size=4).inputs.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable JSON file"),
        ("[" * 100_000, "not a readable JSON file"),
        ([1], r"expected \{\"train\": \[\[image path"),
        ({"train": 3}, r"expected \{\"train\": \[\[image path"),
        ({}, "has no split 'train'; it has none"),
        ({"val": [], "test": []}, "has no split 'train'; it has val, test"),
        ({"train": []}, "the split 'train' is empty"),
        ({"train": [["images/a.png", 0]]}, r"train\[0\] is \[\"images/a.png\", 0\], expected \[image path"),
        ({"train": ["images/a.png"]}, r"train\[0\] is \"images/a.png\", expected"),
        ({"train": [["images/a.png", "0", "x"]]}, r"train\[0\] has the label \"0\", expected an integer"),
        ({"train": [["images/a.png", True, "x"]]}, "has the label true, expected an integer"),
        ({"train": [["images/a.png", -1, "x"]]}, "has the label -1, expected an integer from 0"),
        ({"train": [["images/a.png", 0.0, "x"]]}, "has the label 0.0, expected an integer"),
        ({"train": [["images/a.png", 0, None]]}, "expected .image path, label, class name"),
        ({"train": [[7, 0, "x"]]}, "expected .image path, label, class name"),
        ({"train": [["images/a.png", 0, "x"]], "val": [["b", 0, "y"]]}, "label 0 is called 'x' and 'y'"),
        ({"train": [["images/a.png", 2, "x"], ["images/a.png", 0, "y"]]}, "labels reach 2, but no entry has 1"),
        ({"train": [["images/gone.png", 0, "x"]]}, "names images/gone.png, which is not in"),
    ],
)
def test_refuses(folder, content, message):
    with pytest.raises(InputError, match=message) as caught:
        load(write(folder, content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_broken_image(folder):
    (folder / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a.png: broken image"):
        load(write(folder))


def test_no_file_and_wrong_options(folder):
    with pytest.raises(InputError, match=r"gone.json: no such file"):
        load("coop:gone.json")
    with pytest.raises(UsageError, match=r"expected coop:FILE\.json"):
        load("coop:")
    spec = write(folder)
    with pytest.raises(UsageError, match="split is 'dev', expected train, val, test"):
        load(f"{spec},split=dev")
    with pytest.raises(UsageError, match="has no option 'splt'; did you mean 'split'"):
        load(f"{spec},splt=val")
    with pytest.raises(UsageError, match="has labels of its own"):
        load(spec, labels=folder / "labels.csv")
