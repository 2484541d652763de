import pytest
import torch

from bbox.motion import present
from bbox.motion.augment import Views, retime

EVERY = Views(crop=0.5, rotate=0.3, scale=0.1, shear=0.5, corrupt=0.6, noise=0.02, drift=0.02)


def motions() -> torch.Tensor:
    """Three clips; the second is padded after frame 14, the third has one body only."""
    made = torch.randn(3, 3, 20, 5, 2, generator=torch.Generator().manual_seed(0))
    made[1, :, 14:] = 0
    made[2, ..., 1] = 0
    return made


@pytest.mark.parametrize(
    "views",
    [EVERY, *(Views(**{n: getattr(EVERY, n)}) for n in ("crop", "rotate", "scale", "shear", "noise", "drift"))],
)
def test_padding_and_absent_bodies_stay_zero_and_the_rest_changes(views: Views) -> None:
    clips = motions()
    seen = views(clips, torch.Generator().manual_seed(1))
    absent = ~present(clips).expand_as(clips)
    assert bool((seen[absent] == 0).all())
    assert bool(((seen - clips).flatten(1).abs().amax(1) > 0).all())
    assert bool(seen.isfinite().all())


def test_corruption_touches_the_asked_fraction_of_the_joints() -> None:
    clips = torch.randn(64, 3, 8, 10, 1, generator=torch.Generator().manual_seed(0))
    seen = Views(corrupt=0.6)(clips, torch.Generator().manual_seed(1))
    changed = (seen != clips).any(1).any(1)[..., 0]
    assert changed.sum(1).tolist() == [6] * 64
    zeroed = (seen == 0).all(1).all(1)[..., 0].sum(1)
    assert 10 < int((zeroed == 6).sum()) < 54  # about half are zeroed, half multiplied


def test_shear_or_corruption_never_both() -> None:
    clips = torch.randn(64, 3, 8, 10, 1, generator=torch.Generator().manual_seed(0))
    seen = Views(shear=1.0, corrupt=0.6)(clips, torch.Generator().manual_seed(1))
    changed = (seen != clips).any(1).any(1)[..., 0].sum(1)
    assert set(changed.tolist()) == {6, 10}


def test_rotation_keeps_every_length_and_turns_no_further_than_asked() -> None:
    clips = motions()
    seen = Views(rotate=0.3)(clips, torch.Generator().manual_seed(1))
    assert torch.allclose(seen.norm(dim=1), clips.norm(dim=1), atol=1e-5)
    cosine = torch.cosine_similarity(seen[0], clips[0], dim=0)
    assert float(cosine.min()) >= torch.cos(torch.tensor(0.3)) - 1e-6


def test_retime_of_the_whole_is_the_motion_itself() -> None:
    clips = motions()
    assert torch.allclose(retime(clips, torch.ones(3), torch.zeros(3)), clips, atol=1e-6)


def test_retime_interpolates_linearly_within_the_extent() -> None:
    ramp = torch.arange(1.0, 11.0).view(1, 1, 10, 1, 1).expand(1, 3, 10, 2, 1).clone()
    ramp[:, :, 7:] = 0  # seven frames hold 1 to 7
    seen = retime(ramp, torch.tensor([0.5]), torch.tensor([0.25]))[0, 0, :, 0, 0]
    expected = [2.5 + 0.5 * t for t in range(7)] + [0.0] * 3
    assert torch.allclose(seen, torch.tensor(expected))


def test_a_clips_view_by_its_own_numbers_is_the_same_alone_and_in_a_batch() -> None:
    clips = motions()
    drawn = [EVERY.draw(clips[i : i + 1], torch.Generator().manual_seed(i)) for i in range(3)]
    joined = {name: torch.cat([d[name] for d in drawn]) for name in drawn[0]}
    together = EVERY.apply(clips, joined)
    for i in range(3):
        assert torch.equal(EVERY.apply(clips[i : i + 1], drawn[i]), together[i : i + 1])


def test_views_carry_gradients() -> None:
    clips = motions()[:1].double().requires_grad_()
    views = Views(crop=0.5, rotate=0.3, scale=0.1)
    drawn = views.draw(clips, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(views.apply(clips, drawn).sum(), clips)
    assert float(gradient.abs().sum()) > 0
