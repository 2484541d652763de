"""The noise of a certificate is Gaussian, tails included, and belongs to its key alone."""

from __future__ import annotations

import torch
from scipy import stats

from bbox.defenses.normal import normal
from bbox.zo import fold, gaussian, root_keys

KEYS = fold(root_keys(0, torch.arange(100))[:, None], torch.arange(50)).flatten()


def test_distribution() -> None:
    found = normal(KEYS, 401)
    assert found.shape == (5000, 401) and found.dtype == torch.float32
    values = found.double().flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(values)) < 0.02
    for at in (3.0, 4.0, 4.5):
        expected = len(values) * 2 * stats.norm.sf(at)
        assert abs((abs(values) > at).sum() - expected) < 4 * expected**0.5 + 1
    assert abs(values).max() > 4.5 > float(gaussian(KEYS[:200], 401).abs().max())


def test_neighbours_are_independent() -> None:
    found = normal(KEYS, 200).double()
    inside = torch.corrcoef(found.T) - torch.eye(200)
    between = (found[1:] * found[:-1]).mean()
    squares = torch.corrcoef(found.square().T) - torch.eye(200)  # the two numbers of a pair share their length
    assert float(inside.abs().max()) < 6 / 5000**0.5
    assert float(squares.abs().max()) < 8 / 5000**0.5
    assert abs(float(between)) < 5 / 1e6**0.5


def test_a_row_is_the_same_in_any_batch() -> None:
    whole = normal(KEYS, 785)
    for size in (1, 3, 128):
        parts = torch.cat([normal(part, 785) for part in torch.split(KEYS[:500], size)])
        assert torch.equal(parts, whole[:500])
