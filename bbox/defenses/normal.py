"""Standard normal numbers from counter keys, for certificates: Gaussian far into the tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bbox.zo import fold

__all__ = ["normal"]

_RADIUS_BITS, _ANGLE_BITS = 40, 24


def normal(key: Tensor, size: int) -> Tensor:
    """Standard normal numbers by Box and Muller ("A Note on the Generation of Random Normal Deviates", 1958).

    A certificate by randomized smoothing speaks of Gaussian noise. ``bbox.zo.gaussian`` is made for search directions:
    it ends at 4.33 and has 2**16 values. Here one 64-bit word makes two numbers, 40 bits for their length and 24 for
    their angle, so the tails reach to 7.45 (what lies beyond has probability 1e-13).

    What remains is that numbers are finite: float32 arithmetic, a grid of 2**-24 in the angle. Certificates assume real
    numbers, and attacks on rounding alone are known (Jin et al., "Getting a-Round Guarantees: Floating-Point Attacks on
    Certified Robustness", 2022; Voracek and Hein, "Sound Randomized Smoothing in Floating-Point Arithmetics", ICLR
    2023). No sampler in float32 escapes that.

    What a key gives does not depend on what is beside it. Another device or torch version may differ in the last bit.

    Shapes:
        key: (n,) int64.
        returns: (n, size) float32.
    """
    pairs = -(-size // 2)
    words = fold(key[:, None], torch.arange(pairs, device=key.device))
    angle = (words & ((1 << _ANGLE_BITS) - 1)).to(torch.float32).mul_(2 * math.pi / (1 << _ANGLE_BITS))
    # In (0, 1], fine near zero, where the tails come from.
    above_zero = (words >> _ANGLE_BITS).bitwise_and_((1 << _RADIUS_BITS) - 1).add_(1).to(torch.float32)
    length = above_zero.mul_(2.0**-_RADIUS_BITS).log_().mul_(-2.0).sqrt_()
    made = torch.empty(len(key), 2 * pairs, device=key.device)
    torch.cos(angle, out=made[:, :pairs]).mul_(length)
    torch.sin(angle, out=made[:, pairs:]).mul_(length)
    return made[:, :size]
