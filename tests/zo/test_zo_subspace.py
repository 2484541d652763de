"""Subspaces: orthonormal, equal to scipy's DCT, for images of any shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbox.zo import DCTSubspace, FullSpace, gaussian, root_keys


def _coefficients(m: int, dim: int) -> torch.Tensor:
    return torch.randn(m, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(dim))


@given(
    channels=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    factor=st.floats(1, 8),
    m=st.integers(1, 3),
)
def test_lift_and_project_equal_scipys_dct(channels: int, height: int, width: int, factor: float, m: int) -> None:
    space = DCTSubspace((channels, height, width), factor)
    h, w = max(1, int(height / factor)), max(1, int(width / factor))
    assert space.block == (channels, h, w)
    assert space.dim == channels * h * w
    coefficients = _coefficients(m, space.dim)
    padded = np.zeros((m, channels, height, width))
    padded[:, :, :h, :w] = coefficients.view(m, channels, h, w).numpy()
    lifted = space.lift(coefficients)
    assert lifted.shape == (m, channels, height, width)
    np.testing.assert_allclose(lifted.numpy(), scipy.fft.idctn(padded, axes=(2, 3), norm="ortho"), atol=1e-12)
    rows = _coefficients(m, channels * height * width).view(m, channels, height, width)
    spectrum = scipy.fft.dctn(rows.numpy(), axes=(2, 3), norm="ortho")[:, :, :h, :w]
    np.testing.assert_allclose(space.project(rows).numpy(), spectrum.reshape(m, -1), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 5, 32), (3, 1, 4)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3.5])
def test_the_basis_is_orthonormal(shape: tuple, factor: float) -> None:
    space = DCTSubspace(shape, factor)
    basis = space.lift(torch.eye(space.dim, dtype=torch.float64)).flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(space.dim, dtype=torch.float64), atol=1e-12)
    coefficients = _coefficients(4, space.dim)
    assert torch.allclose(space.project(space.lift(coefficients)), coefficients, atol=1e-12)


def test_factor_one_spans_everything() -> None:
    space = DCTSubspace((2, 5, 7), 1)
    rows = _coefficients(3, 70).view(3, 2, 5, 7)
    assert space.dim == 70
    assert torch.allclose(space.lift(space.project(rows)), rows, atol=1e-12)


def test_projection_is_the_nearest_row_of_the_subspace() -> None:
    space = DCTSubspace((1, 9, 7), 2)
    row = _coefficients(1, 63).view(1, 1, 9, 7)
    rest = row - space.lift(space.project(row))
    assert torch.allclose(space.project(rest), torch.zeros(1, space.dim, dtype=torch.float64), atol=1e-12)


def test_the_full_space_is_every_coordinate() -> None:
    space = FullSpace((2, 3))
    coefficients = _coefficients(4, 6)
    assert space.dim == 6
    assert torch.equal(space.lift(coefficients), coefficients.view(4, 2, 3))
    assert torch.equal(space.project(space.lift(coefficients)), coefficients)


@pytest.mark.parametrize(
    ("shape", "factor", "threads"),
    [
        *[((3, 9, 7), factor, 1) for factor in (1, 2, 4)],
        *[
            ((1, 8, 8), 2, 1),
            ((1, 28, 28), 2, 1),
            ((3, 28, 28), 1, 1),
            ((3, 33, 70), 2, 1),
            ((3, 64, 64), 4, 1),
        ],
        *[((1, 28, 28), 2, 2), ((3, 9, 7), 1, 2)],
    ],
    ids=str,
)
def test_exact_transforms_are_the_same_bits_in_any_batch(shape: tuple, factor: float, threads: int) -> None:
    """Without ``exact`` they are not: BLAS chooses its kernel by the size of the batch."""
    space = DCTSubspace(shape, factor)
    noise = gaussian(root_keys(0, torch.arange(65)), space.dim)
    unit = torch.nn.functional.normalize(_coefficients(65, space.dim))
    rows = torch.nn.functional.normalize(_coefficients(65, math.prod(shape))).view(65, *shape)
    torch.set_num_threads(threads)
    try:
        for function, given in ((space.lift, noise), (space.lift, unit), (space.project, rows)):
            whole = function(given, exact=True)
            for size in (1, 5, 16, 40):
                for part in torch.split(torch.arange(65), size):
                    assert torch.equal(function(given[part], exact=True), whole[part])
            assert torch.allclose(whole, function(given.double()), atol=2e-5)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("shape", "factor", "word"),
    [((8, 8), 2, "channels"), ((1, 8, 8), 0.5, "0.5"), ((1, 8, 8), 0, "at least 1")],
)
def test_subspaces_that_cannot_be(shape: tuple, factor: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DCTSubspace(shape, factor)
