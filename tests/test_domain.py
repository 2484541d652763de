"""Distances of both norms, and the ball: never left by a bit, on a grid or off it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbox.domain import ROUNDING, Box


def _rows(seed: int, count: int = 4, shape: tuple[int, ...] = (3, 5, 4)) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", np.inf)])
def test_distances_are_numpys(norm: str, order: float) -> None:
    one, two = _rows(0), _rows(1)
    expected = [np.linalg.norm((a.double() - b.double()).numpy().ravel(), order) for a, b in zip(one, two, strict=True)]
    box = Box(norm=norm)
    assert box.distance(one, two).tolist() == pytest.approx(expected, rel=1e-14)
    assert box.rough_distance(one, two.clone()).tolist() == pytest.approx(expected, rel=1e-6)


def test_linf_is_exact() -> None:
    one, two = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    two[0, 0, 1, 0] = 0.3
    assert Box(norm="linf").distance(one, two).item() == float(np.float32(0.3))


@given(seed=st.integers(0, 1000), epsilon=st.floats(1e-3, 1.5))
def test_no_corner_of_the_ball_is_further_than_epsilon(seed: int, epsilon: float) -> None:
    rows = _rows(seed).masked_fill(_rows(seed + 1) < 0.2, 0.0)
    low, high = Box(norm="linf").linf_ball(rows, epsilon)
    for corner in (low, high):
        assert corner.dtype == torch.float32 and corner.min() >= 0 and corner.max() <= 1
        gap = (corner.double() - rows.double()).abs()
        assert float(gap.max()) <= epsilon
        room = torch.minimum(torch.full_like(gap, epsilon), rows if corner is low else 1 - rows)
        assert torch.allclose(gap, room.double(), rtol=0, atol=2e-7), "and as far as it may"


@given(seed=st.integers(0, 1000), level=st.integers(1, 100), part=st.floats(0, 0.99))
def test_on_a_grid_the_ball_loses_no_level(seed: int, level: int, part: float) -> None:
    rows = (_rows(seed) * 255).round() / 255
    low, high = Box(norm="linf", levels=255).linf_ball(rows, (level + part) / 255)
    steps = (rows * 255).round()
    assert torch.equal(high, (steps + level).clamp(max=255) / 255)
    assert torch.equal(low, (steps - level).clamp(min=0) / 255)
    assert float((high.double() - rows.double()).max()) <= (level + part) / 255 + ROUNDING


@given(seed=st.integers(0, 1000))
def test_inward_lies_on_the_grid_and_no_further(seed: int) -> None:
    originals = (_rows(seed) * 255).round() / 255
    wanted = _rows(seed + 1)
    rows = Box(levels=255).inward(originals, wanted)
    assert torch.equal(rows, (rows * 255).round() / 255)
    nearer = (rows.double() - originals.double()).abs() - (wanted.double() - originals.double()).abs()
    assert float(nearer.max()) <= ROUNDING
    assert float((rows - wanted).abs().max()) < 1.001 / 255
    assert torch.equal(Box().inward(originals, wanted), wanted)
