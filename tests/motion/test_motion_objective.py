import math

import pytest
import torch
from torch import nn

from bbox.errors import UsageError
from bbox.motion.clusters import kmeans
from bbox.motion.encoders import MotionEncoder, make_encoder
from bbox.motion.objective import Objective
from bbox.motion.skeleton import Skeleton

ARM = Skeleton("arm", ("shoulder", "elbow", "wrist"), (-1, 0, 1))


class First(nn.Module):
    """The first joint's place in the first frame is the feature."""

    def forward(self, motions: torch.Tensor) -> torch.Tensor:
        return motions[:, :2, 0, 0, 0]


def corners() -> torch.Tensor:
    """Twelve clips in three directions (features at 0, 90 and 200 degrees and a little aside)."""
    angles = torch.tensor([[0.0, 1, 2, 3], [90, 91, 92, 93], [200, 201, 202, 203]]).flatten().deg2rad()
    made = torch.zeros(12, 3, 2, 3, 1)
    made[:, 0, 0, 0, 0], made[:, 1, 0, 0, 0] = angles.cos(), angles.sin()
    return made


def toward(angle: float) -> torch.Tensor:
    return torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_finds_separate_groups(seed: int) -> None:
    points = corners()[:, :2, 0, 0, 0]
    centres = kmeans(points, 3, seed=seed)
    expected = points.view(3, 4, 2).mean(1)
    assert torch.allclose(torch.cdist(expected, centres).amin(1), torch.zeros(3), atol=1e-6)


def test_kmeans_of_equal_points_and_of_more_clusters_than_points() -> None:
    assert torch.equal(kmeans(torch.ones(3, 2), 9, seed=0), torch.ones(3, 2))


def scores(angle: float, clean: float, others: list[float], tau: float) -> tuple[float, list[float]]:
    one = toward(angle)
    return float(one @ toward(clean)) / tau, [float(one @ toward(a)) / tau for a in others]


@pytest.mark.parametrize("tau", [1.0, 0.2])
def test_loss_is_the_papers_by_hand(tau: float) -> None:
    # Of 3 clusters, the nearest one is the clip's own: the centres at 91.5 and 201.5 degrees are the negatives.
    prepared = Objective(clusters=3, nearest=1, temperature=tau).prepare(First(), corners(), seed=0)
    moved = corners()[:1].clone()
    moved[0, :2, 0, 0, 0] = 2 * toward(40.0)
    own, far = scores(40.0, 0.0, [91.5, 201.5], tau)
    expected = -own + math.log(math.exp(own) + sum(map(math.exp, far)))
    assert abs(float(prepared.value(moved, torch.tensor([0]))) - expected) < 1e-5


def test_each_term_alone() -> None:
    moved = corners()[:1].clone()
    moved[0, :2, 0, 0, 0] = toward(40.0)
    own, far = scores(40.0, 0.0, [91.5, 201.5], 1.0)

    def value(**options: object) -> float:
        made = Objective(clusters=3, nearest=1, **options)  # type: ignore[arg-type]
        return float(made.prepare(First(), corners(), seed=0).value(moved, torch.tensor([0])))

    assert value(negatives="none") == pytest.approx(-own, abs=1e-6)
    assert value(positive=False) == pytest.approx(math.log(sum(map(math.exp, far))), abs=1e-6)
    assert value(positive=False, negatives="farthest") == pytest.approx(far[1], abs=1e-6)
    clip = value(positive=False, negatives="clip")
    assert (
        min(abs(clip - scores(40.0, 0.0, [a], 1.0)[1][0]) for a in range(90, 94)) < 1e-6
        or min(abs(clip - scores(40.0, 0.0, [a], 1.0)[1][0]) for a in range(200, 204)) < 1e-6
    )


def test_few_clips_shrink_the_clusters_and_one_has_none() -> None:
    prepared = Objective().prepare(First(), corners(), seed=0)
    assert prepared.terms[0].negatives.shape == (12, 5)
    with pytest.raises(UsageError, match="negatives=none"):
        Objective().prepare(First(), corners()[:1], seed=0)
    alone = Objective(negatives="none").prepare(First(), corners()[:1], seed=0)
    assert float(alone.value(corners()[:1], torch.tensor([0]))) == pytest.approx(-1.0)


def encoder() -> MotionEncoder:
    made = make_encoder("both", ARM, graph={"widths": (4,), "strides": (1,)}, sequence={"hidden": 4})
    return made.double()


def clips(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 6, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_gradient_is_right_and_the_mean_over_the_encoders() -> None:
    both, motions = encoder(), clips(8)
    prepared = Objective(clusters=4, nearest=1).prepare(both, motions, seed=0)
    moved = (motions[2:4] + 0.1).requires_grad_()
    index = torch.tensor([2, 3])
    assert torch.autograd.gradcheck(lambda x: prepared.value(x, index), (moved,))
    single = [Objective(clusters=4, nearest=1).prepare(p, motions, seed=0) for p in both.parts.values()]
    mean = (single[0].value(moved, index) + single[1].value(moved, index)) / 2
    assert torch.allclose(prepared.value(moved, index), mean)
    assert not any(p.requires_grad for p in both.parameters())


def test_value_is_the_same_alone_and_in_a_batch() -> None:
    motions = corners()
    prepared = Objective(clusters=3, nearest=1).prepare(First(), motions, seed=0)
    moved = motions + torch.randn(motions.shape, generator=torch.Generator().manual_seed(1)) * 0.3
    together = prepared.value(moved, torch.arange(12))
    for i in range(12):
        assert torch.equal(prepared.value(moved[i : i + 1], torch.tensor([i])), together[i : i + 1])


def test_clusters_can_come_from_a_pool_that_holds_none_of_the_clips() -> None:
    few, pool = corners()[:1], corners()[1:]
    prepared = Objective(clusters=3, nearest=1).prepare(First(), few, seed=0, pool=pool)
    assert prepared.terms[0].negatives.shape == (1, 2)
    assert float(prepared.value(few, torch.tensor([0]))) > 0


@pytest.mark.parametrize(
    "options", [{"positive": False, "negatives": "none"}, {"nearest": 120}, {"temperature": 0.0}, {"clusters": 1}]
)
def test_nonsense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Objective(**options)  # type: ignore[arg-type]
