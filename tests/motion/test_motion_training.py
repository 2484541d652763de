import pytest
import torch

from bbox.data.base import MotionSet
from bbox.errors import InputError
from bbox.motion import present
from bbox.motion.networks import make_network
from bbox.motion.skeletons import SKELETONS
from bbox.motion.training import accuracy, train, vary

HUMANOID = SKELETONS["humanoid15"]


def dataset(count=48, frames=12, labelled=True):
    """Three poses, each shivering: easy to tell apart."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(3, 3, 1, len(HUMANOID), 1, generator=generator)
    labels = torch.arange(count) % 3
    inputs = poses[labels] + 0.05 * torch.randn(count, 3, frames, len(HUMANOID), 1, generator=generator)
    ids = tuple(str(row) for row in range(count))
    return MotionSet("poses", inputs, labels if labelled else None, torch.arange(count), ids, None, HUMANOID, 30.0)


def small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_network("gru", HUMANOID, 3, hidden=12)


def test_training_learns_repeats_itself_and_leaves_the_random_state():
    data, before, epochs = dataset(), torch.get_rng_state(), []
    first, second = small(), small()
    untrained = accuracy(first, data)
    found = train(first, data, epochs=6, batch_size=4, seed=1, on_epoch=lambda *told: epochs.append(told))
    assert found == accuracy(first, data) > max(untrained, 0.9)
    assert not first.training
    assert [epoch for epoch, _ in epochs] == list(range(1, 7))
    assert epochs[-1][1] < epochs[0][1]
    assert torch.equal(torch.get_rng_state(), before)
    train(second, data, epochs=6, batch_size=4, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_test_set_is_what_is_measured_on():
    data = dataset()
    wrong = MotionSet("wrong", data.inputs, (data.labels + 1) % 3, data.indices, data.ids, None, HUMANOID, 30.0)
    assert train(small(), data, test=wrong, epochs=12, batch_size=8) < 0.1


def test_a_time_limit_ends_it():
    epochs = []
    train(small(), dataset(), epochs=10**6, time_limit=0.3, on_epoch=lambda *told: epochs.append(told))
    assert 0 < len(epochs) < 1000


def test_data_without_labels_is_refused():
    with pytest.raises(InputError, match="the motions have no labels"):
        train(small(), dataset(labelled=False))


def test_variation_keeps_bones_but_for_size_and_noise():
    motions = dataset(6).inputs
    varied = vary(motions, HUMANOID, noise=0.0, generator=torch.Generator().manual_seed(0))
    there = present(varied)
    assert (there.flatten(1).sum(1) >= 12 * 0.5).all()
    joint, parent = 2, 1
    bone = (motions[:, :, :1, joint] - motions[:, :, :1, parent]).norm(dim=1)
    after = (varied[:, :, :1, joint] - varied[:, :, :1, parent]).norm(dim=1)
    ratio = after / bone
    assert 0.9 <= float(ratio.min()) < float(ratio.max()) <= 1.1
    height = (motions[:, 1, :1, joint] - motions[:, 1, :1, parent]) * ratio
    torch.testing.assert_close(varied[:, 1, :1, joint] - varied[:, 1, :1, parent], height)
    assert not torch.allclose(varied[:, 0, 0], motions[:, 0, 0])


def test_variation_keeps_absent_bodies_and_noise_has_its_size():
    still = torch.ones(400, 3, 10, len(HUMANOID), 2)
    still[..., 1] = 0
    still[:, :, 8:] = 0
    drawn = [vary(still, HUMANOID, noise=n, generator=torch.Generator().manual_seed(0)) for n in (0.0, 0.02)]
    assert torch.equal(present(drawn[0]), present(drawn[1]))
    assert not drawn[1][..., 1].any()
    assert (drawn[1] == 0).flatten(1).any(1).all()
    moved = (drawn[1] - drawn[0])[:, :, 0, :, 0]
    assert float(moved.std()) == pytest.approx(0.02 / 3**0.5, rel=0.1)  # of a deviation uniform up to .02
    assert float(moved.flatten(1).std(1).max()) < 0.025


def test_a_mirror_image_swaps_sides():
    motions = torch.zeros(64, 3, 4, len(HUMANOID), 1)
    left, right = HUMANOID.sides[0]
    motions[:, 1, :, left], motions[:, 1, :, right] = 1.0, 2.0
    varied = vary(motions, HUMANOID, noise=0.0, generator=torch.Generator().manual_seed(0))[:, 1, 0, :, 0]
    mirrored = varied[:, left] > varied[:, right]
    assert 0.25 < float(mirrored.double().mean()) < 0.75
