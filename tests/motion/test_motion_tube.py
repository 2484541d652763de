"""The epsilon tube of attacks on motion, and the subspace of low frequencies over time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bbox.motion.domain import Tube
from bbox.motion.presence import present
from bbox.zo import TemporalSubspace
from tests.motion.bodies import ragged

RADII = (0.1, 1e-4, 3e-7)
FAR = (0.0, 60.0)  # metres from the origin: float32 is coarse there


def noise(like: Tensor, size: float, seed: int = 0) -> Tensor:
    return size * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def moved(far: float) -> Tensor:
    motions = ragged(5)
    return motions + far * present(motions)


def largest(rows: Tensor, originals: Tensor) -> Tensor:
    return (rows.double() - originals.double()).abs().flatten(1).amax(1)


def root_mean_square(rows: Tensor, originals: Tensor) -> Tensor:
    """By hand: over frames, joints and bodies that are there."""
    there = present(originals)[:, 0].expand(-1, -1, rows.shape[3], -1)
    square = (rows.double() - originals.double()).square().sum(1)
    return torch.stack([row[mask].mean().sqrt() for row, mask in zip(square, there, strict=True)])


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("radius", RADII)
def test_clip_is_never_beyond_the_radius(radius: float, far: float) -> None:
    originals = moved(far)
    rows = originals + noise(originals, 3 * radius + 1e-5)
    tube = Tube(norm="linf", radius=radius)
    kept = tube.clip(rows.clone(), originals)
    assert kept.dtype == torch.float32
    assert float(largest(kept, originals).max()) <= radius
    assert bool(tube.distance(originals, kept).isfinite().all())
    assert torch.equal(tube.clip(kept.clone(), originals), kept)
    if far == 0 and radius == 0.1:
        assert float(largest(kept, originals).min()) > radius * (1 - 1e-5), "it reaches the wall"
        inside = (rows - originals).double().abs() < radius - 1e-6
        there = present(originals).expand_as(rows)
        assert torch.equal(kept[inside & there], rows[inside & there])


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("radius", RADII)
def test_pull_is_never_beyond_the_radius(radius: float, norm: str, far: float) -> None:
    originals = moved(far)
    tube = Tube(norm=norm, radius=0.1)
    rows = tube.clip(originals + noise(originals, 0.05), originals)
    pulled = tube.pull(originals, rows, radius)
    distance = tube.distance(originals, pulled)
    assert pulled.dtype == torch.float32 and float(distance.max()) <= radius
    if far == 0 and 1e-6 < radius < 0.05:
        assert float(distance.min()) > 0.99 * radius
    assert torch.equal(tube.pull(originals, rows, 1.0), rows), "what is inside stays as it is"


def test_padding_absent_bodies_and_confidences_are_not_touched() -> None:
    originals = ragged(4)
    rows = originals + noise(originals, 1.0)
    for axes in (3, 2):
        tube = Tube(radius=0.1, axes=axes)
        still = (~present(originals)).expand_as(rows).clone()
        still[:, axes:] = True
        for kept in (tube.clip(rows.clone(), originals), *tube.linf_ball(originals, 0.05)):
            assert torch.equal(kept[still], originals[still]) and not torch.equal(kept[~still], originals[~still])


def test_distance_is_infinite_outside() -> None:
    originals = ragged(4)
    for norm in ("l2", "linf"):
        tube = Tube(norm=norm, radius=0.1, axes=2)
        assert tube.distance(originals, originals).tolist() == [0.0] * 4
        for place, size in (((2, 0, 4, 3, 0), 0.11), ((2, 0, 11, 0, 1), 1e-3), ((2, 2, 4, 3, 0), 1e-3)):
            rows = originals.clone()
            rows[place] += size  # beyond the tube; in padding; a confidence
            distance = tube.distance(originals, rows)
            assert torch.isinf(distance[2]) and distance[[0, 1, 3]].tolist() == [0.0] * 3
        rows = originals.clone()
        rows[2, 0, 4, 3, 0] += 0.09
        assert 0 < float(tube.distance(originals, rows)[2]) < 0.1


def test_what_the_distances_mean() -> None:
    originals = ragged(4)
    rows = Tube().clip(originals + noise(originals, 0.02), originals)
    expected = root_mean_square(rows, originals)
    assert torch.allclose(Tube(norm="l2").distance(originals, rows), expected, rtol=1e-12, atol=0)
    assert torch.equal(Tube(norm="linf").distance(originals, rows), largest(rows, originals))
    offset = originals + torch.tensor([0.03, 0.04, 0.0]).view(1, 3, 1, 1, 1) * present(originals)
    assert Tube(norm="l2").distance(originals, offset).tolist() == pytest.approx([0.05] * 4, rel=1e-5)
    for norm in ("l2", "linf"):
        tube = Tube(norm=norm)
        exact = tube.distance(originals, rows)
        rough = tube.rough_distance(originals, rows.clone()).double()
        assert torch.allclose(rough, exact, rtol=0, atol=1e-6)


def test_faults() -> None:
    motions = ragged(3)
    assert Tube().fault(motions) is None
    motions[1, 0, 0, 0, 0] = torch.nan
    assert Tube().fault(motions) == "a coordinate is not finite"


def test_alone_as_in_a_batch() -> None:
    originals = ragged(5)
    rows = originals + noise(originals, 0.2)
    for norm in ("l2", "linf"):
        tube = Tube(norm=norm)
        clipped = tube.clip(rows.clone(), originals)
        pulled = tube.pull(originals, clipped, 0.03)
        distance = tube.distance(originals, clipped)
        for i in range(5):
            one = slice(i, i + 1)
            assert torch.equal(tube.clip(rows[one].clone(), originals[one]), clipped[one])
            assert torch.equal(tube.pull(originals[one], clipped[one], 0.03), pulled[one])
            assert torch.equal(tube.distance(originals[one], clipped[one]), distance[one])


SHAPE = (3, 24, 5, 2)


@pytest.mark.parametrize("factor", [1.0, 2.5, 6.0, 24.0])
def test_the_temporal_subspace_is_orthonormal(factor: float) -> None:
    space = TemporalSubspace(SHAPE, factor)
    assert space.dim % (3 * 5 * 2) == 0
    coefficients = torch.randn(7, space.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = space.lift(coefficients)
    assert rows.shape == (7, *SHAPE)
    assert torch.allclose(space.project(rows), coefficients, atol=1e-12)
    assert torch.allclose(rows.flatten(1) @ rows.flatten(1).T, coefficients @ coefficients.T, atol=1e-9)


def test_the_coarsest_temporal_subspace_is_a_constant_offset() -> None:
    space = TemporalSubspace(SHAPE, 24.0)
    assert space.dim == 3 * 5 * 2
    rows = space.lift(torch.randn(2, space.dim, generator=torch.Generator().manual_seed(0)))
    assert float((rows - rows[:, :, :1]).abs().max()) < 1e-6
    assert len(rows[0, :, 0].flatten().unique()) == space.dim, "another one for each coordinate"


def test_exact_bits_alone_and_in_a_batch() -> None:
    space = TemporalSubspace(SHAPE, 3.0)
    coefficients = torch.randn(9, space.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = space.lift(coefficients, exact=True)
    back = space.project(rows, exact=True)
    for i in range(9):
        assert torch.equal(space.lift(coefficients[i : i + 1], exact=True), rows[i : i + 1])
        assert torch.equal(space.project(rows[i : i + 1], exact=True), back[i : i + 1])
