"""The network of the digits32 case: scikit-learn's 8x8 digits blown up to 3x32x32, and a small CNN on them.

Beside the zoo's digits on purpose: three channels, data from elsewhere, a network nobody tuned for bbox.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["load_digits32"]

# Part of the cached file's name: change it whenever anything below changes what training gives.
RECIPE = "v1"
TRAIN_SIZE, EPOCHS, BATCH, SEED = 1200, 6, 64, 0


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


def _train(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()


def load_digits32(cache: Path) -> tuple[nn.Module, Tensor, Tensor, float]:
    """The network (trained now, or read from the cache), held-out images, their labels, and its accuracy."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.tensor(bunch.target)
    small = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=32, mode="bilinear", align_corners=False).clamp(0, 1).repeat(1, 3, 1, 1)
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(images), generator=generator)
    train, held_out = order[:TRAIN_SIZE], order[TRAIN_SIZE:]

    path = cache / f"digits32-{RECIPE}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = _network()
    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        _train(model, images[train], labels[train], generator)
        cache.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), path)
    model.eval().requires_grad_(False)
    accuracy = float((model(images[held_out]).argmax(1) == labels[held_out]).float().mean())
    return model, images[held_out], labels[held_out], accuracy
