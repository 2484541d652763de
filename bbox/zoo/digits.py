"""The embedded default: a small convolutional network on MNIST digits, and held-out digits to attack.

How both were made, and what was measured, is in ``assets/digits.json``; ``python -m bbox.zoo.make_digits``
makes them again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bbox.data.base import Dataset

__all__ = ["DigitsCNN", "load_digits_card", "load_digits_data", "load_digits_model"]

ASSETS = Path(__file__).with_name("assets")

# Mean and standard deviation of the pixels of MNIST's training set, in [0, 1].
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081


class DigitsCNN(nn.Module):
    """Three convolutions, each with batch normalisation, and a linear layer: 1.4 million multiply-adds a row.

    Args:
        widths: channels after each convolution.
        num_classes: number of logits.
        dropout: probability of dropping a feature before the linear layer while training.

    Shapes:
        rows: (n, 1, 28, 28) float32 in [0, 1]; the normalisation happens inside.
        returns: (n, num_classes) logits.
    """

    def __init__(
        self, widths: tuple[int, int, int] = (16, 32, 32), num_classes: int = 10, dropout: float = 0.3
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.features = nn.Sequential(
            # The stride keeps the forward cheap: full resolution would double its time.
            nn.Conv2d(1, first, kernel_size=5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, third, kernel_size=3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(third * 3 * 3, num_classes))

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features((rows - PIXEL_MEAN) / PIXEL_STD))
        return logits


def load_digits_card() -> dict[str, Any]:
    """What the embedded model and data are: architecture, measured accuracy, recipe, origin, licences."""
    card: dict[str, Any] = json.loads((ASSETS / "digits.json").read_text(encoding="utf-8"))
    return card


def load_digits_model() -> nn.Module:
    """The trained digits network, in evaluation mode, on the CPU, without gradients on its weights."""
    # On the meta device nothing is initialised, so the caller's global random state stays as it was.
    with torch.device("meta"):
        model = DigitsCNN(**load_digits_card()["architecture"])
    model.load_state_dict(load_file(ASSETS / "digits.safetensors"), assign=True)
    return model.eval().requires_grad_(False)


def load_digits_data() -> Dataset:
    """The shipped held-out digits: 50 of each class in shuffled order, none of them seen in training."""
    stored = load_file(ASSETS / "digits-heldout.safetensors")
    count = len(stored["labels"])
    return Dataset(
        name="zoo:digits",
        inputs=stored["images"].unsqueeze(1).float() / 255,
        labels=stored["labels"].long(),
        indices=torch.arange(count),
        ids=tuple(f"digit-{position:04d}" for position in range(count)),
        class_names=tuple("0123456789"),
    )
