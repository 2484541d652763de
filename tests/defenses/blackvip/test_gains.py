"""The probe: the width at which differences measure slopes, on functions whose slopes are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bbox.defenses.blackvip.gains import WIDTHS, probe_gains
from bbox.zo import SPSA

DIM = 300
SLOPE = torch.randn(DIM, generator=torch.Generator().manual_seed(0)).double()
SLOPE /= SLOPE.norm()
START = torch.zeros(DIM)


def _linear(size: float = 1.0) -> Callable[[Tensor], Tensor]:
    return lambda points: size * points.double() @ SLOPE


def _hard_labels(gap: float) -> Callable[[Tensor], Tensor]:
    """The share of 32 images on the wrong side of their boundary; none lies nearer to it than the gap."""
    generator = torch.Generator().manual_seed(1)
    drawn = 2 * torch.rand(32, generator=generator).double() - 1
    margins = drawn + gap * drawn.sign()
    slopes = SLOPE + 0.03 * torch.randn(32, DIM, generator=generator).double()
    return lambda points: ((margins[:, None] - slopes @ points.double().T) < 0).double().mean(0)


@pytest.mark.parametrize("seed", range(5))
def test_a_smooth_loss_takes_the_smallest_width(seed: int) -> None:
    found = probe_gains(_linear(), START, seed=seed)
    assert found.c == WIDTHS[0] == min(WIDTHS)
    assert found.agreement == pytest.approx((1.0, 1.0), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gap", "narrow"), [(0.05, WIDTHS[0]), (0.15, WIDTHS[1])])
def test_hard_labels_take_a_width_that_moves_images_over_their_boundaries(gap: float, narrow: float, seed: int) -> None:
    found = probe_gains(_hard_labels(gap), START, seed=seed)
    assert found.c > narrow
    spsa = SPSA(20)
    u = spsa.directions(seed, 1, DIM)

    def cosine(width: float) -> float:
        estimate = spsa.gradient(spsa.coefficients(_hard_labels(gap)(spsa.points(START, u, width)), width), u)
        return float(estimate.double() @ SLOPE / estimate.double().norm().clamp_min(1e-30))

    # sqrt(k / (k + dim - 1)) is 0.25 for exact answers; wide differences have most of it, narrow ones nothing.
    assert cosine(WIDTHS[2]) > 0.1 > 1e-6 >= abs(cosine(narrow))


@pytest.mark.parametrize("seed", range(5))
def test_rounded_answers_take_a_wide_one(seed: int) -> None:
    step = 0.12  # what +-0.01 moves the loss by is about 0.02, and rounds to nothing or to one step

    def rounded(points: Tensor) -> Tensor:
        return ((_linear()(points) + 0.031) / step).round() * step

    assert probe_gains(rounded, START, seed=seed).c > WIDTHS[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_bends_takes_the_narrow_one(seed: int) -> None:
    """Beyond 0.06 along a direction this one is a wave, whose differences say nothing of the slope at the start."""

    def bent(points: Tensor) -> Tensor:
        return torch.sin(25 * points.double() @ SLOPE)

    found = probe_gains(bent, START, seed=seed)
    assert found.c == WIDTHS[0]
    assert found.agreement[0] > found.agreement[1]


def test_where_nothing_agrees_it_is_the_middle() -> None:
    generator = torch.Generator().manual_seed(3)
    found = probe_gains(lambda points: torch.rand(len(points), generator=generator), START, seed=0)
    assert max(found.agreement) < 0.7
    assert found.c == sorted(WIDTHS)[1]


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_a_flat_loss_is_scaled_up_to_the_size_of_a_step(size: float) -> None:
    """One direction's estimate is slope times signs, so its RMS is the slope's size, which the scale brings to 1."""
    found = probe_gains(_linear(size), START, seed=0)
    assert found.scale * size == pytest.approx(1, rel=0.6)
    assert probe_gains(_linear(size), START, seed=0, c=0.03).scale == pytest.approx(found.scale, rel=1e-3)


def test_a_steep_loss_is_left_as_it_is() -> None:
    assert probe_gains(_linear(50), START, seed=0).scale == 1.0


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_loss_that_never_moves_or_is_none_is_not_scaled(value: float) -> None:
    found = probe_gains(lambda points: torch.full((len(points),), value), START, seed=0)
    assert found.scale == 1.0 and found.c in WIDTHS


@pytest.mark.parametrize(("c", "widths"), [(0.0, 3), (0.05, 1)])
def test_it_asks_no_more_than_it_says(c: float, widths: int) -> None:
    asked = []

    def values(points: Tensor) -> Tensor:
        asked.append(len(points))
        return _linear()(points)

    found = probe_gains(values, START, seed=0, c=c, directions=5)
    assert sum(asked) == 2 * 5 * widths
    assert len(found.agreement) == widths - 1
    if c:
        assert found.c == c


def test_the_same_seed_probes_the_same_points() -> None:
    seen: list[Tensor] = []

    def values(points: Tensor) -> Tensor:
        seen.append(points)
        return _linear()(points)

    for seed in (0, 0, 1):
        probe_gains(values, START, seed=seed)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
