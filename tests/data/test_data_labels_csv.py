"""Label files: with and without a header, numbers and names, and each way to be wrong."""

import pytest

from bbox.data.labels_csv import read_label_column, read_labels
from bbox.errors import InputError

NAMES = ["a.png", "b.png", "sub/c.png"]


def read(tmp_path, text, encoding="utf-8"):
    (tmp_path / "labels.csv").write_text(text, encoding=encoding)
    return read_labels(tmp_path / "labels.csv", tmp_path, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "a.png,1\nb.png,0\nsub/c.png,2",
        "file,label\na.png,1\nb.png,0\nsub/c.png,2\n",
        "label,file\n1,a.png\n0,b.png\n2,sub/c.png\n",
        "Filename , split, Label\r\na.png,x,1\r\n\r\nb.png,x,0\r\nsub\\c.png,x,2\r\n",
        "sub/c.png,2\n./a.png, 1\nb.png,0",
    ],
)
def test_numbers(tmp_path, text):
    assert read(tmp_path, text) == ([1, 0, 2], None)


def test_byte_order_mark(tmp_path):
    assert read(tmp_path, "file,label\na.png,1\nb.png,0\nsub/c.png,2", "utf-8-sig")[0] == [1, 0, 2]


def test_names_are_sorted(tmp_path):
    assert read(tmp_path, "a.png,dog\nb.png,cat\nsub/c.png,dog") == ([1, 0, 1], ("cat", "dog"))


def test_names_in_the_order_of_classes_txt(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    assert read(tmp_path, "a.png,dog\nb.png,cat\nsub/c.png,dog") == ([0, 2, 0], ("dog", "bird", "cat"))
    assert read(tmp_path, "a.png,0\nb.png,1\nsub/c.png,2") == ([0, 1, 2], ("dog", "bird", "cat"))


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("", None, "the file is empty"),
        ("a.png,1", None, r"labels 1 of 3 images; b.png has none"),
        ("x.png,1", None, r"line 1 names 'x.png', which is no image in"),
        ("file,label\na.png,1\na.png,2", None, r"line 3 names 'a.png' a second time"),
        ("a.png\nb.png", None, r"line 1 is 'a.png', expected file,label"),
        ("a.png,", None, r"line 1 is 'a.png,', expected file,label"),
        ("a.png,1\nb.png,cat\nsub/c.png,2", None, "labels mix numbers and names, for example '1' and 'cat'"),
        (
            "a.png,dgo\nb.png,dog\nsub/c.png,dog",
            "dog\ncat",
            r"class 'dgo' is not in .*classes.txt; did you mean 'dog'",
        ),
        ("a.png,1\nb.png,2\nsub/c.png,0", "dog\ncat", "label 2 is not below the 2 names in"),
        ('a.png,"1\n', None, "not a readable UTF-8 CSV file"),
    ],
)
def test_refuses(tmp_path, text, classes, message):
    if classes is not None:
        (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_refuses_bytes_and_nothing(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="not a readable UTF-8 CSV"):
        read_labels(tmp_path / "labels.csv", tmp_path, NAMES)
    with pytest.raises(InputError, match=r"gone.csv: no such file"):
        read_labels(tmp_path / "gone.csv", tmp_path, NAMES)


@pytest.mark.parametrize("text", ["3\n1\n2", "label\n3\n1\n2\n", "id,label\nx,3\ny,1\nz,2"])
def test_column(tmp_path, text):
    (tmp_path / "y.csv").write_text(text)
    assert read_label_column(tmp_path / "y.csv") == [3, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4", "has 2 columns, expected one"),
        ("label\ncat", "line 2 has the label 'cat'"),
        ("1.5", "'1.5'"),
    ],
)
def test_column_refuses(tmp_path, text, message):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_label_column(tmp_path / "y.csv")
