"""Kinetics-skeleton: JSON files that the test writes, against the rules of the public pipelines."""

import json
import logging

import numpy as np
import pytest

from bbox.data import load
from bbox.errors import InputError

RNG = np.random.default_rng(0)


def person(certain):
    """A pose in the picture, and scores about ``certain``; one joint is not found."""
    pose, score = RNG.uniform(0.1, 0.9, 36).round(3), (certain + RNG.uniform(0, 0.05, 18)).round(3)
    score[4] = 0.0
    return {"pose": pose.tolist(), "score": score.tolist()}


def put(folder, name, frames, **also):
    folder.mkdir(parents=True, exist_ok=True)
    data = [{"frame_index": number, "skeleton": people} for number, people in frames]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"data": data, **also}))
    return path


def placed(one):
    """(18, 3) as the pipelines have it."""
    pose, score = np.array(one["pose"]).reshape(18, 2), np.array(one["score"])
    return np.concatenate([(pose - 0.5) * [1, -1], score[:, None]], 1) * (score > 0)[:, None]


def test_people_by_confidence(tmp_path, caplog):
    sure, unsure, third = person(0.8), person(0.3), person(0.5)
    path = put(
        tmp_path,
        "a",
        [(1, [unsure, sure, third]), (2, []), (3, [unsure]), (9, [sure])],
        label="abseiling",
        label_index=2,
    )
    with caplog.at_level(logging.WARNING, "bbox"):
        data = load(f"motion:{path},frames=6")
    assert "the third axis is the joint's confidence" in caplog.text
    assert data.inputs.shape == (1, 3, 6, 18, 2) and data.skeleton.name == "kinetics18"
    first, second = data.inputs[0].permute(3, 1, 2, 0).double().numpy()
    np.testing.assert_allclose(first[1], placed(sure), atol=1e-6)
    np.testing.assert_allclose(second[1], placed(third), atol=1e-6)
    np.testing.assert_allclose(first[3], placed(unsure), atol=1e-6)
    assert not first[[0, 2, 4, 5]].any() and not second[[0, 2, 3, 4, 5]].any()
    assert data.labels.tolist() == [2] and data.class_names == ("0", "1", "abseiling")


def test_a_folder(tmp_path, caplog):
    put(tmp_path, "a", [(0, [person(0.5)])], label="x", label_index=1)
    put(tmp_path, "b", [(0, [])], label="y", label_index=0)
    put(tmp_path, "c", [(0, [person(0.5)])], label="y", label_index=0)
    with caplog.at_level(logging.WARNING, "bbox"):
        data = load(f"motion:{tmp_path}")
    assert "left out 1 of 3 videos, which show nobody" in caplog.text
    assert data.inputs.shape == (2, 3, 300, 18, 2) and data.ids == ("a.json", "c.json")
    assert (data.labels.tolist(), data.indices.tolist(), data.class_names) == ([1, 0], [0, 2], ("y", "x"))
    assert len(load(f"motion:{tmp_path},limit=1")) == 1
    put(tmp_path, "d", [(0, [person(0.5)])])
    assert load(f"motion:{tmp_path}").labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "expected an object with 'data'"),
        ("[" * 100_000, "not JSON"),
        ('{"data": [3]}', "entry 1 of 'data' is not a frame of people"),
        ('{"data": [{"frame_index": 0, "skeleton": [{"pose": [1], "score": [1]}]}]}', "1 places and 1 scores of 18"),
        ('{"data": [{"frame_index": "x", "skeleton": []}]}', "entry 1 of 'data'"),
        ('{"data": []}', "nobody is found in any frame"),
    ],
)
def test_refuses(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load(f"motion:{tmp_path / 'a.json'}")
    assert "\n" not in str(caught.value)


def test_a_joint_that_is_no_number(tmp_path):
    wrong = person(0.5)
    wrong["pose"][0] = float("nan")
    with pytest.raises(InputError, match=r"a.json has a value that is not finite"):
        load(f"motion:{put(tmp_path, 'a', [(0, [wrong])])}")
