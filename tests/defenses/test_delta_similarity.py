"""Delta similarity: streams of similar steps are refused, also interleaved; clean traffic is served."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bbox
from bbox.defenses import make_defense
from bbox.defenses.delta_similarity import DeltaSimilarity
from bbox.errors import UsageError
from bbox.oracle import Oracle
from bbox.targets.base import REFUSED
from tests.toys import Quadratic, SmallMemory

SHAPE = (1, 16, 16)


def rows_of(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def noise(count: int, sigma: float, seed: int = 1) -> Tensor:
    return sigma * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def refused(rows: Tensor, **options: object) -> Tensor:
    return make_defense("delta-similarity", options).wrap(Quadratic(SHAPE))(rows).isnan().all(1)


def test_noise_around_a_point_is_refused_after_so_many_steps() -> None:
    around = rows_of(1) + noise(40, 0.01)
    verdict = refused(torch.cat([rows_of(30, 5), around]), steps=8)
    assert not verdict[: 30 + 8].any() and verdict[30 + 10 :].all()


def test_steps_along_a_line_are_refused_whatever_their_lengths() -> None:
    far, near = rows_of(2)
    halves = torch.stack([near + (far - near) * 0.3 * 0.45**k for k in range(10)])
    verdict = refused(torch.cat([near[None], halves]), steps=4)
    assert verdict[-4:].all() and not verdict[:5].any()
    assert not refused(torch.cat([near[None], halves]), steps=12).any()


def test_interleaved_attacks_are_each_found() -> None:
    points = rows_of(25)
    stream = torch.cat([points + noise(25, 0.01, seed) for seed in range(30)])
    verdict = refused(stream).view(30, 25)
    assert not verdict[:8].any() and verdict[11:].float().mean() > 0.95


def test_a_few_near_duplicates_and_steps_of_different_size_pass() -> None:
    images = rows_of(50)
    copies = torch.cat([images, images + noise(50, 0.005, 1), images + noise(50, 0.01, 2), images])
    assert not refused(copies).any()
    edits = torch.stack([images[0] + noise(1, 0.001 * 2.0**k, k)[0] for k in range(6)])
    assert not refused(torch.cat([images[:1], edits]), steps=2).any()


def test_exact_repeats_are_a_stream() -> None:
    verdict = refused(rows_of(1).repeat(20, 1, 1, 1))
    assert not verdict[:9].any() and verdict[9:].all()


def test_far_steps_are_beyond_reach() -> None:
    points = rows_of(1) + noise(60, 0.3)
    assert not refused(points).any() and refused(points, reach=1.0).any()


def test_clean_digits_and_colour_images_are_served() -> None:
    digits = bbox.data.load("zoo:digits").inputs
    copies = torch.cat([digits, (digits + 0.02 * torch.rand_like(digits)).clamp(0, 1), digits.roll(1, 3)])
    watched = make_defense("delta-similarity").wrap(Quadratic((1, 28, 28)))
    assert watched.judge(copies).sum() == 0  # type: ignore[attr-defined]
    colour = torch.cat([bbox.data.load(f"foolbox:{name}").inputs for name in ("cifar10", "cifar100")])
    watched = make_defense("delta-similarity").wrap(Quadratic((3, 32, 32)))
    assert watched.judge(colour).sum() == 0  # type: ignore[attr-defined]


def test_cgba_is_refused_mostly_and_gets_less_far() -> None:
    digits = bbox.data.load("zoo:digits").select(limit=8)
    target = bbox.targets.load("zoo:digits", device="cpu")
    free = bbox.attack(target, digits.inputs, digits.labels, budget=200)
    held = bbox.attack(make_defense("delta-similarity").wrap(target), digits.inputs, digits.labels, budget=200)
    ledger = held.ledgers["attack"]
    assert ledger.queries == 8 * 200 and ledger.refused > 0.6 * ledger.queries
    assert held.distance.median() > 1.2 * free.distance.median()


def test_verdicts_do_not_depend_on_how_rows_are_batched_nor_on_where_memory_ends() -> None:
    stream = torch.cat([rows_of(5) + noise(5, 0.01, seed) for seed in range(12)] + [rows_of(40, 7)])
    for memory in (16384, 23):
        whole = refused(stream, memory=memory)
        parts = make_defense("delta-similarity", {"memory": memory}).wrap(Quadratic(SHAPE))
        assert torch.equal(torch.cat([parts(part).isnan().all(1) for part in stream.split(7)]), whole)


def test_memory_is_bounded_and_a_query_costs_516_bytes() -> None:
    watched = make_defense("delta-similarity", {"memory": 30}).wrap(Quadratic(SHAPE))
    watched(rows_of(20))
    assert watched.state_bytes == 20 * 516 and watched.remembered == 20  # type: ignore[attr-defined]
    for seed in range(4):
        watched(rows_of(20, seed))
    assert watched.state_bytes == 30 * 516 and watched.remembered == 30  # type: ignore[attr-defined]


def test_fresh_forgets_and_leaves_the_memory_alone() -> None:
    watched = make_defense("delta-similarity").wrap(Quadratic(SHAPE))
    repeats = rows_of(1).repeat(9, 1, 1, 1)
    watched(repeats)
    assert torch.isfinite(watched.fresh()(repeats)).all()
    oracle = Oracle(watched)
    assert (oracle.ask(repeats, "verify").labels >= 0).all()
    assert (oracle.ask(repeats).labels == REFUSED).all()


def test_rows_that_were_not_answered_are_no_repeats() -> None:
    oracle = Oracle(make_defense("delta-similarity").wrap(SmallMemory(SHAPE, fits=1)), max_batch=8)
    rows = rows_of(1).repeat(8, 1, 1, 1)
    assert (oracle.ask(rows).labels >= 0).all()


def test_sketches_keep_distances() -> None:
    rows = rows_of(200)
    sketch, contrast = DeltaSimilarity().sketch(rows)
    assert sketch.shape == (200, 64)
    ratio = torch.pdist(sketch) / torch.pdist(rows.flatten(1))
    assert ratio.mean().item() == pytest.approx(1, abs=0.05) and ratio.std() < 0.12
    assert torch.allclose(contrast, (rows - rows.mean((1, 2, 3), keepdim=True)).flatten(1).norm(dim=1))


def test_the_reach_is_calibrated_on_clean_rows() -> None:
    digits = bbox.data.load("zoo:digits").inputs
    defense = DeltaSimilarity(steps=1, alike=100.0).calibrated(digits, rate=0.02)
    assert 0.1 < defense.reach < 0.6 and defense.steps == 1
    judged = make_defense("delta-similarity", {"steps": 1, "alike": 100.0, "reach": defense.reach})
    assert judged.wrap(Quadratic((1, 28, 28))).judge(digits).float().mean() <= 0.02  # type: ignore[attr-defined]
    assert DeltaSimilarity().calibrated(digits, 0.1).reach > defense.reach
    with pytest.raises(UsageError, match="rate"):
        DeltaSimilarity().calibrated(digits, 0.0)
    with pytest.raises(UsageError, match="rows"):
        DeltaSimilarity().calibrated(digits[:1])
