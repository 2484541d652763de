"""Zeroth-order gradients at the bottleneck: against the true gradient, exact budgets, a step that survives rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.defenses.books import Books
from bbox.defenses.zo_ae_ds.networks import DENOISERS, Autoencoder, Purifier
from bbox.defenses.zo_ae_ds.objective import BlackBox
from bbox.defenses.zo_ae_ds.pretrain import train_autoencoder
from bbox.defenses.zo_ae_ds.zeroth_order import Schedule, estimate, find_step, train
from bbox.oracle import Oracle
from bbox.zo import CGE, RGE, Estimator, FullSpace, root_keys
from tests.defenses.zo_ae_ds.boxes import SHAPE, Meter, images

DIM = 8


@pytest.fixture(scope="module")
def purifier() -> Purifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = Autoencoder(SHAPE, DIM)
        train_autoencoder(autoencoder, images(256), steps=150, report=lambda *_: None)
        return Purifier(DENOISERS["dncnn"](1), autoencoder)


def _setting(purifier: Purifier, target: Meter, limit: int = 100_000) -> tuple[BlackBox, Tensor, Tensor, Tensor]:
    """A black box, points, their clean answers and the true gradient of the loss there."""
    box = BlackBox(Books(Oracle(target, max_batch=100), {"fit": limit, "probe": 2000}))
    rows = images(24, seed=5)
    clean = box.clean(rows, "fit")
    noisy = rows + 0.5 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        points = purifier.point(purifier.denoise(noisy))
    at = points.clone().requires_grad_(True)
    scores = target.with_gradient(purifier.image(at))
    (true,) = torch.autograd.grad(F.cross_entropy(scores, clean, reduction="sum"), at)
    return box, points, clean, true


def _found(
    purifier: Purifier, box: BlackBox, points: Tensor, clean: Tensor, estimator: Estimator, step: float
) -> Tensor:
    keys = root_keys(3, torch.arange(len(points)))
    steps = torch.full((len(points),), step)
    with torch.no_grad():
        return estimate(purifier, box, estimator, points, clean, None, keys, steps, FullSpace((DIM,)), "fit")


@pytest.mark.parametrize(
    ("estimator", "least", "queries"),
    [
        (CGE("forward"), 0.98, DIM + 1),
        (CGE("central"), 0.98, 2 * DIM),
        (RGE(DIM, law="orthogonal"), 0.94, DIM + 1),
    ],
)
def test_estimates_point_along_the_true_gradient(
    purifier: Purifier, estimator: Estimator, least: float, queries: int
) -> None:
    target = Meter()
    box, points, clean, true = _setting(purifier, target)
    before = target.rows
    found = _found(purifier, box, points, clean, estimator, 0.1)
    assert float(F.cosine_similarity(found, true, dim=1).mean()) >= least
    assert target.rows - before == len(points) * queries
    lengths = found.norm(dim=1) / true.norm(dim=1)
    assert 0.8 < float(lengths.median()) < 1.25


def test_the_published_step_fails_on_an_8_bit_black_box_and_the_probed_one_does_not(purifier: Purifier) -> None:
    target = Meter(eight_bit=True)
    box, points, clean, true = _setting(purifier, target)
    before = target.rows
    step = find_step(purifier, box, points[:16], clean[:16], FullSpace((DIM,)), seed=0, rms=1.0)
    assert target.rows - before <= 500
    probed = _found(purifier, box, points, clean, CGE("forward"), step)
    published = _found(purifier, box, points, clean, CGE("forward"), 0.005)
    assert float(F.cosine_similarity(probed, true, dim=1).mean()) >= 0.98
    assert float(F.cosine_similarity(published, true, dim=1).mean()) < 0.9


def test_a_guide_is_one_more_query_and_brings_the_estimate_nearer(purifier: Purifier) -> None:
    target = Meter()
    box, points, clean, true = _setting(purifier, target)
    guide = F.normalize(F.normalize(true, dim=1) + 0.3 * torch.randn(true.shape), dim=1)
    base = box.losses(purifier.image(points), clean, "fit").detach()
    keys, steps = root_keys(3, torch.arange(len(points))), torch.full((len(points),), 0.1)
    cosines = []
    with torch.no_grad():
        for given, cost in ((None, 2), (guide, 3)):
            before = target.rows
            found = estimate(
                purifier,
                box,
                RGE(2, law="orthogonal"),
                points,
                clean,
                base,
                keys,
                steps,
                FullSpace((DIM,)),
                "fit",
                given,
            )
            assert target.rows - before == cost * len(points)
            cosines.append(float(F.cosine_similarity(found, true, dim=1).mean()))
    assert cosines[1] > cosines[0] + 0.1


@pytest.mark.parametrize("limit", [300, 777, 1501])
@pytest.mark.parametrize(
    ("estimator", "screen"), [(RGE(3, law="orthogonal"), 0.05), (RGE(3), -1.0), (CGE("central"), -1.0)]
)
def test_training_spends_its_budget_and_not_one_row_more(
    purifier: Purifier, limit: int, estimator: Estimator, screen: float
) -> None:
    target = Meter()
    box = BlackBox(Books(Oracle(target, max_batch=64), {"fit": limit}))
    rows = images(64)
    clean = box.clean(rows, "fit")
    fresh = Purifier(DENOISERS["dncnn"](1), purifier.autoencoder)
    steps = train(
        fresh,
        box,
        rows,
        clean,
        sigma=0.5,
        estimator=estimator,
        space=FullSpace((DIM,)),
        step=0.2,
        schedule=Schedule(batch=20, screen=screen, rate=1e-3, anchor=1.0),
        seed=0,
        report=lambda *_: None,
    )
    per_image = estimator.queries(DIM) + (estimator.queries(DIM) == 2 * DIM)
    assert steps > 0
    assert limit - per_image <= target.rows <= limit
    assert box.books.oracle.books["fit"].queries == target.rows
