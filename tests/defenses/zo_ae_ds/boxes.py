"""A small black box whose gradient is known, and images that it gets right: four classes, one bright quadrant each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bbox.targets.torch_module import TorchTarget

SHAPE = (1, 8, 8)


class Quadrants(nn.Module):
    """Scores are the mean brightness of the quadrants, bent a little so that the loss is curved.

    ``reach`` pixels of each side of a quadrant are read; with one alone, noise decides and a denoiser can help.
    """

    def __init__(self, sharpness: float = 30.0, reach: int = 4) -> None:
        super().__init__()
        templates = torch.zeros(4, *SHAPE)
        for place in range(4):
            row, column = divmod(place, 2)
            templates[place, :, 4 * row : 4 * row + reach, 4 * column : 4 * column + reach] = 1 / reach**2
        self.register_buffer("templates", templates.flatten(1))
        self.sharpness = sharpness

    def forward(self, rows: Tensor) -> Tensor:
        brightness = rows.flatten(1) @ self.templates.T  # type: ignore[operator]
        return self.sharpness * torch.tanh(brightness)


def images(count: int, seed: int = 0) -> Tensor:
    """(count, 1, 8, 8): class i % 4 has a bright quadrant of its own brightness on a dim, uneven ground."""
    generator = torch.Generator().manual_seed(seed)
    rows = 0.25 * torch.rand(count, *SHAPE, generator=generator)
    for place in range(count):
        row, column = divmod(place % 4, 2)
        rows[place, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.25 + 0.4 * torch.rand(
            1, generator=generator
        )
    return rows.clamp(0, 1)


class Meter(TorchTarget):
    """Counts rows by itself, can fail after some of them, and answers as an 8-bit API or with probabilities would."""

    def __init__(
        self,
        *,
        fail_after: int | None = None,
        eight_bit: bool = False,
        probabilities: bool = False,
        reach: int = 4,
    ) -> None:
        super().__init__(Quadrants(reach=reach), name="quadrants", num_classes=4, device="cpu")
        self.seen: list[Tensor] = []
        self.fail_after, self.eight_bit, self.probabilities = fail_after, eight_bit, probabilities

    @property
    def rows(self) -> int:
        return sum(len(rows) for rows in self.seen)

    def __call__(self, rows: Tensor) -> Tensor:
        if self.fail_after is not None and self.rows + len(rows) > self.fail_after:
            raise ConnectionError("gone")
        self.seen.append(rows.clone())
        answer = super().__call__((rows * 255).round() / 255 if self.eight_bit else rows)
        return answer.softmax(1) if self.probabilities else answer
