"""Counter-based randomness: pure functions of keys, well distributed, and the same for ever."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bbox.zo import fold, gaussian, rademacher, root_keys, uniform

SAMPLERS = [gaussian, rademacher, uniform]
KEYS = root_keys(7, torch.arange(200))


def _splitmix64(state: int, count: int) -> list[int]:
    """The published generator, in Python's unbounded integers."""
    words, mask = [], (1 << 64) - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        words.append(z ^ (z >> 31))
    return words


@given(st.integers(-(2**63), 2**63 - 1))
def test_uniform_reads_the_published_splitmix64(key: int) -> None:
    words = _splitmix64(key % (1 << 64), 5)
    assert uniform(torch.tensor([key]), 5)[0].tolist() == [(word >> 40) / 2**24 for word in words]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 1000))
def test_fold_is_a_word_of_splitmix64_for_numbers_and_tensors(key: int, counter: int) -> None:
    start = (key + counter * 0x9E3779B97F4A7C15) % (1 << 64)
    word = _splitmix64(start, 1)[0]
    expected = word - (1 << 64) if word >= 1 << 63 else word
    keys = torch.tensor([key])
    assert fold(keys, counter).tolist() == fold(keys, torch.tensor([counter])).tolist() == [expected]


def test_numbers_that_runs_on_disk_depend_on() -> None:
    """Golden values. If they change, no old journal replays: raise the schema version and say so."""
    key = root_keys(0, torch.tensor([0, 1]))
    assert key.tolist() == [2558736989570252433, 3391245575278488096]
    assert gaussian(key[:1], 6)[0].tolist() == [
        0.0234375,
        -0.9658203125,
        1.6982421875,
        0.3310546875,
        0.8955078125,
        1.9736328125,
    ]
    assert rademacher(key[:1], 8)[0].tolist() == [1, 1, -1, -1, -1, 1, 1, 1]
    assert fold(key, 3).tolist() == [-5708505318385050158, -6502465273242363195]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_does_not_depend_on_its_company_or_length(sampler) -> None:
    whole = sampler(KEYS, 37)
    order = torch.randperm(len(KEYS), generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampler(KEYS[order], 37), whole[order])
    assert torch.equal(torch.cat([sampler(key[None], 37) for key in KEYS[:20]]), whole[:20])
    assert torch.equal(sampler(KEYS, 1001)[:, :37], whole)
    assert whole.dtype == torch.float32


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_drawing_leaves_the_global_state_and_the_keys_alone(sampler) -> None:
    before, keys = torch.get_rng_state(), KEYS.clone()
    sampler(keys, 10)
    fold(keys, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(keys, KEYS)


def test_gaussian_has_its_law() -> None:
    drawn = gaussian(KEYS, 1000).flatten()
    assert stats.kstest(drawn.double().numpy(), stats.norm.cdf).pvalue > 1e-3
    n = len(drawn)
    moments = [float((drawn.double() ** k).mean()) for k in (1, 2, 3, 4)]
    spread = [(v / n) ** 0.5 for v in (1, 2, 15, 96)]
    for found, expected, sigma in zip(moments, (0, 1, 0, 3), spread, strict=True):
        assert abs(found - expected) < 4 * sigma
    assert torch.equal(drawn * 1024, (drawn * 1024).round()), "on a grid of 2**-10"
    assert drawn.abs().max() <= 4.34


def test_uniform_has_its_law() -> None:
    drawn = uniform(KEYS, 1000).flatten()
    assert stats.kstest(drawn.double().numpy(), "uniform").pvalue > 1e-3
    assert float(drawn.min()) >= 0 and float(drawn.max()) < 1


def test_rademacher_has_its_law() -> None:
    drawn = rademacher(KEYS, 1000)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 4 / drawn.numel() ** 0.5
    assert abs(float((drawn[:, 1:] * drawn[:, :-1]).mean())) < 4 / drawn.numel() ** 0.5


@pytest.mark.parametrize("sampler", [gaussian, rademacher])
@pytest.mark.parametrize(
    "pair",
    [
        lambda: (KEYS, root_keys(8, torch.arange(200))),  # seeds beside each other
        lambda: (KEYS, root_keys(7, torch.arange(1, 201))),  # indices beside each other
        lambda: (fold(KEYS, 0), fold(KEYS, 1)),
        lambda: (KEYS, fold(KEYS, 0)),
        lambda: (fold(KEYS, -1), fold(KEYS, 1)),
    ],
)
def test_streams_of_related_keys_do_not_correlate(sampler, pair) -> None:
    first, second = (sampler(key, 1000).double().flatten() for key in pair())
    assert abs(float((first * second).mean())) < 4 / len(first) ** 0.5
    for lag in (1, 4, 8):
        assert abs(float((first[lag:] * second[:-lag]).mean())) < 4 / len(first) ** 0.5


def test_folded_keys_are_distinct() -> None:
    grid = fold(KEYS[:, None], torch.arange(-8, 1000)).flatten()
    assert len(grid.unique()) == len(grid)
    roots = torch.cat([root_keys(seed, torch.arange(1000)) for seed in (0, 1, 2, 2**63, 2**64 - 1)])
    assert len(roots.unique()) == len(roots)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("size", [1, 4, 9])
def test_no_keys_give_no_rows(sampler, size: int) -> None:
    assert sampler(KEYS[:0], size).shape == (0, size)
