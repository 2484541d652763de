"""Measures of validity on motions whose changes are known."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from bbox.motion import Skeleton
from bbox.motion.presence import present
from bbox.motion.validity import hinge_angles, hinge_limits, measure
from tests.motion.bodies import LENGTHS, SKELETON, move, ragged

ARM = Skeleton("arm", ("shoulder", "elbow", "wrist"), (-1, 0, 1))


def test_no_change_measures_nothing() -> None:
    motions = ragged()
    found = measure(motions, motions, SKELETON, hinge_limits(motions, SKELETON))
    for field in fields(found):
        values = getattr(found, field.name)
        assert values.dtype == torch.float64
        assert values.tolist() == [float(field.name == "acceleration_ratio")] * 4, field.name


def test_a_constant_offset_displaces_and_leaves_velocity_and_acceleration() -> None:
    motions = move(2, 10)
    moved = motions.clone()
    moved[:, :, :, 4] += torch.tensor([0.003, 0.0, 0.004])[:, None, None]
    found = measure(moved, motions, SKELETON)
    assert found.mean_displacement.tolist() == pytest.approx([5 / 9] * 2, rel=1e-4)
    assert found.max_displacement.tolist() == pytest.approx([5.0] * 2, rel=1e-4)
    assert found.linf.tolist() == pytest.approx([4.0] * 2, rel=1e-4)
    assert found.velocity_change.max() < 1e-3
    assert found.acceleration_change.max() < 1e-3
    assert bool(found.hinges_outside.isnan().all())
    assert math.isnan(found.summary()["hinge_excess"])


def test_velocity_and_acceleration_of_a_lone_jump() -> None:
    motions = move(1, 6).double()
    moved = motions.clone()
    moved[:, 1, 3] += 0.01  # frame 3 of 6: two of five steps change by 10 mm, three of four accelerations by 10, 20, 10
    found = measure(moved, motions, SKELETON)
    assert float(found.velocity_change) == pytest.approx(10 * 2 / 5)
    assert float(found.acceleration_change) == pytest.approx(40 / 4)
    before, after = (side.diff(n=2, dim=2).square().sum(1).sqrt().mean() for side in (motions, moved))
    assert float(found.acceleration_ratio) == pytest.approx(float(after / before))


def test_bones_and_perceptual_deviation_of_a_body_that_grows() -> None:
    motions = move(1, 5)
    root = motions[:, :, :, :1]
    found = measure(root + 1.1 * (motions - root), motions, SKELETON)
    assert float(found.bone_change) == pytest.approx(10, rel=1e-4)
    assert float(found.max_bone_change) == pytest.approx(10, rel=1e-4)
    places = 100 * (motions - root).double().square().sum((1, 3, 4)).sqrt().mean()
    stretch = 100 * sum(length * length for length in LENGTHS) ** 0.5
    assert float(found.perceptual_deviation) == pytest.approx(float(places) + stretch, rel=1e-4)


def test_absent_frames_and_bodies_count_nowhere() -> None:
    motions = ragged()
    noise = 0.01 * torch.randn(motions.shape, generator=torch.Generator().manual_seed(0))
    limits = hinge_limits(motions, SKELETON, margin=0.0)
    whole = measure(motions + noise * present(motions), motions, SKELETON, limits)
    cut = motions[:1, :, :, :, :1]
    alone = measure(cut + noise[:1, :, :, :, :1], cut, SKELETON, limits)
    padded = torch.nn.functional.pad(motions[1:2, :, 3:14], (0, 0, 0, 0, 4, 2))
    shift = torch.nn.functional.pad((noise * present(motions))[1:2, :, 3:14], (0, 0, 0, 0, 4, 2))
    elsewhere = measure(padded + shift, padded, SKELETON, limits)
    inner = measure((motions + noise)[1:2, :, 3:14], motions[1:2, :, 3:14], SKELETON, limits)
    for field in fields(whole):
        assert float(getattr(whole, field.name)[0]) == float(getattr(alone, field.name)[0]), field.name
        assert float(getattr(elsewhere, field.name)) == pytest.approx(float(getattr(inner, field.name))), field.name


def test_hinges() -> None:
    turn = torch.linspace(0, torch.pi, 5)
    wrist = torch.stack([1 - turn.cos(), turn.sin(), torch.zeros(5)])
    still = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])[:, None].expand(3, 5, 2)
    motions = torch.cat([still, wrist[..., None]], 2)[None, ..., None]
    motions[0, :, 0, 0] = torch.tensor([0.0, 1e-30, 0.0])[:, None]  # the frame is there
    angles = hinge_angles(motions, ARM)
    assert angles.flatten().tolist() == pytest.approx([0, 45, 90, 135, 180], abs=1e-4)
    limits = hinge_limits(motions[:, :, 1:4], ARM, margin=10.0)
    assert limits.flatten().tolist() == pytest.approx([35, 145], abs=1e-4)
    found = measure(motions, motions, ARM, limits)
    assert float(found.hinges_outside) == pytest.approx(0.4)
    assert float(found.hinge_excess) == pytest.approx(35, abs=1e-4)
    gone = measure(torch.zeros_like(motions), torch.zeros_like(motions), ARM, limits)
    assert all(bool(getattr(gone, field.name).isnan().all()) for field in fields(gone))
    unseen = hinge_limits(torch.zeros_like(motions), ARM)
    assert unseen.tolist() == [[0.0, 180.0]]


def test_an_adversarial_frame_set_to_zero_is_measured() -> None:
    motions = move(1, 5)
    erased = motions.clone()
    erased[:, :, 2] = 0
    found = measure(erased, motions, SKELETON)
    expected = motions[:, :, 2].square().sum(1).sqrt().max() * 1000
    assert float(found.max_displacement) == pytest.approx(float(expected), rel=1e-5)
    assert float(found.max_bone_change) == pytest.approx(100)


def test_a_skeleton_without_bones_and_few_frames() -> None:
    point = Skeleton("point", ("point",), (-1,))
    for frames in (1, 2, 3):
        motions = move(2, frames)[:, :, :, 3:4]
        found = measure(motions + 0.01, motions, point, hinge_limits(motions, point))
        assert found.linf.tolist() == pytest.approx([10.0] * 2, rel=1e-3)
        assert bool(found.bone_change.isnan().all())
        assert bool(found.velocity_change.isnan().all()) == (frames == 1)
        assert bool(found.acceleration_ratio.isnan().all()) == (frames < 3)


def test_a_motion_measures_the_same_alone_and_in_any_batch() -> None:
    motions = ragged(6)
    moved = motions + 0.01 * torch.randn(motions.shape, generator=torch.Generator().manual_seed(0)) * present(motions)
    limits = hinge_limits(motions, SKELETON, margin=0.0)
    whole = measure(moved, motions, SKELETON, limits)
    for n in range(6):
        alone = measure(moved[n : n + 1], motions[n : n + 1], SKELETON, limits)
        for field in fields(whole):
            assert torch.equal(getattr(alone, field.name)[0], getattr(whole, field.name)[n]), field.name
