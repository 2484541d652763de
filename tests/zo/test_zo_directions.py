"""Directions: their laws, and sums that are the same bits however they are taken."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from bbox.zo import Directions, root_keys

LAWS = ["gaussian", "rademacher", "sphere", "orthogonal"]


def _directions(law: str, n: int = 5, q: int = 6, dim: int = 11, seed: int = 0) -> Directions:
    return Directions(root_keys(seed, torch.arange(n)), q, dim, law)


@pytest.mark.parametrize("law", LAWS)
def test_a_direction_is_the_same_whatever_is_asked_with_it(law: str) -> None:
    directions = _directions(law)
    whole = directions.at(torch.arange(len(directions)))
    some = torch.tensor([29, 3, 3, 17])
    assert torch.equal(directions.at(some), whole[some])
    alone = Directions(directions.keys[2:3], 6, 11, law)
    assert torch.equal(alone.at(torch.arange(6)), whole[12:18])


def test_the_number_of_directions_does_not_change_the_first_ones() -> None:
    few, many = _directions("gaussian", q=3), _directions("gaussian", q=9)
    assert torch.equal(few.at(torch.arange(3, 6)), many.at(torch.arange(9, 12)))


@pytest.mark.parametrize("law", ["sphere", "orthogonal"])
def test_unit_directions_are_unit(law: str) -> None:
    rows = _directions(law, n=20).at(torch.arange(120)).double()
    assert torch.allclose(rows.norm(dim=1), torch.ones(120, dtype=torch.float64), atol=1e-6)
    # Uniform on the sphere in 11 dimensions: a coordinate squared follows Beta(1/2, 10/2).
    many = _directions(law, n=1500, q=1).at(torch.arange(1500)).double()
    assert stats.kstest(many[:, 4].square().numpy(), stats.beta(0.5, 5).cdf).pvalue > 1e-3
    assert (many.mean(0).abs() < 4 / (11 * 1500) ** 0.5).all()


@pytest.mark.parametrize("q", [2, 6, 11])
def test_orthogonal_directions_are_orthogonal_within_a_point_only(q: int) -> None:
    rows = _directions("orthogonal", n=2, q=q).at(torch.arange(2 * q)).double().view(2, q, 11)
    gram = rows @ rows.transpose(1, 2)
    assert torch.allclose(gram, torch.eye(q, dtype=torch.float64).expand(2, q, q), atol=1e-5)
    assert not torch.allclose(rows[0], rows[1])


def test_coordinate_directions_are_the_unit_vectors() -> None:
    directions = Directions(root_keys(0, torch.arange(2)), 4, 4, "coordinate")
    assert torch.equal(directions.at(torch.arange(8)), torch.eye(4).repeat(2, 1))


@pytest.mark.parametrize("chunk", [1, 7, 40, 137, 1000, 1 << 22])
def test_signed_sums_are_the_same_bits_in_any_chunks(chunk: int) -> None:
    directions = Directions(root_keys(1, torch.arange(3)), 300, 13)
    weights = torch.randint(-1, 2, (3, 300), generator=torch.Generator().manual_seed(0)).float()
    grid = (directions.at(torch.arange(900)).double() * 1024).long().view(3, 300, 13)
    exact = (weights.long()[:, :, None] * grid).sum(1).double() / 1024
    assert torch.equal(directions.weighted_sum(weights, chunk=chunk).double(), exact)


def test_signed_sums_are_the_same_bits_in_any_batch() -> None:
    keys = root_keys(1, torch.arange(9))
    weights = torch.randint(-1, 2, (9, 64), generator=torch.Generator().manual_seed(0)).float()
    whole = Directions(keys, 64, 500).weighted_sum(weights)
    for i in range(9):
        alone = Directions(keys[i : i + 1], 64, 500).weighted_sum(weights[i : i + 1])
        assert torch.equal(alone[0], whole[i])


@pytest.mark.parametrize("law", LAWS)
def test_weighted_sums_equal_the_plain_sum(law: str) -> None:
    directions = _directions(law)
    weights = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    rows = directions.at(torch.arange(30)).view(5, 6, 11)
    for chunk in (5, 1 << 20):
        found = directions.weighted_sum(weights, chunk=chunk)
        assert torch.allclose(found, (weights[:, :, None] * rows).sum(1), atol=1e-5)


@pytest.mark.parametrize(
    ("q", "dim", "law", "word"),
    [(0, 3, "gaussian", "0 directions"), (4, 3, "orthogonal", "do not exist"), (2, 3, "coordinate", "not 2")],
)
def test_directions_that_cannot_be(q: int, dim: int, law: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Directions(root_keys(0, torch.arange(1)), q, dim, law)
