"""SPSA against its definition: unbiased estimates, the published cosine, directions replayed from their numbers."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from bbox.zo import SPSA, Gains, clip_estimate
from bbox.zo.spsa import PerturbationLaw

LAWS = get_args(PerturbationLaw)
GOLDEN = {
    "rademacher": [1.0, 1.0, -1.0, -1.0],
    "segmented": [0.9769701957702637, 0.7307924032211304, -0.8181704878807068, -0.7501909732818604],
    "sphere": [0.15940538048744202, -0.1500525027513504, -0.1890905648469925, 0.9572455286979675],
}


def _estimate(spsa: SPSA, function, weights: Tensor, width: float, *, seed: int = 0, step: int = 1) -> Tensor:
    directions = spsa.directions(seed, step, len(weights))
    values = function(spsa.points(weights, directions, width))
    return spsa.gradient(spsa.coefficients(values, width), directions)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("law", LAWS)
def test_the_mean_estimate_of_a_quadratic_is_its_gradient(law, sides) -> None:
    """Every coordinate within four standard errors; of a quadratic both sides are unbiased at any width."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    linear, weights = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    matrix = root @ root.T
    spsa = SPSA(20_000, sides, law)
    directions = spsa.directions(5, 1, 6)
    values = (lambda w: 0.5 * ((w @ matrix) * w).sum(1) + w @ linear)(spsa.points(weights, directions, 0.1))
    coefficients = spsa.coefficients(values, 0.1)
    single = torch.stack(
        [SPSA(1, sides, law).gradient(coefficients[[i]], directions[[i]]) for i in range(500)]
    )  # the spread of one direction's estimate
    error = single.double().std(0) / math.sqrt(20_000)
    gradient = matrix @ weights + linear
    assert ((spsa.gradient(coefficients, directions) - gradient).abs() < 4 * error).all()
    assert (error < 0.1 * gradient.norm()).all(), "the test can tell"


@pytest.mark.parametrize("k", [2, 20])
@pytest.mark.parametrize(("law", "variance"), [("rademacher", 1.0), ("segmented", 7 / 6), ("sphere", 1.0)])
def test_the_cosine_with_the_gradient_follows_the_formula(law, variance, k) -> None:
    """E[estimate . gradient] over the root mean square of its length, from 6000 directions in all.

    Four standard errors of 6000 squares of normal numbers are 7.3%, half of that in their root.
    """
    dim, spsa = 400, SPSA(k, 2, law)
    gradient = torch.randn(dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradient /= gradient.norm()
    along, square = torch.zeros(2, dtype=torch.float64)
    for step in range(6000 // k):
        directions = spsa.directions(2, step, dim)
        estimate = spsa.gradient(directions.double() @ gradient, directions).double()
        along += estimate @ gradient / (6000 / k)
        square += estimate.square().sum() / (6000 / k)
    assert float(along) == pytest.approx(1, rel=0.073)
    assert float(along / square.sqrt()) == pytest.approx(math.sqrt(k / (k + variance * (dim - 1))), rel=0.037)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("law", LAWS)
def test_coefficients_of_a_linear_function_are_its_slopes(law, sides) -> None:
    slope = torch.arange(-8.0, 9.0)
    spsa = SPSA(9, sides, law)
    weights, directions = torch.linspace(-1, 1, 17), spsa.directions(0, 3, 17)
    points = spsa.points(weights, directions, 0.25)
    assert points.shape == (spsa.evaluations, 17) == ((18 if sides == 2 else 10), 17)
    found = spsa.coefficients(points.double() @ slope.double() + 3, 0.25)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, directions.double() @ slope.double(), rtol=0, atol=2e-5)
    if law == "rademacher":  # nothing is rounded on this grid
        weights = torch.arange(17.0) / 8
        values = spsa.points(weights, directions, 0.25) @ slope + 3
        assert torch.equal(spsa.coefficients(values, 0.25), directions.double() @ slope.double())


def test_points_are_in_the_documented_order() -> None:
    weights, directions = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    two = SPSA(2).points(weights, directions, 0.5)
    assert two.tolist() == [[1.5, 1.5], [1.5, 2.5], [0.5, 2.5], [0.5, 1.5]]
    one = SPSA(2, 1).points(weights, directions, 0.5)
    assert one.tolist() == [[1, 2], [1.5, 1.5], [1.5, 2.5]]


def test_a_gradient_divides_by_the_direction_as_published() -> None:
    u, coefficients = torch.tensor([[0.5, -1.0], [-0.8, 0.6]]), torch.tensor([2.0, -4.0], dtype=torch.float64)
    segmented = SPSA(2, 2, "segmented").gradient(coefficients, u)
    torch.testing.assert_close(segmented, torch.tensor([(2 / 0.5 + 4 / 0.8) / 2, (-2 - 4 / 0.6) / 2]))
    torch.testing.assert_close(SPSA(2, 2, "sphere").gradient(coefficients, u), (2 * u[0] - 4 * u[1]))
    assert segmented.dtype == torch.float32


def test_laws() -> None:
    rademacher, segmented, sphere = (SPSA(50, 2, law).directions(1, 2, 300) for law in LAWS)
    assert set(rademacher.unique().tolist()) == {-1.0, 1.0}
    size = segmented.abs()
    assert float(size.min()) >= 0.5 and float(size.max()) <= 1
    assert float(size.mean()) == pytest.approx(0.75, abs=4 * 0.25 / math.sqrt(3 * size.numel()))
    assert abs(float(segmented.sign().mean())) < 4 / math.sqrt(size.numel())
    assert abs(float((segmented.sign() * (size - 0.75)).mean())) < 4 * 0.145 / math.sqrt(size.numel())
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(50))


@pytest.mark.parametrize("law", LAWS)
def test_directions_are_a_function_of_seed_step_and_number(law) -> None:
    spsa = SPSA(7, 2, law)
    whole = spsa.directions(3, 5, 33)
    assert whole.shape == (7, 33) and whole.dtype == torch.float32
    assert torch.equal(spsa.directions(3, 5, 33), whole)
    assert torch.equal(spsa.directions(3, 5, 33, numbers=[4, 1, 4]), whole[[4, 1, 4]])
    parts = [spsa.directions(3, 5, 33, numbers=range(start, 7, 3)) for start in range(3)]
    assert all(torch.equal(part, whole[start::3]) for start, part in enumerate(parts))
    assert torch.equal(SPSA(2, 1, law).directions(3, 5, 33), whole[:2])
    assert spsa.directions(3, 5, 33, numbers=[]).shape == (0, 33)
    others = [spsa.directions(4, 5, 33), spsa.directions(3, 6, 33), whole.roll(1, 0)]
    assert not any((other == whole).all(1).any() for other in others)


def test_directions_that_runs_on_disk_depend_on() -> None:
    """Golden values. If they change, no old fit replays."""
    found = {law: SPSA(1, 2, law).directions(0, 1, 4)[0].tolist() for law in LAWS}
    assert found == GOLDEN


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("law", LAWS)
def test_directions_have_the_same_bits_on_a_gpu(law) -> None:
    spsa = SPSA(7, 2, law)
    found = spsa.directions(3, 5, 10_000, device="cuda")
    assert found.is_cuda and torch.equal(found.cpu(), spsa.directions(3, 5, 10_000))


def test_drawing_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    SPSA(3, 2, "segmented").directions(0, 0, 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_gains_are_spalls_sequences() -> None:
    gains = Gains(a=0.02, c=0.01, offset=3, alpha=0.5, gamma=0.2)
    assert [gains.rate(t) for t in (1, 6)] == pytest.approx([0.01, 0.02 / 3])
    assert [gains.width(t) for t in (1, 32)] == pytest.approx([0.01, 0.005])
    published = Gains(a=0.01, c=0.01)
    assert published.rate(1) == pytest.approx(0.01 / 2**0.4)
    assert published.width(1024) == pytest.approx(0.005)


def test_a_long_estimate_is_shortened_and_keeps_its_direction() -> None:
    long, short = torch.full((100,), 3.0), torch.full((100,), 0.5)
    torch.testing.assert_close(clip_estimate(long), torch.ones(100))
    torch.testing.assert_close(clip_estimate(long, scale=0.25), torch.full((100,), 0.25))
    assert torch.equal(clip_estimate(short), short)
    assert torch.equal(clip_estimate(torch.zeros(4)), torch.zeros(4))
    huge = clip_estimate(torch.tensor([3e30, -4e30]))
    torch.testing.assert_close(huge, math.sqrt(2) * torch.tensor([0.6, -0.8]))


@pytest.mark.parametrize(("k", "sides"), [(0, 2), (3, 3), (3, 0)])
def test_wrong_options_are_refused(k, sides) -> None:
    with pytest.raises(ValueError, match="expected"):
        SPSA(k, sides)


def test_spsa_descends() -> None:
    target, weights, gains = torch.linspace(-1, 1, 30), torch.zeros(30), Gains(a=0.2, c=0.1, alpha=0.6)
    for step in range(1, 301):
        estimate = _estimate(SPSA(5), lambda w: ((w - target) ** 2).sum(1), weights, gains.width(step), step=step)
        weights = weights - gains.rate(step) * clip_estimate(estimate)
    assert float((weights - target).norm()) < 0.01 * float(target.norm())
