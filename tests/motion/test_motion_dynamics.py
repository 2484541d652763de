"""TV-AR fits against one weighted least squares at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from bbox.errors import UsageError
from bbox.motion import dynamics
from bbox.motion.dynamics import Dynamics, fit_dynamics
from bbox.motion.local_linear import Kernel
from bbox.motion.presence import present
from tests.motion.bodies import move, ragged

WEIGHTS = {
    "triweight": lambda u: np.clip(1 - u * u, 0, None) ** 3,
    "epanechnikov": lambda u: np.clip(1 - u * u, 0, None),
    "gaussian": lambda u: np.exp(-u * u / 2),
}


def observations(there: np.ndarray, order: int) -> np.ndarray:
    return np.array([t for t in range(order, len(there)) if there[t - order : t + 1].all()], dtype=int)


def equations(
    series: np.ndarray, there: np.ndarray, frame: int, *, order: int, reach: float, kernel: Kernel, intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regressors, target and weights of one local-linear fit, in the lags themselves."""
    rows = observations(there, order)
    time = (rows - frame) / reach
    lags = np.stack([series[rows - lag] for lag in range(1, order + 1)] + [np.ones(len(rows))] * intercept, 1)
    return np.concatenate([lags, lags * time[:, None]], 1), series[rows], WEIGHTS[kernel](time)


def every(motions: Tensor, model: Dynamics) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Of each coordinate: the series, where it is, its coefficients (unknowns, frames), its bandwidth."""
    there = present(motions)
    fitted = [*model.coefficients.unbind(1), *([] if model.intercepts is None else [model.intercepts])]
    whole = torch.stack(fitted, 1)
    for n, joint, body in np.ndindex(motions.shape[0], *motions.shape[3:]):
        mask = there[n, 0, :, 0, body].numpy()
        for axis in range(3):
            series = motions[n, axis, :, joint, body].double().numpy()
            yield series, mask, whole[n, :, axis, :, joint, body].numpy(), float(model.bandwidth[n, axis, joint, body])


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kernel", ["triweight", "epanechnikov", "gaussian"])
def test_a_fit_is_the_weighted_least_squares_of_each_coordinate_alone(
    order: int, kernel: Kernel, intercept: bool
) -> None:
    motions = ragged().double()
    if intercept:  # without a sensor's noise, a window of a smooth motion is nearly a sum of 1 and time: rank deficient
        noise = torch.randn(motions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        motions += 1e-3 * noise * present(motions)
    model = fit_dynamics(motions, order=order, bandwidth=0.5, kernel=kernel, intercept=intercept)
    checked = 0
    for series, there, found, width in every(motions, model):
        rows = observations(there, order)
        least = 7 if order == 2 and intercept else 5
        if len(rows):
            assert width == pytest.approx(max(0.5, least / len(rows)))
        for frame in rows[:: 1 if len(rows) < 12 else 3]:
            options = {"order": order, "kernel": kernel, "intercept": intercept, "reach": max(0.5 * len(rows), least)}
            design, target, weights = equations(series, there, frame, **options)
            if np.count_nonzero(weights) < design.shape[1]:  # beside a gap
                continue
            root = np.sqrt(weights)
            direct = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0][: order + intercept]
            np.testing.assert_allclose(found[:, frame], direct, rtol=0, atol=1e-6)
            checked += 1
        alone = np.setdiff1d(np.arange(len(there)), observations(there, 1))
        assert (found[:, alone] == 0).all()
    assert checked > 500


def test_statsmodels_finds_the_same() -> None:
    models = pytest.importorskip("statsmodels.regression.linear_model")
    motions = move(1, 40).double()
    model = fit_dynamics(motions, order=2, bandwidth=0.3)
    for series, there, found, _ in every(motions, model):
        for frame in (2, 17, 39):
            options = {"order": 2, "reach": 0.3 * 38, "kernel": "triweight", "intercept": False}
            design, target, weights = equations(series, there, frame, **options)
            direct = models.WLS(target, design, weights=weights).fit().params[:2]
            np.testing.assert_allclose(found[:, frame], direct, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("order", "intercept"), [(1, False), (2, False), (2, True)])
def test_loo_takes_the_bandwidth_that_predicts_left_out_frames_best(order: int, intercept: bool) -> None:
    motions = move(1, 24, seed=3).double()[:, :, :, [0, 4, 8]]
    motions += 0.01 * torch.randn(motions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = fit_dynamics(motions, order=order, bandwidth="loo", intercept=intercept)
    chosen = set()
    for series, there, found, width in every(motions, model):
        rows = observations(there, order)
        least = 7 if order == 2 and intercept else 5
        errors, fits = {}, {}
        for reach in np.geomspace(least, 2 * len(rows), 8):
            missed, fit = [], []
            for place, frame in enumerate(rows):
                options = {"order": order, "reach": reach, "kernel": "triweight", "intercept": intercept}
                design, target, weights = equations(series, there, frame, **options)
                root = np.sqrt(weights)
                fit.append(np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0][: order + intercept])
                root[place] = 0
                left = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
                missed.append(target[place] - design[place] @ left)
            errors[reach], fits[reach] = np.square(missed).sum(), np.array(fit)
        best = min(errors, key=errors.__getitem__)
        chosen.add(round(best))
        assert width * len(rows) == pytest.approx(best)
        np.testing.assert_allclose(found[:, rows], fits[best].T, rtol=0, atol=1e-6)
    assert len(chosen) > 1


def test_it_recovers_coefficients_that_vary() -> None:
    time = torch.linspace(0, 1, 400, dtype=torch.float64)
    first, second = 0.5 + 0.3 * (6 * time).sin(), -0.4 + 0.2 * time
    noise = torch.randn(30, 3, 400, 4, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    motions = noise.clone()
    for t in range(2, 400):
        motions[:, :, t] += first[t] * motions[:, :, t - 1] + second[t] * motions[:, :, t - 2]
    found = fit_dynamics(motions, order=2, bandwidth=0.2).coefficients[:, :, :, 2:].mean((0, 2, 4, 5))
    assert (found - torch.stack([first, second])[:, 2:]).abs().max() < 0.05


def test_the_second_frame_of_a_run_has_the_first_order_coefficient() -> None:
    motions = ragged()
    one, two = (fit_dynamics(motions, order=order).coefficients for order in (1, 2))
    for n, frame, body in ((0, 1, 0), (1, 4, 1), (2, 14, 1)):
        assert (two[n, 0, :, frame, :, body] == one[n, 0, :, frame, :, body]).all()
        assert (two[n, 0, :, frame, :, body] != 0).all()
        assert (two[n, 1, :, frame, :, body] == 0).all()


@pytest.mark.parametrize("bandwidth", [0.2, "loo"])
@pytest.mark.parametrize("intercept", [False, True])
def test_what_does_not_move_or_is_too_short_has_no_dynamics(bandwidth: float, intercept: bool) -> None:
    for frames in (1, 2, 3, 4, 12):
        motions = move(2, frames, bodies=2)
        motions[0, 1, :, 2] = 0.7  # still
        motions[1, ..., 1] = 0
        model = fit_dynamics(motions, order=2, bandwidth=bandwidth, intercept=intercept)
        assert bool(model.coefficients.isfinite().all())
        assert bool(model.bandwidth.isfinite().all())
        assert not model.coefficients[0, :, 1, :, 2].any()
        assert not model.coefficients[1, ..., 1].any()
        assert model.coefficients.any() == (frames > 2 + intercept * 2)


def test_a_rest_within_a_motion_stays_where_it_is() -> None:
    motions = move(1, 60)
    motions[:, :, 10:40] = motions[:, :, 10:11]
    found = fit_dynamics(motions, order=2, bandwidth=0.1).coefficients[:, :, :, 18:32]
    torch.testing.assert_close(found[:, 0], torch.ones_like(found[:, 0]))
    torch.testing.assert_close(found[:, 1], torch.zeros_like(found[:, 1]))


@pytest.mark.parametrize("bandwidth", [0.2, "loo"])
def test_a_motion_has_the_same_fit_alone_and_in_any_batch(bandwidth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    motions = ragged(6)
    whole = fit_dynamics(motions, bandwidth=bandwidth)
    for n in range(6):
        assert torch.equal(fit_dynamics(motions[n : n + 1], bandwidth=bandwidth).coefficients[0], whole.coefficients[n])
    monkeypatch.setattr(dynamics, "_CHUNK", 1)
    one_by_one = fit_dynamics(motions, bandwidth=bandwidth)
    assert torch.equal(one_by_one.coefficients, whole.coefficients)
    assert torch.equal(one_by_one.bandwidth, whole.bandwidth)


def test_take_and_to() -> None:
    model = fit_dynamics(move(3, 12), order=1, intercept=True).take([2, 0]).to("cpu")
    alone = fit_dynamics(move(3, 12)[2:], order=1, intercept=True)
    assert (model.order, len(model.bandwidth)) == (1, 2)
    assert torch.equal(model.coefficients[:1], alone.coefficients)
    assert alone.intercepts is not None and model.intercepts is not None
    assert torch.equal(model.intercepts[:1], alone.intercepts)


@pytest.mark.parametrize(
    "options", [{"order": 3}, {"bandwidth": 0.0}, {"bandwidth": float("nan")}, {"bandwidth": "cv"}, {"kernel": "flat"}]
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        fit_dynamics(move(1, 8), **options)  # type: ignore[arg-type]
