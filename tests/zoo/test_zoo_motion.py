import importlib.util
import json

import numpy as np
import pytest
import torch

from bbox.errors import UsageError
from bbox.motion.training import accuracy
from bbox.zoo import DATA, TARGETS, motion
from bbox.zoo.make_motion_models import VICTIMS

CARD = json.loads((motion.ASSETS / "motion-models.json").read_text(encoding="utf-8"))
ENTRIES = {"gru": "motion-gru", "hcn": "motion-hcn", "transformer": "motion-transformer"}


@pytest.fixture(scope="module")
def test_set():
    return motion.load_motion_data()


@pytest.mark.parametrize("name", list(VICTIMS))
def test_accuracy_recomputed_is_what_the_card_and_the_table_say(name, test_set):
    entry = TARGETS[ENTRIES.get(name, name)]
    network = entry.load()
    assert accuracy(network, test_set) == pytest.approx(CARD[name]["accuracy"], abs=0.02)
    assert entry.accuracy.startswith(f"{CARD[name]['accuracy']:.1%} of zoo:motion")
    assert sum(parameter.numel() for parameter in network.parameters()) == CARD[name]["parameters"]
    assert CARD[name]["changed_by_2cm_noise"] < 0.1
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("frames", [24, 32])
def test_bones_keep_their_length(frames):
    data = motion.load_motion_data(frames=frames)
    joints, parents = (torch.tensor(ends) for ends in zip(*data.skeleton.bones, strict=True))
    lengths = (data.inputs[:, :, :, joints] - data.inputs[:, :, :, parents]).norm(dim=1)
    there = (data.inputs != 0).any(1).any(2)[..., 0]
    spread = lengths[there].amax(0) - lengths[there].amin(0)
    assert float(spread.max()) < 1e-3
    assert 0.05 < float(lengths[there].min()) < float(lengths[there].max()) < 0.5


def test_splits_share_no_frame_and_cover_each_clip():
    clips = motion.load_motion_card()["clips"]
    used = {}
    for split in ("train", "test"):
        for name, parts in motion.load_motion_parts(split).items():
            for start, positions in parts:
                span = range(start, start + len(positions))
                assert used.setdefault(name, set()).isdisjoint(span)
                used[name].update(span)
    assert {name: len(frames) for name, frames in used.items()} == {n: clip["frames"] for n, clip in clips.items()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_window_is_a_piece_of_one_part_with_its_first_root_over_the_origin(split):
    data, parts = motion.load_motion_data(split=split), motion.load_motion_parts(split)
    assert not data.inputs[:, ::2, 0, 0].any()
    for row in range(0, len(data), 7):
        name, _, first = data.ids[row].rpartition("-")
        start, positions = next(p for p in parts[name] if p[0] <= int(first) < p[0] + len(p[1]))
        piece = torch.from_numpy(positions[int(first) - start :][:24]).permute(2, 0, 1)
        window = data.inputs[row, ..., 0]
        torch.testing.assert_close(window.diff(dim=1), piece.diff(dim=1), atol=1e-6, rtol=0)
        torch.testing.assert_close(window[1], piece[1])
        assert data.class_names[data.labels[row]] == name


def test_the_test_split_is_large_balanced_and_mixed(test_set):
    counts = test_set.labels.bincount()
    assert len(test_set) >= 200
    assert (int(counts.min()), int(counts.max()), len(counts)) == (9, 16, 15)
    assert test_set.select(limit=64).labels.bincount().min() >= 4
    assert test_set.inputs.shape[1:] == DATA["motion"].input_shape
    assert len(set(test_set.ids)) == len(test_set)
    assert DATA["motion"].load().fingerprint() == test_set.fingerprint()


def test_a_part_that_is_too_short_ends_in_padding():
    long = motion.load_motion_data(frames=60)
    assert not long.inputs[:, :, 55:].any()
    assert long.inputs[:, :, 25].flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "dev"}, "split is 'dev', expected train or test"),
        ({"frames": 1}, "frames is 1, expected at least 2"),
        ({"stride": 0}, "stride is 0, expected at least 1"),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(UsageError, match=says):
        motion.load_motion_data(**options)


def test_assets_are_small():
    files = list(motion.ASSETS.glob("motion*"))
    assert len(files) == 3 + len(VICTIMS)
    assert (motion.ASSETS / "motion.npz").stat().st_size < 300_000
    weights = [file.stat().st_size for file in files if file.suffix == ".safetensors"]
    assert max(weights) < 300_000
    assert sum(weights) < 1_200_000


def test_the_data_are_made_again_from_pybullet():
    if importlib.util.find_spec("pybullet_data") is None:
        pytest.skip("pybullet is not installed")
    from bbox.zoo.make_motion import make_clips, package

    clips, loops = make_clips(package())
    card = motion.load_motion_card()["clips"]
    assert {name: {"frames": len(clip), "loops": loops[name]} for name, clip in clips.items()} == card
    with np.load(motion.ASSETS / "motion.npz", allow_pickle=False) as stored:
        for name, clip in clips.items():
            # Rounding may differ elsewhere by one unit, a tenth of a millimetre.
            assert np.abs(stored[name].cumsum(0) - clip).max() <= 1
