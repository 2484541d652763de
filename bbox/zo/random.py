"""Counter-based randomness: every number is a pure function of a key and a counter.

A key is a 64-bit integer. ``fold`` derives new keys from it (one an example, an iteration, a direction), and the
samplers below read numbers off a key. So a direction never has to be stored, it is replayed from its key, and what an
example draws does not depend on what else is in the batch, on its order, or on the device (integer arithmetic only).

The generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["fold", "gaussian", "rademacher", "root_keys", "uniform"]


def _signed(value: int) -> int:
    """The 64-bit pattern of ``value`` as torch's signed int64 holds it."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)

# Gaussian variates are multiples of 2**-10, so sums of up to 3,700 of them are exact in float32 whatever the order of
# summation: a sum of signed directions is the same bit for bit in any batch, on any device.
_GAUSSIAN_GRID = 1024


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's ``>>`` copies the sign bit)."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_(x: Tensor) -> Tensor:
    """SplitMix64's output function, in place."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift(x, 31))


def fold(key: Tensor, counter: int | Tensor) -> Tensor:
    """Derive a key from a key and a counter (broadcast against each other)."""
    step = _signed((counter + 1) * _GOLDEN % (1 << 64)) if isinstance(counter, int) else (counter + 1) * _GOLDEN
    return _mix_(key + step)


def root_keys(seed: int, indices: Tensor) -> Tensor:
    """One key an example, from the run's seed and the example's index alone.

    Shapes:
        indices: (n,) int64.
        returns: (n,) int64.
    """
    seed_key = fold(torch.tensor([_signed(seed % (1 << 64))], device=indices.device), 0)
    return fold(fold(seed_key, indices), 0)


def _words(key: Tensor, count: int) -> Tensor:
    """``count`` 64-bit words off each key: (n,) -> (n, count)."""
    weyl = torch.arange(1, count + 1, device=key.device) * _GOLDEN
    return _mix_(key[:, None] + weyl)


@lru_cache(maxsize=8)
def _gaussian_table(device: torch.device) -> Tensor:
    """Normal quantiles at the mid-points of 2**16 cells, ordered as signed 16-bit integers index them."""
    cells = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    quantiles = torch.special.ndtri(cells)
    grid: Tensor = quantiles.mul(_GAUSSIAN_GRID).round() / _GAUSSIAN_GRID
    return grid.float().to(device)


def gaussian(key: Tensor, size: int) -> Tensor:
    """Standard normal numbers on a grid of 2**-10, at most 4.33 in size.

    Shapes:
        key: (n,) int64.
        returns: (n, size) float32.
    """
    if len(key) == 0:  # torch views no empty tensor as another type
        return torch.empty(0, size, device=key.device)
    cells = _words(key, -(-size // 4)).view(torch.int16)[:, :size].to(torch.int32).add_(1 << 15)
    return torch.index_select(_gaussian_table(key.device), 0, cells.reshape(-1)).view(len(key), size)


def rademacher(key: Tensor, size: int) -> Tensor:
    """Random signs. Shapes: key (n,) int64; returns (n, size) float32 of -1 and 1."""
    if len(key) == 0:
        return torch.empty(0, size, device=key.device)
    octets = _words(key, -(-size // 8)).view(torch.int8)[:, :size]
    return (octets >= 0).to(torch.float32).mul_(2).sub_(1)


def uniform(key: Tensor, size: int) -> Tensor:
    """Numbers in [0, 1) on a grid of 2**-24. Shapes: key (n,) int64; returns (n, size) float32."""
    return _shift(_words(key, size), 40).to(torch.float32).div_(1 << 24)
