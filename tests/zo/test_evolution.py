"""CMA-ES: it finds optima, replays exactly, and leaves the process and the disk alone."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from bbox.errors import UsageError
from bbox.zo.evolution import Evolution

DIMS = [8, 400]  # a full covariance, a diagonal one


def _ellipsoid(points: Tensor) -> Tensor:
    scale = torch.logspace(0, 2, points.shape[1])
    return (scale * (points - torch.linspace(-1, 1, points.shape[1])) ** 2).sum(1)


def _run(dim: int, generations: int, *, seed: int = 3, function=_ellipsoid) -> tuple[Tensor, Tensor]:
    """All asks, and the last mean."""
    search, asked = Evolution(torch.zeros(dim), 0.3, 10, seed), []
    for _ in range(generations):
        points = search.ask()
        asked.append(points)
        search.tell(function(points))
    return torch.stack(asked), search.mean


def test_it_finds_the_optimum_of_an_ellipsoid() -> None:
    _, mean = _run(8, 200)
    assert float(_ellipsoid(mean[None])) < 1e-6 * float(_ellipsoid(torch.zeros(1, 8)))


def test_in_many_dimensions_it_goes_down() -> None:
    _, mean = _run(400, 200)
    assert float(_ellipsoid(mean[None])) < 0.6 * float(_ellipsoid(torch.zeros(1, 400)))


@pytest.mark.parametrize("dim", DIMS)
def test_the_same_values_give_the_same_asks(dim) -> None:
    (first, mean), (second, again) = _run(dim, 30), _run(dim, 30)
    assert torch.equal(first, second) and torch.equal(mean, again)
    assert not torch.equal(_run(dim, 1, seed=4)[0], first[:1])


def test_a_first_generation_has_the_deviation_and_the_start() -> None:
    start = torch.full((2000,), 5.0)
    points = Evolution(start, 0.2, 8, 0).ask()
    assert points.shape == (8, 2000) and points.dtype == torch.float32
    assert float((points - start).std()) == pytest.approx(0.2, rel=0.03)
    assert float((points - start).mean()) == pytest.approx(0, abs=4 * 0.2 / 16_000**0.5)


@pytest.mark.parametrize("dim", DIMS)
def test_only_the_order_of_values_counts_and_nan_is_worst(dim) -> None:
    def distorted(points: Tensor) -> Tensor:
        values = _ellipsoid(points)
        return torch.where(values == values.max(), torch.nan, values.double().log() + 1e6)

    def infinite(points: Tensor) -> Tensor:
        values = _ellipsoid(points)
        return torch.where(values == values.max(), torch.inf, values)

    expected = _run(dim, 12)[0]
    assert torch.equal(_run(dim, 12, function=distorted)[0], expected)
    assert torch.equal(_run(dim, 12, function=infinite)[0], expected)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("-inf")])
def test_values_that_are_all_alike_break_nothing(value) -> None:
    asked, mean = _run(8, 5, function=lambda points: torch.full((10,), value))
    assert torch.isfinite(asked).all() and torch.isfinite(mean).all()


@pytest.mark.parametrize("dim", DIMS)
def test_global_random_states_the_terminal_and_the_folder_stay_as_they_are(dim, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    _run(dim, 20)
    after = np.random.get_state()
    assert np.array_equal(numpy_state[1], after[1]) and numpy_state[2:] == after[2:]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_asks_and_tells_alternate() -> None:
    search = Evolution(torch.zeros(3, dtype=torch.float64), 0.1, 6, 0)
    with pytest.raises(ValueError, match="0 points were asked"):
        search.tell(torch.zeros(6))
    search.ask()
    with pytest.raises(ValueError, match="not told"):
        search.ask()
    with pytest.raises(ValueError, match="6 points were asked"):
        search.tell(torch.zeros(5))
    search.tell(torch.arange(6.0))
    points, mean = search.ask(), search.mean
    given = points.clone(), mean.clone()
    search.tell(torch.arange(6.0))
    assert mean.dtype == torch.float64 and not torch.equal(mean, search.mean)
    assert torch.equal(points, given[0]) and torch.equal(mean, given[1]), "what was given out does not change later"


@pytest.mark.parametrize(("deviation", "population"), [(0.1, 3), (0.0, 8), (float("inf"), 8), (float("nan"), 8)])
def test_wrong_options_are_refused(deviation, population) -> None:
    with pytest.raises(ValueError, match="expected"):
        Evolution(torch.zeros(3), deviation, population, 0)


def test_without_the_package_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(UsageError, match=r"bbox-toolkit\[cma\]"):
        Evolution(torch.zeros(3), 0.1, 8, 0)
