"""The projection to the original bone lengths."""

from __future__ import annotations

import pytest
import torch

from bbox.errors import UsageError
from bbox.motion import Skeleton, bones
from bbox.motion.bones import project_bones
from bbox.motion.presence import present
from bbox.motion.validity import measure
from tests.motion.bodies import SKELETON, move, ragged


def pushed(motions: torch.Tensor, epsilon: float, seed: int = 0) -> torch.Tensor:
    """Every coordinate at an edge of the tube."""
    return motions + epsilon * torch.randn(motions.shape, generator=torch.Generator().manual_seed(seed)).sign()


@pytest.mark.parametrize("epsilon", [0.01, 0.03])
def test_bones_keep_their_lengths_within_the_tube(epsilon: float) -> None:
    motions = ragged(6, 30)
    moved = pushed(motions, epsilon) * present(motions)
    found = project_bones(moved, motions, SKELETON, epsilon)
    assert found.dtype == torch.float32
    assert float((found.double() - motions.double()).abs().max()) <= epsilon
    before, after = (measure(side, motions, SKELETON) for side in (moved, found))
    assert float(before.bone_change.min()) > 100 * epsilon
    assert float(after.max_bone_change.max()) < 0.02  # the 0.01 % of each length, and float32's rounding
    assert float(after.mean_displacement.min()) > 1000 * epsilon  # it is not drawn back to the original
    assert not (found * ~present(motions)).any()


def test_without_a_tube_the_nearest_lengths() -> None:
    motions = move(2, 12)
    moved = pushed(motions, 0.03)
    found = project_bones(moved, motions, SKELETON)
    assert float(measure(found, motions, SKELETON).max_bone_change.max()) < 0.02
    moves = (found - moved).square().sum((1, 3, 4))
    back = (motions - moved).square().sum((1, 3, 4))
    assert float((moves / back).mean()) < 0.5
    # At the nearest point no motion of the body, for example turning or shifting it whole, comes nearer.
    difference = (moved - found).double()
    assert float(difference.mean(3).abs().max()) < 1e-4
    centred = (found - found.mean(3, keepdim=True)).double()
    turning = torch.linalg.cross(centred, difference, dim=1).sum(3)
    assert float(turning.abs().max()) < 0.01


def test_what_has_the_lengths_already_stays() -> None:
    motions = ragged()
    assert torch.equal(project_bones(motions, motions, SKELETON, 0.01), motions)
    shifted = (motions + 0.005) * present(motions)
    torch.testing.assert_close(project_bones(shifted, motions, SKELETON, 0.01), shifted, rtol=0, atol=1e-6)


def test_bones_as_short_as_the_tube_are_kept_too() -> None:
    motions = move(6, 20) / 8  # bones of 31 to 56 mm, a tube of 30 mm to each side
    found = project_bones(pushed(motions, 0.03), motions, SKELETON, 0.03)
    assert float(measure(found, motions, SKELETON).max_bone_change.max()) < 0.02
    assert float((found.double() - motions.double()).abs().max()) <= 0.03


def test_few_iterations_leave_an_error_but_never_the_tube() -> None:
    motions = move(3, 20)
    for iterations in (1, 2):
        found = project_bones(pushed(motions, 0.03), motions, SKELETON, 0.03, iterations)
        assert float((found.double() - motions.double()).abs().max()) <= 0.03
    assert float(measure(found, motions, SKELETON).bone_change.max()) < 3
    assert float((project_bones(motions + 1.0, motions, SKELETON, 0.03, 1).double() - motions).abs().max()) <= 0.03


def test_joints_in_one_place_and_a_single_joint() -> None:
    motions = move(2, 8)
    motions[:, :, :, 2] = motions[:, :, :, 1]  # a bone of no length
    found = project_bones(pushed(motions, 0.03), motions, SKELETON, 0.03)
    assert bool(found.isfinite().all())
    apart = (found[:, :, :, 2] - found[:, :, :, 1]).square().sum(1).sqrt()
    assert float(apart.max()) < 1e-5
    point = Skeleton("point", ("point",), (-1,))
    lone = motions[:, :, :, :1]
    torch.testing.assert_close(project_bones(lone + 1.0, lone, point, 0.03), lone + 0.03)


def test_a_motion_is_projected_the_same_alone_and_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    motions = ragged(6)
    moved = pushed(motions, 0.03) * present(motions)
    whole = project_bones(moved, motions, SKELETON, 0.03)
    for n in range(6):
        assert torch.equal(project_bones(moved[n : n + 1], motions[n : n + 1], SKELETON, 0.03)[0], whole[n])
    monkeypatch.setattr(bones, "_CHUNK", 5000)
    assert torch.equal(project_bones(moved, motions, SKELETON, 0.03), whole)


@pytest.mark.parametrize("options", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"iterations": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        project_bones(move(1, 3), move(1, 3), SKELETON, **options)  # type: ignore[arg-type]
