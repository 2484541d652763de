"""What the Square Attack draws: starts, and rows with one square (window) changed.

Windows of one size at a place of its own for each row are read and written by index, so that a small square costs
little in a large image. Shapes here: rows (n, channels, height, width); at (n, 2) int64, a window's top and left.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from bbox.domain import l2
from bbox.zo import rademacher, uniform

__all__ = ["bump", "move_mass", "recolour", "row_marks", "side_of", "stripes", "tiles"]

_BREAKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 iterations: p halves after each


def side_of(p_init: float, step: int, steps: int, height: int, width: int) -> int:
    """Side of the square at iteration ``step`` of ``steps`` (paper, section 4: the schedule scaled to the budget)."""
    at = step / steps * 10_000
    p = p_init * 0.5 ** sum(at > edge for edge in _BREAKS)
    return max(1, min(round(math.sqrt(p * height * width)), height - 1, width - 1))


def draw(keys: Tensor, windows: int, signs: int, room: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Places and signs for each row, uniform, off one key.

    Shapes: keys (n,) int64; room: places down and across; returns (n, windows, 2) int64, (n, signs) float64 of -1, 1.
    """
    numbers = uniform(keys, 2 * windows + signs).double()
    places = numbers[:, : 2 * windows].view(-1, windows, 2) * torch.tensor(room, device=keys.device)
    return places.long(), torch.where(numbers[:, 2 * windows :] < 0.5, -1.0, 1.0).double()


def _index(at: Tensor, side: int) -> tuple[Tensor, slice, Tensor, Tensor]:
    reach = torch.arange(side, device=at.device)
    row = torch.arange(len(at), device=at.device).view(-1, 1, 1)
    return row, slice(None), (at[:, :1] + reach)[:, :, None], (at[:, 1:] + reach)[:, None, :]


def take(rows: Tensor, at: Tensor, side: int) -> Tensor:
    """What lies in the windows: (n, channels, side, side)."""
    return rows[_index(at, side)].permute(0, 3, 1, 2).contiguous()


def put(rows: Tensor, at: Tensor, side: int, values: Tensor) -> None:
    """Write into the windows, in place. Shapes: values broadcast to (n, channels, side, side)."""
    values = values.expand(len(rows), rows.shape[1], side, side)
    rows[_index(at, side)] = values.permute(0, 2, 3, 1)


def norm_in_channels(windows: Tensor) -> Tensor:
    """l2 norm of each channel, (n, channels, side, side) -> (n, channels, 1, 1); the same alone and in any batch."""
    return windows.square().sum(-1).sum(-1).sqrt()[:, :, None, None]


@lru_cache(maxsize=32)
def bump(side: int) -> Tensor:
    """The update eta of the l2 attack (paper, section 3.3), of norm 1: two bumps that fall off from their centres as
    sums of 1/k^2 over square rings, the lower one negative. Shapes: returns (side, side) float64 on the CPU."""
    sums = torch.cat([torch.zeros(1), 1 / torch.arange(1, side // 2 + 2).double().square()]).cumsum(0)
    parts = []
    for height, sign in ((side // 2, 1.0), (side - side // 2, -1.0)):
        down = (torch.arange(height) - height // 2).abs()[:, None]
        along = (torch.arange(side) - side // 2).abs()[None, :]
        part = sums[side // 2 + 1] - sums[torch.maximum(down, along)]
        parts.append(sign * part / part.square().sum().sqrt().clamp(min=1e-300))
    whole = torch.cat(parts)
    return whole / whole.square().sum().sqrt()


def stripes(keys: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The linf start: vertical stripes of random sign in each channel."""
    n, channels, _, width = low.shape
    signs = rademacher(keys, channels * width).view(n, channels, 1, width)
    return torch.where(signs > 0, high, low)


def recolour(keys: Tensor, base: Tensor, low: Tensor, high: Tensor, side: int) -> Tensor:
    """Algorithm 2: one square set to plus or minus epsilon, a sign for each channel."""
    channels, height, width = low.shape[1:]
    places, signs = draw(keys, 1, channels, (height - side + 1, width - side + 1))
    at, rows = places[:, 0], base.clone()
    put(rows, at, side, torch.where(signs[:, :, None, None] > 0, take(high, at, side), take(low, at, side)))
    return rows


def tiles(keys: Tensor, shape: torch.Size) -> Tensor:
    """The l2 start: the image tiled with bumps, 5 along the shorter side, of random sign and orientation."""
    n, channels, height, width = shape
    side = max(1, min(height, width) // 5)
    down, along = height // side, width // side
    signs = rademacher(keys, (channels + 1) * down * along).double().view(n, channels + 1, down, 1, along, 1)
    eta = bump(side).to(keys.device)
    turned = torch.where(signs[:, channels:] > 0, eta[:, None, :], eta.T[:, None, :])
    whole = (signs[:, :channels] * turned).reshape(n, channels, down * side, along * side)
    delta = torch.zeros(n, channels, height, width, dtype=torch.float64, device=keys.device)
    top, left = (height - down * side) // 2, (width - along * side) // 2
    delta[:, :, top : top + down * side, left : left + along * side] = whole
    return delta


def move_mass(keys: Tensor, delta: Tensor, side: int, epsilon: float) -> Tensor:
    """Algorithm 3: clear window 2, and give its mass, and what the ball has left, to window 1 with a bump
    added. Changes ``delta``, float64, in place and returns it."""
    channels, height, width = delta.shape[1:]
    side = min(max(side, 3) | 1, height, width)  # odd and at least 3, where the image is that large
    spare = (epsilon**2 - l2(delta).square()).clamp(min=0).view(-1, 1, 1, 1)
    places, signs = draw(keys, 2, channels + 1, (height - side + 1, width - side + 1))
    first, second, signs = places[:, 0], places[:, 1], signs[:, :, None, None]
    eta = bump(side).to(delta.device)
    eta = torch.where(signs[:, channels:] > 0, eta, eta.T) * signs[:, :channels]
    window = take(delta, first, side)
    mass = norm_in_channels(window)
    put(delta, first, side, torch.zeros_like(window))
    rest = norm_in_channels(take(delta, second, side))
    put(delta, second, side, torch.zeros_like(window))
    new = eta + window / mass.clamp(min=1e-10)
    available = (spare / channels + mass.square() + rest.square()).sqrt()
    put(delta, first, side, new / norm_in_channels(new).clamp(min=1e-10) * available)
    return delta


def row_marks(rows: Tensor, weights: Tensor) -> Tensor:
    """A 64-bit mark of each row's content, exact in any batch. Shapes: weights (dim,) int64, odd; returns (n,)."""
    bits = (rows + 0.0).flatten(1).view(torch.int32)  # + 0.0: zero has one sign
    return (bits.long() * weights).sum(1)
