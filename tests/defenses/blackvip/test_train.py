"""Training: batches within the budget, calls foretold, descent, the guard, lost answers, a replay without queries."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bbox.defenses.blackvip.objective import Objective
from bbox.defenses.blackvip.prompters import UniversalPrompt
from bbox.defenses.blackvip.train import Fused, Labelled, Schedule, Trained, batch_sizes, train
from bbox.defenses.books import Books
from bbox.errors import InputError
from bbox.oracle import Oracle
from bbox.zo import SPSA, Adam, Gains, GradientCorrection, clip_estimate
from tests.defenses.blackvip.boxes import SHAPE, Meter, images, leaning

DIM = 40
PROMPTER = UniversalPrompt((1, 5, 8))
SCHEDULE = Schedule(SPSA(6), Gains(0.05, 0.01), batch=8)


class Bowl:
    """Losses of a quadratic with its bottom at ``bottom``; some of them may be lost."""

    def __init__(self, spsa: SPSA, *, seed: int = 0, steep: float = 1.0, lost: Set[int] = frozenset()) -> None:
        self.spsa, self.seed, self.steep, self.lost = spsa, seed, steep, lost
        self.bottom = torch.linspace(-1, 1, DIM)
        self.batches: list[Tensor] = []
        self.widths: list[float] = []

    def loss(self, points: Tensor) -> Tensor:
        return self.steep * (points - self.bottom).double().square().sum(1)

    def values(self, step: int, weights: Tensor, batch: Tensor, width: float) -> Tensor:
        self.batches.append(batch)
        self.widths.append(width)
        points = self.spsa.points(weights, self.spsa.directions(self.seed, step, len(weights)), width)
        values = self.loss(points)
        for number in self.lost:
            values[number] = torch.nan
        return values

    def calls(self, evaluations: int, batch: int) -> int:
        return evaluations


def _train(bowl: Bowl, schedule: Schedule, sizes: list[int], **options: Any) -> Trained:
    start = torch.zeros(DIM)
    given = {"reference": float(bowl.loss(start[None])), "count": 30, "seed": bowl.seed, "start": start, **options}
    return train(PROMPTER, bowl, replace(schedule, spsa=bowl.spsa), sizes, **given)


def _final(bowl: Bowl, found: Trained) -> float:
    return float(bowl.loss(found.weights[None]))


@given(
    queries=st.integers(0, 60_000),
    evaluations=st.integers(2, 60),
    batch=st.integers(1, 200),
    most=st.integers(1, 300),
)
def test_batches_use_the_budget_up_and_never_more(queries: int, evaluations: int, batch: int, most: int) -> None:
    sizes = batch_sizes(queries, evaluations, batch, most)
    spent = evaluations * sum(sizes)
    assert spent <= queries < spent + evaluations
    if sizes:
        assert min(sizes) >= 1 and max(sizes) <= most and max(sizes) - min(sizes) <= 1
        wished = min(batch, most)
        assert min(sizes) <= 1.5 * wished + 1 and (len(sizes) == 1 or max(sizes) >= wished / 2)
    else:
        assert queries < evaluations


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("optimizer", ["spsa-gc", "spsa", "adam"])
def test_every_optimiser_goes_down(optimizer: Any, sides: int) -> None:
    spsa = SPSA(8, sides)
    schedule = replace(SCHEDULE, optimizer=optimizer, spsa=spsa, gains=Gains(0.05, 0.05))
    bowl = Bowl(spsa)
    found = _train(bowl, schedule, [5] * 300)
    assert found.steps == 300 and _final(bowl, found) < 0.2 * float(bowl.loss(torch.zeros(1, DIM)))


def _fused(answer: Any = leaning, *, max_batch: int = 128, spsa: SPSA = SCHEDULE.spsa) -> tuple[Fused, Meter]:
    rows, labels = images(24)
    target = Meter(answer)
    prompter = UniversalPrompt(SHAPE)
    data = Labelled(rows, labels, prompter.context(rows))
    objective = Objective(Books(Oracle(target, max_batch=max_batch), {}))
    return Fused(prompter, data, objective, spsa, 0, "fit"), target


def test_cma_es_goes_down_on_the_same_ledger() -> None:
    schedule = replace(SCHEDULE, optimizer="cma-es", gains=Gains(0.05, 0.05))
    fused, target = _fused(spsa=schedule.spsa)
    start, every = fused.prompter.start(0), torch.arange(24)
    seen: list[int] = []
    found = train(
        fused.prompter,
        fused,
        schedule,
        [24] * 30,
        start=start,
        count=24,
        seed=0,
        reference=1.0,
        checkpoint=lambda step, _: seen.append(step),
    )
    assert target.rows == 30 * 12 * 24 == fused.objective.books.oracle.books["fit"].queries
    assert seen == [8, 15, 23, 30]
    before, after = fused.at(torch.stack([start, found.weights]), every).tolist()
    assert after < before - 0.05


def test_steps_are_those_of_the_estimates_and_can_be_replayed_without_a_query() -> None:
    schedule = replace(SCHEDULE, averaging=0.7, scale=2.0, guard=0.0)
    bowl = Bowl(SCHEDULE.spsa, seed=5)
    found = _train(bowl, schedule, [4] * 25)
    descent, weights, mean = GradientCorrection(0.9), torch.zeros(DIM), torch.zeros(DIM)
    for step, row in enumerate(found.coefficients, 1):
        directions = bowl.spsa.directions(5, step, DIM)
        estimate = clip_estimate(2.0 * bowl.spsa.gradient(torch.tensor(row, dtype=torch.float64), directions))
        weights = descent.step(weights, estimate, 0.05 / (step + 1) ** 0.4)
        keep = min(0.7, step / (step + 1))
        mean = keep * mean + (1 - keep) * weights
    assert torch.equal(found.weights, mean)
    assert bowl.widths == [0.01 / step**0.1 for step in range(1, 26)]


def test_without_averaging_the_last_weights_are_kept() -> None:
    bowl = Bowl(SCHEDULE.spsa)
    seen: list[Tensor] = []
    found = _train(bowl, replace(SCHEDULE, averaging=0.0), [4] * 9, checkpoint=lambda _, w: seen.append(w))
    weights, descent = torch.zeros(DIM), GradientCorrection(0.9)
    for step, row in enumerate(found.coefficients, 1):
        estimate = bowl.spsa.gradient(torch.tensor(row, dtype=torch.float64), bowl.spsa.directions(0, step, DIM))
        weights = descent.step(weights, clip_estimate(estimate), SCHEDULE.gains.rate(step))
    assert torch.equal(found.weights, weights) and torch.equal(seen[-1], weights)


@pytest.mark.parametrize(("optimizer", "kind"), [("spsa-gc", 0.9), ("spsa", 0.0), ("adam", None)])
def test_the_optimiser_is_the_one_named(optimizer: Any, kind: float | None) -> None:
    descent = replace(SCHEDULE, optimizer=optimizer).descent()
    if kind is None:
        assert isinstance(descent, Adam)
    else:
        assert isinstance(descent, GradientCorrection) and descent.momentum == kind


def test_a_clipped_step_is_no_longer_than_it_says() -> None:
    """RMS 1 a coordinate, times the rate, times 1 / (1 - momentum) at most; docstring of ``a``."""
    bowl = Bowl(SCHEDULE.spsa, steep=1e6)
    places: list[Tensor] = [torch.zeros(DIM)]
    schedule = replace(SCHEDULE, averaging=0.0, guard=0.0)
    _train(bowl, schedule, [4] * 4, checkpoint=lambda _, w: places.append(w))
    for step, (before, after) in enumerate(pairwise(places), 1):
        rms = float((after - before).square().mean().sqrt())
        assert rms <= schedule.gains.rate(step) / (1 - 0.9) * (1 + 1e-5)


@pytest.mark.parametrize("steep", [3.0, 50.0])
def test_the_guard_goes_back_where_a_setting_diverges(steep: float) -> None:
    wild = replace(SCHEDULE, clip=False, gains=Gains(0.5, 0.01), averaging=0.0)
    free = _train(Bowl(SCHEDULE.spsa, steep=steep), replace(wild, guard=0.0), [4] * 15)
    assert free.rollbacks == 0
    assert not free.losses[-1] < 1e6, "the setting has to diverge, or the guard shows nothing"
    bowl = Bowl(SCHEDULE.spsa, steep=steep)
    at_start = float(bowl.loss(torch.zeros(1, DIM)))
    guarded = _train(bowl, replace(wild, clip=True, guard=2.0, gains=Gains(20.0, 0.01)), [4] * 200)
    assert guarded.rollbacks > 0
    assert _final(bowl, guarded) < 4 * at_start


def test_the_guard_leaves_a_good_run_alone() -> None:
    bowl, other = Bowl(SCHEDULE.spsa), Bowl(SCHEDULE.spsa)
    guarded = _train(bowl, replace(SCHEDULE, guard=2.0), [4] * 60)
    free = _train(other, replace(SCHEDULE, guard=0.0), [4] * 60)
    assert guarded.rollbacks == 0 and torch.equal(guarded.weights, free.weights)


def test_a_random_start_is_no_divergence() -> None:
    """Its first loss is far above zero-shot's, and is what the guard measures by."""
    prompter = UniversalPrompt((1, 5, 8))
    prompter.starts_clean = False
    bowl = Bowl(SCHEDULE.spsa)
    found = train(prompter, bowl, SCHEDULE, [4] * 30, start=torch.zeros(DIM), count=30, seed=0, reference=0.1)
    assert found.rollbacks == 0


@pytest.mark.parametrize(("sides", "lost"), [(2, {0}), (2, {7, 3}), (1, {2})])
def test_a_direction_whose_answers_are_lost_is_left_out(sides: int, lost: set[int]) -> None:
    spsa = SPSA(6, sides)
    bowl = Bowl(spsa, lost=lost)
    found = _train(bowl, replace(SCHEDULE, guard=0.0, clip=False), [4])
    gone = {number % 6 if sides == 2 else number - 1 for number in lost}
    kept = [number for number in range(6) if number not in gone]
    weights, directions = torch.zeros(DIM), spsa.directions(0, 1, DIM)
    whole = Bowl(spsa).loss(spsa.points(weights, directions, 0.01))
    estimate = spsa.gradient(spsa.coefficients(whole, 0.01)[kept], directions[kept])
    stepped = GradientCorrection(0.9).step(weights, estimate, SCHEDULE.gains.rate(1))
    torch.testing.assert_close(found.weights, stepped / 2)  # the mean of the start and of the first step
    assert [math.isnan(value) for value in found.coefficients[0]] == [number in gone for number in range(6)]
    assert bool(found.weights.isfinite().all()) and math.isfinite(found.losses[0])


def test_a_step_without_any_usable_answer_is_an_error() -> None:
    with pytest.raises(InputError, match="none of the answers in step 1 can be used"):
        _train(Bowl(SPSA(2), lost={0, 1, 2, 3}), SCHEDULE, [4])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 21, 100])
def test_weights_are_judged_at_the_quarters_and_at_the_end(steps: int) -> None:
    seen: list[int] = []
    _train(Bowl(SCHEDULE.spsa), SCHEDULE, [4] * steps, checkpoint=lambda step, _: seen.append(step))
    assert seen == sorted(set(seen)) and seen[-1] == steps and len(seen) == min(4, steps)
    if steps % 4 == 0:
        assert seen == [steps // 4, steps // 2, 3 * steps // 4, steps]


def test_it_stops_before_a_step_that_is_not_afforded() -> None:
    bowl = Bowl(SCHEDULE.spsa)
    asked: list[int] = []

    def affords(size: int) -> bool:
        asked.append(size)
        return len(asked) <= 3

    found = _train(bowl, SCHEDULE, [6, 6, 6, 5, 5], affords=affords)
    assert found.steps == 3 == len(bowl.batches) and asked == [6, 6, 6, 5]
    assert _train(Bowl(SCHEDULE.spsa), SCHEDULE, [6], affords=lambda _: False).steps == 0


def test_batches_are_distinct_images_of_all_that_there_are() -> None:
    bowl = Bowl(SCHEDULE.spsa)
    _train(bowl, SCHEDULE, [7] * 60)
    assert all(len(batch) == len(set(batch.tolist())) == 7 for batch in bowl.batches)
    assert set(torch.cat(bowl.batches).tolist()) == set(range(30))


def test_progress_is_reported() -> None:
    told: list[tuple[int, int]] = []
    _train(Bowl(SCHEDULE.spsa), SCHEDULE, [4] * 3, report=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("max_batch", [1, 5, 7, 16, 40, 1000])
def test_a_fused_step_has_the_losses_of_its_points_and_takes_the_calls_it_foretells(max_batch: int) -> None:
    fused, target = _fused(max_batch=max_batch)
    points = fused.points(3, torch.zeros(64), 0.05)
    batch = torch.tensor([20, 3, 11, 0, 7])
    values = fused.values(3, torch.zeros(64), batch, 0.05)
    assert target.rows == len(points) * 5
    assert target.calls == fused.calls(len(points), 5) and max(target.batches) <= max_batch
    rows, labels = images(24)
    for value, point in zip(values, points, strict=True):
        prompted = (rows[batch] + point.view(1, *SHAPE)).clamp(0, 1)
        expected = F.cross_entropy(leaning(prompted).double(), labels[batch])
        assert float(value) == pytest.approx(float(expected), rel=1e-5)


@given(evaluations=st.integers(1, 30), batch=st.integers(1, 24), max_batch=st.integers(1, 300))
def test_calls_are_foretold(evaluations: int, batch: int, max_batch: int) -> None:
    fused, target = _fused(max_batch=max_batch)
    fused.at(torch.zeros(evaluations, 64), torch.arange(batch))
    assert target.calls == fused.calls(evaluations, batch)


def test_an_image_whose_answer_is_lost_is_left_out_of_the_mean() -> None:
    def holes(rows: Tensor) -> Tensor:
        scores = leaning(rows)
        scores[::4] = torch.nan
        return scores

    fused, _ = _fused(holes)
    rows, labels = images(24)
    value = fused.at(torch.zeros(1, 64), torch.arange(8))
    kept = [1, 2, 3, 5, 6, 7]
    expected = F.cross_entropy(leaning(rows[kept]).double(), labels[kept])
    assert float(value[0]) == pytest.approx(float(expected), rel=1e-5)
    assert fused.objective.books.oracle.books["fit"].invalid == 2
