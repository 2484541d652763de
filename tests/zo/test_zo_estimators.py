"""Estimators against autograd and against theory; their cost is what they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bbox.zo import CGE, RGE, DCTSubspace, DecisionMonteCarlo, Directions, Estimator, root_keys

DIM = 12
LAWS = ["sphere", "gaussian", "rademacher", "orthogonal"]
_GENERATOR = torch.Generator().manual_seed(0)
_MATRIX = torch.randn(DIM, DIM, dtype=torch.float64, generator=_GENERATOR)
_MATRIX = _MATRIX + _MATRIX.T
_LINEAR = torch.randn(DIM, dtype=torch.float64, generator=_GENERATOR)
_POINT = torch.randn(DIM, dtype=torch.float64, generator=_GENERATOR)


def _quadratic(rows: Tensor) -> Tensor:
    flat = rows.flatten(1)
    return 0.5 * ((flat @ _MATRIX) * flat).sum(1) + flat @ _LINEAR


def _smooth(rows: Tensor) -> Tensor:
    flat = rows.flatten(1)
    return (flat @ _MATRIX[:, :4]).sin().sum(1) + (0.3 * flat @ _LINEAR).exp()


def _autograd(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    points = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(points).sum(), points)
    return gradient


def _keys(n: int, seed: int = 0) -> Tensor:
    return root_keys(seed, torch.arange(n))


@pytest.mark.parametrize("function", [_quadratic, _smooth])
@pytest.mark.parametrize("side", ["forward", "central"])
def test_cge_is_the_gradient(function: Callable, side: str) -> None:
    points = _POINT + 0.2 * torch.arange(3, dtype=torch.float64)[:, None]
    truth = _autograd(function, points)
    found = CGE(side).estimate(function, points, _keys(3), step=1e-4)
    error = (found - truth).abs().max() / truth.abs().max()
    assert error < (1e-3 if side == "forward" else 1e-6)


def test_central_cge_is_exact_on_quadratics_at_any_step_and_forward_is_off_by_the_curvature() -> None:
    truth = _autograd(_quadratic, _POINT[None])
    for step in (0.01, 1.0, 10.0):
        central = CGE("central").estimate(_quadratic, _POINT[None], _keys(1), step).double()
        assert torch.allclose(central, truth, rtol=1e-5, atol=1e-5)
        forward = CGE("forward").estimate(_quadratic, _POINT[None], _keys(1), step).double()
        bias = 0.5 * step * _MATRIX.diagonal()
        assert torch.allclose(forward - truth, bias[None], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("side", ["forward", "central"])
@pytest.mark.parametrize("q", [1, 7])
def test_rge_is_unbiased(law: str, side: str, q: int) -> None:
    """Its mean over many keys is the gradient: every scale in it is right. (Forward differences of a quadratic have a
    symmetric error, so they are unbiased too.)"""
    n = 6000
    points = _POINT.expand(n, DIM)
    found = RGE(q, side, law).estimate(_quadratic, points, _keys(n), step=1e-3).double()
    truth = _autograd(_quadratic, _POINT[None])[0]
    spread = found.std(0) / math.sqrt(n)
    assert ((found.mean(0) - truth).abs() < 4.5 * spread + 1e-4).all()
    assert (spread < 0.2 * truth.norm() / math.sqrt(q)).all(), "tight enough to see a wrong scale"


@pytest.mark.parametrize("law", ["sphere", "gaussian", "rademacher"])
@pytest.mark.parametrize("q", [5, 30, 120])
def test_the_cosine_of_rge_is_what_theory_says(law: str, q: int) -> None:
    dim, n = 60, 300
    slope = torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    points = torch.zeros(n, dim, dtype=torch.float64)
    found = RGE(q, "central", law).estimate(lambda rows: rows @ slope, points, _keys(n), step=0.1).double()
    cosine = torch.nn.functional.cosine_similarity(found, slope[None]).mean()
    assert float(cosine) == pytest.approx(math.sqrt(q / (q + dim + 1)), rel=0.05)


@pytest.mark.parametrize("q", [5, 30, 60])
def test_orthogonal_directions_reach_sqrt_q_over_dim(q: int) -> None:
    dim, n = 60, 200
    slope = torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    points = torch.zeros(n, dim, dtype=torch.float64)
    found = RGE(q, "central", "orthogonal").estimate(lambda rows: rows @ slope, points, _keys(n), step=0.1).double()
    cosine = torch.nn.functional.cosine_similarity(found, slope[None]).mean()
    # sqrt(q / dim) for many; exactly, the mean length of a random unit vector's projection onto q of dim dimensions.
    exact = math.exp(sum(s * math.lgamma(x / 2) for s, x in ((1, q + 1), (-1, q), (1, dim), (-1, dim + 1))))
    assert exact == pytest.approx(math.sqrt(q / dim), rel=0.06)
    assert float(cosine) == pytest.approx(exact, rel=0.05)
    if q == dim:
        assert torch.allclose(found, slope.expand(n, dim), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("q", [20, 80])
@pytest.mark.parametrize("center", [True, False])
def test_the_cosine_of_signs_is_what_theory_says(q: int, center: bool) -> None:
    dim, n = 800, 200
    normal = torch.randn(dim, generator=torch.Generator().manual_seed(4))
    directions = Directions(_keys(n), q, dim)
    signs = torch.where(directions.at(torch.arange(n * q)) @ normal > 0, 1.0, -1.0).view(n, q)
    found = DecisionMonteCarlo(center).normal(directions, signs)
    cosine = torch.nn.functional.cosine_similarity(found, normal[None].double()).mean()
    assert float(cosine) == pytest.approx(math.sqrt(2 * q / (math.pi * dim)), rel=0.07)


def test_centering_helps_where_signs_are_unbalanced() -> None:
    dim, n, q = 200, 200, 60
    normal = torch.randn(dim, generator=torch.Generator().manual_seed(4))
    directions = Directions(_keys(n), q, dim)
    along = directions.at(torch.arange(n * q)) @ normal / normal.norm()
    signs = torch.where(along > 1.2, 1.0, -1.0).view(n, q)
    cosines = [
        float(
            torch.nn.functional.cosine_similarity(
                DecisionMonteCarlo(center).normal(directions, signs), normal[None].double()
            ).mean()
        )
        for center in (True, False)
    ]
    assert cosines[0] > 1.3 * cosines[1]


def test_unanswered_directions_count_for_nothing() -> None:
    keys = _keys(2)
    signs = torch.tensor([[1.0, -1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    for center in (True, False):
        padded = DecisionMonteCarlo(center).normal(Directions(keys, 5, 30), signs)
        cut = DecisionMonteCarlo(center).normal(Directions(keys, 3, 30), signs[:, :3])
        assert torch.equal(padded, cut)
    nothing = DecisionMonteCarlo().normal(Directions(keys, 5, 30), torch.zeros(2, 5))
    assert torch.equal(nothing, torch.zeros(2, 30, dtype=torch.float64))


_ESTIMATORS = [
    *[RGE(q, side, law) for q in (1, 6) for side in ("forward", "central") for law in ("sphere", "orthogonal")],
    CGE("forward"),
    CGE("central"),
]


@pytest.mark.parametrize("estimator", _ESTIMATORS, ids=str)
@pytest.mark.parametrize("subspace", [None, DCTSubspace((1, 4, 6), 2)], ids=["full", "dct"])
def test_the_cost_is_what_the_formula_says(estimator: Estimator, subspace: DCTSubspace | None) -> None:
    asked: list[Tensor] = []

    def function(rows: Tensor) -> Tensor:
        asked.append(rows)
        return rows.flatten(1).sum(1)

    points = torch.rand(3, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = estimator.estimate(function, points, _keys(3), 0.1, subspace, chunk=5)
    dim = 24 if subspace is None else subspace.dim
    assert sum(map(len, asked)) == 3 * estimator.queries(dim)
    assert max(map(len, asked)) <= 5
    assert found.shape == points.shape
    probes = estimator.plan(points, _keys(3), torch.full((3,), 0.1), subspace)
    assert probes.per_point == estimator.queries(dim)
    assert torch.bincount(probes.owner).tolist() == [probes.per_point] * 3
    rows = torch.cat(asked)
    length = (rows - points[probes.owner]).flatten(1).norm(dim=1)
    assert torch.allclose(length[length > 0], torch.full_like(length[length > 0], 0.1), rtol=1e-6)
    assert int((length == 0).sum()) == 3 * int(probes.base), "a base row where differences need one"


def test_estimates_in_a_subspace_are_the_projected_gradient() -> None:
    space = DCTSubspace((1, 3, 4), 2)
    point = _POINT.view(1, 1, 3, 4)
    truth = _autograd(_quadratic, point)
    found = CGE("central").estimate(_quadratic, point, _keys(1), 1e-3, space).double()
    assert torch.allclose(found, space.lift(space.project(truth)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_a_points_estimate_does_not_depend_on_the_other_points(law: str) -> None:
    points = _POINT + torch.arange(4, dtype=torch.float64)[:, None] / 7
    estimator = RGE(5, "forward", law)
    probes = estimator.plan(points, _keys(4), torch.full((4,), 0.1))
    rows = probes.rows(torch.arange(24))
    alone = estimator.plan(points[2:3], _keys(4)[2:3], torch.full((1,), 0.1))
    assert torch.equal(alone.rows(torch.arange(6)), rows[12:18])
    order = torch.tensor([5, 12, 0, 23])
    assert torch.equal(probes.rows(order), rows[order])
