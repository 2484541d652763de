"""The UCI optical digits, through scikit-learn: other hands and another scanner than MNIST's."""

from __future__ import annotations

import torch

from bbox.data.base import Dataset
from bbox.errors import UsageError

__all__ = ["load_uci_digits"]


def load_uci_digits(size: int = 28) -> Dataset:
    """The 1,797 digits of scikit-learn's ``load_digits`` (the test set of UCI optdigits), in its order.

    The originals are 8x8 counts of ink from 0 to 16, here in [0, 1]; every size is made from them, bilinear.

    Args:
        size: height and width in pixels.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    from bbox.data.spec import resize

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("zoo:uci-digits needs a package: pip install 'bbox-toolkit[demo]'") from error
    stored = load_digits()
    count = len(stored.target)
    originals = Dataset(
        name="zoo:uci-digits",
        inputs=torch.as_tensor(stored.images).float().unsqueeze(1) / 16,
        labels=torch.as_tensor(stored.target).long(),
        indices=torch.arange(count),
        ids=tuple(f"uci-{position:04d}" for position in range(count)),
        class_names=tuple("0123456789"),
    )
    return resize(originals, size)
