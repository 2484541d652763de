"""Start points: made once for a case from a fixed seed, the same for every attack, and not charged to any."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["choose_pairs", "noisy_start"]

STEP = 0.02
EXTRA_TRIES = 50


def _label(model: nn.Module, row: Tensor) -> int:
    return int(model(row[None]).argmax(1))


def noisy_start(model: nn.Module, image: Tensor, label: int, seed: int) -> Tensor | None:
    """The image blended with more and more uniform noise until its label changes, or ``None``.

    The raw noisy image is returned, not its projection on the boundary: each attack bisects for itself and
    pays for that.
    Where even pure uniform noise keeps the label, noise of pure black and white pixels is tried.
    """
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, round(1 / STEP) + EXTRA_TRIES + 1):
        noise = torch.rand(image.shape, generator=generator)
        weight = min(1.0, STEP * step)
        row = torch.lerp(image, noise, weight)
        if _label(model, row) != label:
            return row
    for step in range(1, round(1 / STEP) + 1):
        where = torch.rand(image.shape, generator=generator) < STEP * step
        noise = (torch.rand(image.shape, generator=generator) < 0.5).float()
        row = torch.where(where, noise, image)
        if _label(model, row) != label:
            return row
    return None


def choose_pairs(labels: Tensor, count: int, seed: int) -> list[tuple[int, int]]:
    """(image, start) positions of two different classes; no image is repeated before all were attacked."""
    generator = torch.Generator().manual_seed(seed)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        for image in torch.randperm(len(labels), generator=generator).tolist():
            others = (labels != labels[image]).nonzero().flatten()
            if len(others) == 0:
                raise ValueError("targeted pairs need images of at least two classes")
            pairs.append((image, int(others[torch.randint(len(others), (1,), generator=generator)])))
            if len(pairs) == count:
                break
    return pairs
