"""Few shots of each class, drawn by seed."""

import pytest
import torch

from bbox.data import Dataset
from bbox.errors import UsageError


def made(labels):
    count = len(labels)
    inputs = torch.arange(count).reshape(-1, 1, 1, 1) / count
    numbers = torch.tensor(labels)
    return Dataset("made", inputs, numbers, torch.arange(count) + 100, tuple(f"id-{i}" for i in range(count)))


@pytest.fixture
def data():
    return made(torch.randint(4, (200,), generator=torch.Generator().manual_seed(1)).tolist())


@pytest.mark.parametrize("shots", [1, 5, 16])
def test_shots_and_rest_part_the_set(data, shots):
    few, rest = data.few_shot(shots, seed=0)
    assert few.labels.bincount().tolist() == [shots] * 4
    assert sorted(few.indices.tolist() + rest.indices.tolist()) == data.indices.tolist()
    for part in (few, rest):
        assert torch.equal(part.indices, part.indices.sort().values)
        assert torch.equal(part.labels, data.labels[part.indices - 100])
        assert part.ids == tuple(f"id-{i - 100}" for i in part.indices.tolist())


def test_the_seed_decides_and_the_global_state_does_not(data):
    before = torch.get_rng_state()
    first = data.few_shot(4, seed=3)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(data.few_shot(4, seed=3)[0].indices, first.indices)
    assert not torch.equal(data.few_shot(4, seed=4)[0].indices, first.indices)


def test_fewer_shots_lie_within_more(data):
    few, more = (set(data.few_shot(shots, seed=5)[0].indices.tolist()) for shots in (2, 8))
    assert few < more


def test_every_example_is_drawn_as_often():
    data = made([0] * 6 + [2] * 3)
    counts = torch.zeros(9)
    for seed in range(600):
        counts[data.few_shot(1, seed)[0].indices - 100] += 1
    assert (counts[:6] - 100).abs().max() < 4 * 9.2 and (counts[6:] - 200).abs().max() < 4 * 11.6


def test_a_small_class_gives_all_it_has():
    few, rest = made([0] * 6 + [2]).few_shot(3, seed=0)
    assert few.labels.tolist() == [0, 0, 0, 2] and rest.labels.tolist() == [0, 0, 0]


def test_refuses():
    with pytest.raises(UsageError, match="shots is 0"):
        made([0, 1]).few_shot(0, seed=0)
    with pytest.raises(UsageError, match="3 shots take all of made: no class has more than 2; give fewer"):
        made([0, 0, 1]).few_shot(3, seed=0)
    bare = Dataset("bare", torch.rand(2, 1, 1, 1), None, torch.arange(2), ("0", "1"))
    with pytest.raises(UsageError, match="bare has no labels"):
        bare.few_shot(1, seed=0)
