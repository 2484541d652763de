"""NTU RGB+D: .skeleton files that the test writes."""

import logging

import numpy as np
import pytest
import torch

from bbox.data import load
from bbox.errors import InputError, UsageError

RNG = np.random.default_rng(0)


def body(frames, spread):
    """(frames, 25, 3) about a place a metre off, of this spread."""
    return (1.0 + spread * RNG.standard_normal((frames, 25, 3))).round(6)


def text(frames, joints=25):
    """The file of these frames, each a dict of bodies by ID."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for name, joint_places in bodies.items():
            lines += [f"{name} 0 1 1 1 1 0 0.1 -0.2 2", str(joints)]
            lines += [f"{x:.6f} {y:.6f} {z:.6f} 1 2 3 4 -nan(ind) 0 0 1 2" for x, y, z in joint_places]
    return "\n".join(lines) + "\n"


def put(folder, name, frames):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.skeleton").write_text(text(frames))
    return folder / f"{name}.skeleton"


def test_one_file(tmp_path):
    places = body(3, 1.0)
    path = put(tmp_path, "S001C002P003R002A060", [{}, *({"72057594037931101": frame} for frame in places), {}])
    for spec in (str(path), f"motion:{path}"):
        data = load(spec)
        assert data.inputs.shape == (1, 3, 300, 25, 2) and (data.name, data.frame_rate) == (spec, 30.0)
        assert (data.labels.tolist(), data.ids, data.skeleton.name) == ([59], (path.name,), "ntu25")
        expected = torch.from_numpy(places - places[0, 1]).float().permute(2, 0, 1)
        assert torch.allclose(data.inputs[0, :, :3, :, 0], expected, atol=1e-6)
        assert not data.inputs[0, :, 3:].any() and not data.inputs[..., 1].any()
    cut = load(f"motion:{path},frames=2,bodies=1,center=no")
    assert torch.allclose(cut.inputs[0, ..., 0], torch.from_numpy(places[:2]).float().permute(2, 0, 1))


def test_bodies_are_followed_by_id_and_the_widest_come_first(tmp_path):
    calm, wide, wider, near = body(4, 0.01), body(4, 1.0), body(4, 2.0), body(4, 0.02)
    # IDs that a float64 cannot tell apart; the widest body comes late and goes early, and lines change their order.
    one, two, three, four = (f"7205759403793110{number}" for number in (1, 2, 3, 4))
    frames = [
        {one: calm[0], two: wide[0]},
        {two: wide[1], one: calm[1], three: wider[1], four: near[1]},
        {three: wider[2], two: wide[2]},
        {two: wide[3]},
    ]
    data = load(f"motion:{put(tmp_path, 'S001C001P001R001A001', frames)},frames=5")
    first, second = data.inputs[0].permute(3, 1, 2, 0).double().numpy()
    origin = wider[1, 1]
    np.testing.assert_allclose(first[1:3], wider[1:3] - origin, atol=1e-6)
    np.testing.assert_allclose(second[:4], wide - origin, atol=1e-6)
    assert not first[[0, 3, 4]].any() and not second[4].any()


def test_subsets_and_files_without_a_body(tmp_path, caplog):
    names = ["S001C001P001R001A001", "S002C002P003R001A002", "S001C003P003R001A003", "S018C001P045R001A120"]
    for name in names:
        put(tmp_path, name, [{"1": body(1, 1.0)[0]}])
    put(tmp_path, "S001C001P002R001A004", [{}, {}])
    put(tmp_path, "S001C001P002R001A005", [])
    expected = {
        "xsub-train": [0, 3],
        "xsub-test": [1, 2],
        "xview-train": [1, 2],
        "xview-test": [0, 3],
        "xset-train": [1, 3],
        "xset-test": [0, 2],
        "all": [0, 1, 2, 3],
    }
    with caplog.at_level(logging.WARNING, "bbox"):
        for subset, rows in expected.items():
            data = load(f"motion:{tmp_path},frames=2,subset={subset}")
            assert set(data.ids) == {f"{names[row]}.skeleton" for row in rows}
    assert "left out 2 files, which hold no body, first S001C001P002R001A004.skeleton" in caplog.text
    assert data.indices.tolist() == [0, 3, 4, 5] and data.labels.tolist() == [0, 2, 1, 119]
    assert load(f"motion:{tmp_path},frames=2,limit=2").labels.tolist() == [0, 2]
    assert load(str(tmp_path)).inputs.shape == (4, 3, 300, 25, 2)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("S001C001P001R001A001", "subset=xsub-test", InputError, "none of 1 files is in the subset xsub-test"),
        ("clip", "subset=xsub-test", InputError, "clip.skeleton is not like S001C001P001R001A001"),
        ("clip", "subset=xsub", UsageError, "subset is 'xsub', expected all, xsub-train"),
        ("clip", "bodies=0", UsageError, "bodies is 0"),
        ("clip", "unit=cm", UsageError, "no option 'unit'"),
    ],
)
def test_refuses_options(tmp_path, name, options, error, message):
    path = put(tmp_path, name, [{"1": body(1, 1.0)[0]}])
    assert load(str(path)).labels is None or name != "clip"
    with pytest.raises(error, match=message):
        load(f"motion:{path},{options}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "cut off after line 0, where the number of frames is expected"),
        (lambda text: "0\n", "no body in any frame"),
        (lambda text: "2\n0\n0\n", "no body in any frame"),
        (lambda text: text[: len(text) // 2].rpartition("\n")[0], r"cut off after line 16, where a joint is expected"),
        (lambda text: text.replace("\n25\n", "\n24\n"), "line 4: a body of 24 joints, expected 25"),
        (lambda text: text.replace("\n25\n", "\n25.5\n"), "line 4 is '25.5', expected the number of joints"),
        (lambda text: "<xml>", "line 1 is '<xml>', expected the number of frames"),
        (lambda text: text.replace("1.000000 1.000000", "nan 1.000000", 1), "'nan' where a number is expected"),
        (lambda text: text.replace("1.000000 1.000000 1.000000 1 2", "1.0", 1), "line 5 has 8 numbers"),
    ],
)
def test_refuses_files(tmp_path, change, message):
    path = put(tmp_path, "S001C001P001R001A001", [{"1": body(1, 0.0)[0]}])
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        load(str(path))
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_refuses_other_bytes_and_empty_folders(tmp_path):
    (tmp_path / "a.skeleton").write_bytes(b"1\n\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text"):
        load(str(tmp_path / "a.skeleton"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no .skeleton file in it"):
        load(f"motion:{tmp_path / 'empty'},format=ntu")
