"""Certification of a classifier whose true radii are known, counted by a meter of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bbox.defenses import Certificate, certify, noise_accuracy
from bbox.defenses.bounds import METHODS, clopper_pearson_lower
from bbox.errors import InputError, TargetError, UsageError
from bbox.oracle import Oracle
from tests.defenses.smoothing_toys import HalfSpace, phi
from tests.toys import Answers as ToyAnswers
from tests.toys import RaisesAfter

SIGMA = 0.25
DISTANCES = [0.4, 0.02, -0.3, 0.2, -0.1, 0.6, 0.0, 0.35]
LABELS = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1])  # the sixth is wrong


class Answers(ToyAnswers):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.input_shape = (1, 2, 2)


def run(target: Any = None, distances: list[float] = DISTANCES, *, max_batch: int = 64, **options: Any) -> Certificate:
    target = target or HalfSpace()
    options = {"sigma": SIGMA, "n": 1000, "alpha": 0.01, "labels": LABELS[: len(distances)]} | options
    return certify(Oracle(target, max_batch=max_batch), HalfSpace().at(distances), **options)


def same(one: Certificate, two: Certificate) -> bool:
    names = [f.name for f in dataclasses.fields(Certificate)]
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in names if name != "settings")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("access", ["scores", "labels"])
def test_radii_are_sound_and_near_the_truth(method: Any, access: str) -> None:
    found = run(HalfSpace(access=access), method=method, radii=None, n=3000)
    assert (found.samples == 3000).all() and (found.selected == 100).all()
    truth = np.abs(DISTANCES)
    assert (found.radius <= truth).all()
    far = truth >= 0.1
    assert (found.predicted[far] == (np.array(DISTANCES) > 0)[far]).all()
    assert (found.radius[far & (truth < 0.5)] > 0.75 * truth[far & (truth < 0.5)] - 0.02).all()
    assert found.abstained[6], "on the boundary itself"


def test_counts_are_binomial_with_the_known_probability() -> None:
    distances = [0.1] * 50
    found = run(distances=distances, labels=torch.ones(50), method="fixed", n=400)
    hits = found.counts[:, 1]
    p = phi(0.1 / SIGMA)
    assert found.counts.sum(1).tolist() == [400] * 50
    assert abs(hits.mean() - 400 * p) < 4 * (400 * p * (1 - p) / 50) ** 0.5
    assert 0.5 < hits.var(ddof=1) / (400 * p * (1 - p)) < 1.7, "images share no noise"
    assert len(set(hits.tolist())) > 10
    assert (
        found.lower.tolist()
        == clopper_pearson_lower(np.where(found.predicted == 1, hits, 400 - hits), 400, 0.01).tolist()
    )


def test_noise_is_gaussian_unclipped_and_of_the_right_size() -> None:
    seen: list[Tensor] = []

    def answer(rows: Tensor) -> Tensor:
        seen.append(rows - 0.5)
        return torch.eye(4)[:1].repeat(len(rows), 1)

    run(Answers(answer), [0.0], radii=None, n=1000, n0=100, method="fixed", labels=None)
    target_rows = torch.cat(seen)
    assert target_rows.shape == (1100, 1, 2, 2)
    assert stats.kstest(target_rows.flatten().numpy() / SIGMA, "norm").pvalue > 1e-3
    assert float(target_rows.abs().max()) > 0.5, "rows leave [0, 1]"
    assert len(torch.unique(target_rows.flatten(1), dim=0)) == 1100, "no noise is used twice"


@pytest.mark.parametrize("method", METHODS)
def test_queries_are_exact(method: Any) -> None:
    target = HalfSpace()
    oracle = Oracle(target, max_batch=50)
    found = certify(oracle, target.at(DISTANCES), sigma=SIGMA, n=700, method=method, radii=(0.1,))
    assert target.rows == oracle.books["certify"].queries == found.queries == (found.selected + found.samples).sum()
    assert max(target.batches) <= 50 and set(oracle.books) == {"certify"}
    assert all(count == 1 for count in target.counts().values())


@pytest.mark.parametrize("method", METHODS)
def test_an_image_does_not_depend_on_batch_order_or_company(method: Any) -> None:
    whole = run(method=method, n=400, max_batch=64)
    for max_batch in (7, 1000):
        assert same(run(method=method, n=400, max_batch=max_batch), whole)
    order = [5, 0, 3]
    some = run(distances=[DISTANCES[i] for i in order], labels=LABELS[order], indices=order, n=400, method=method)
    for place, i in enumerate(order):
        for name in ("predicted", "selected", "samples", "lower", "selection", "counts"):
            assert np.array_equal(getattr(some, name)[place], getattr(whole, name)[i]), name
    assert not same(run(method=method, n=400, seed=1), whole)


def test_sequential_methods_stop_early_and_agree() -> None:
    distances, radii = [0.5, 0.02, 0.4, -0.45, 0.15, 0.05], (0.25,)
    found = {m: run(distances=distances, labels=None, n=10_000, method=m, radii=radii, alpha=0.001) for m in METHODS}
    verdicts = {m: c.certified(radii)[:, 0].tolist() for m, c in found.items()}
    assert verdicts["fixed"] == verdicts["staged"] == verdicts["eprocess"] == [True, False, True, True, False, False]
    assert found["eprocess"].mean_samples < found["fixed"].mean_samples / 10
    assert found["eprocess"].reason == ["certified", "futile", "certified", "certified", "futile", "futile"]
    # Any radius can be asked later, and the bound is for all of them at once.
    assert found["eprocess"].certified((0.0, 0.1, 0.6))[0].tolist() == [True, True, False]


def test_several_radii_are_all_decided() -> None:
    radii = (0.0, 0.1, 0.3)
    found = run(distances=[0.2, 0.5], labels=None, n=10_000, radii=radii)
    assert found.certified(radii).tolist() == [[True, True, False], [True, True, True]]
    assert found.reason == ["futile", "certified"]


def test_figures() -> None:
    found = run(n=3000, method="fixed", radii=(0.0, 0.15))
    shares = found.certified_accuracy()
    assert [s.value for s in shares] == pytest.approx([5 / 8, 4 / 8], abs=0.126)
    assert all(s.low < s.value < s.high for s in shares)
    right = found.radius.copy()
    right[~found.right] = 0
    assert found.acr == pytest.approx(right.mean()) and not found.right[5]
    assert found.certified((0.3,))[5, 0], "certified, of the wrong class: not accurate"
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["acr_is_lower_bound"] is False and len(written["examples"]) == 8
    unlabelled = run(n=3000, method="fixed", radii=(0.0, 0.15), labels=None)
    assert unlabelled.certified_accuracy()[1].value > shares[1].value


@pytest.mark.parametrize("budget", [1, 399, 800, 801, 1000, 1100])
def test_a_budget_is_never_exceeded(budget: int) -> None:
    target = HalfSpace()
    found = run(target, budget=budget, radii=(0.1,))
    assert target.rows == found.queries == budget
    assert found.complete and "budget" in found.reason
    unfinished = np.array(found.reason) == "budget"
    whole = run(radii=(0.1,))
    assert (found.counts <= whole.counts).all() and (found.samples <= whole.samples).all()
    assert not found.certified((0.1,))[unfinished].any()


def test_save_load_and_resume(tmp_path: Path) -> None:
    whole = run(max_batch=8, n=400)
    path = tmp_path / "certificate.safetensors"
    saves = 0

    class Killed(BaseException):
        pass

    def save(found: Certificate) -> None:
        nonlocal saves
        saves += 1
        found.save(path)
        if saves % 3 == 0:
            raise Killed

    state, kills = None, 0
    while state is None or not state.complete:
        try:
            state = run(max_batch=8, n=400, on_progress=save, resume=state)
        except Killed:
            state, kills = Certificate.load(path), kills + 1
    assert kills > 2
    lost = state.queries - whole.queries
    assert lost > 0, "rows of a killed slice are counted twice"
    state.queries = whole.queries
    assert same(state, whole)
    whole.save(path)
    assert same(Certificate.load(path), whole) and Certificate.load(path).settings == whole.settings
    with pytest.raises(UsageError, match="other settings"):
        run(resume=whole, seed=3)


def test_a_budget_holds_over_kills() -> None:
    target, state = HalfSpace(), None
    calls = 0

    def stop(found: Certificate) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    def keep(found: Certificate) -> None:
        nonlocal state
        state = dataclasses.replace(found, **{n: getattr(found, n).copy() for n in ("selection", "selected", "counts")})
        stop(found)

    with pytest.raises(KeyboardInterrupt):
        run(target, max_batch=4, on_progress=keep, budget=600)
    run(target, max_batch=4, resume=state, budget=600)
    assert target.rows <= 600


def test_unusable_answers_are_no_class() -> None:
    nothing = run(Answers(lambda rows: torch.full((len(rows), 4), torch.nan)), [0.1, 0.2], labels=None)
    assert nothing.reason == ["unusable"] * 2 and nothing.queries == 200 and nothing.abstained.all()

    def half(rows: Tensor) -> Tensor:
        scores = torch.eye(4)[:1].repeat(len(rows), 1)
        scores[rows[:, 0, 0, 0] > 0.5] = torch.nan
        return scores

    found = run(Answers(half), [0.0], labels=None, method="fixed", radii=None)
    assert found.abstained[0] and 400 < found.counts.sum() < 600 and found.samples[0] == 1000


def test_a_target_without_a_number_of_classes() -> None:
    target = Answers(lambda rows: (rows[:, 0, 0, 0] > 0.5).long() * 6, access="labels", classes=None)
    found = run(target, [0.4, -0.4], labels=None)
    assert found.predicted.tolist() == [6, 0] and found.counts.shape == (2, 7)


def test_a_target_that_dies_leaves_its_counts() -> None:
    target = RaisesAfter((1, 2, 2), good=900)
    with pytest.raises(TargetError, match="the service has gone") as caught:
        run(target, max_batch=10)
    assert caught.value.result.selected.sum() == 800


def test_a_denoiser_sits_between_noise_and_target() -> None:
    calls: list[tuple[int, float]] = []

    def flip(rows: Tensor, sigma: float) -> Tensor:
        calls.append((len(rows), sigma))
        return 1 - rows

    found = run(denoise=flip, labels=None, radii=(0.2,), max_batch=32)
    plain = run(labels=None, radii=(0.2,))
    far = np.abs(DISTANCES) > 0.15
    assert (found.predicted[far] == 1 - plain.predicted[far]).all()
    assert sum(n for n, _ in calls) == found.queries and {s for _, s in calls} == {SIGMA}
    assert max(n for n, _ in calls) <= 32
    for broken, says in ((lambda x, s: x[:, :, :1], "returned"), (lambda x, s: 1 / 0, "ZeroDivisionError")):
        with pytest.raises(InputError, match=says):
            run(denoise=broken)


def test_noise_accuracy() -> None:
    target = HalfSpace()
    oracle = Oracle(target, max_batch=100)
    inputs, labels = target.at([0.1] * 300 + [-0.1] * 300), torch.tensor([1] * 300 + [0] * 300)
    found = noise_accuracy(oracle, inputs, labels, sigma=SIGMA, draws=3)
    assert oracle.books["certify"].queries == target.rows == 1800
    assert abs(found.value - phi(0.1 / SIGMA)) < 4 * found.standard_error
    assert 0.005 < found.standard_error < 0.02


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "sigma of 0": ({"sigma": 0.0}, UsageError, "sigma is 0"),
    "sigma of another range": ({"sigma": 63.75}, UsageError, "0 to 255, give 0.25"),
    "sigma that is nan": ({"sigma": float("nan")}, UsageError, "sigma is nan"),
    "n too small": ({"n": 9, "alpha": 0.001, "method": "fixed"}, UsageError, "smallest n that can is 10"),
    "radius out of reach": ({"radii": (0.7,), "alpha": 0.001}, UsageError, "at most 0.599; n = 3249 could"),
    "radius of no reach": ({"radii": (5.0,)}, UsageError, "larger sigma"),
    "negative radius": ({"radii": (-0.1,)}, UsageError, "radius is -0.1"),
    "no radius": ({"radii": ()}, UsageError, "no radius"),
    "alpha of 1": ({"alpha": 1.0}, UsageError, "alpha is 1"),
    "unknown method": ({"method": "stagged"}, UsageError, "did you mean 'staged'"),
    "no budget": ({"budget": 0}, UsageError, "budget is 0"),
    "n0 of 0": ({"n0": 0}, UsageError, "n0 is 0"),
    "index twice": ({"indices": [1] * 8}, UsageError, "twice"),
    "too few labels": ({"labels": LABELS[:2]}, InputError, "8 images but 2 labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_sense_is_refused_before_a_query(name: str) -> None:
    options, kind, says = BAD[name]
    target = HalfSpace()
    with pytest.raises(kind, match=says) as caught:
        run(target, **options)
    assert target.rows == 0 and "\n" not in str(caught.value)


def test_inputs_that_do_not_fit_are_refused() -> None:
    oracle = Oracle(HalfSpace())
    for inputs, says in (
        (HalfSpace().at([0.1]) * 255, "divide by 255"),
        (torch.full((1, 1, 2, 2), torch.nan), "nan"),
        (torch.zeros(1, 3, 2, 2), "shape"),
        (torch.zeros(2, 2), "expected floats"),
    ):
        with pytest.raises(InputError, match=says):
            certify(oracle, inputs, sigma=SIGMA)


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no such"):
        Certificate.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        Certificate.load(path)
