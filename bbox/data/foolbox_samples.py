"""``foolbox:NAME``: the 20 labelled samples of each data set that foolbox ships; foolbox is not imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from bbox.data.base import Dataset
from bbox.data.folder import stack_images
from bbox.errors import InputError, UsageError
from bbox.registry import did_you_mean

__all__ = ["NAMES", "load_samples"]

NAMES = ("mnist", "fashionMNIST", "cifar10", "cifar100", "imagenet")


def load_samples(name: str, *, size: int | None = None) -> Dataset:
    """Load the samples of one data set, in foolbox's order; imagenet is resized to 224 unless ``size`` is
    given.

    Raises:
        UsageError: foolbox ships no such samples, or is not installed.
        InputError: its sample files are not there.
    """
    if name not in NAMES:
        raise UsageError(
            f"foolbox ships no samples of {name!r}{did_you_mean(name, NAMES) or ';'} it has {', '.join(NAMES)}"
        )
    spec = find_spec("foolbox")
    if spec is None or spec.origin is None:
        raise UsageError("foolbox is not installed: pip install foolbox")
    folder = Path(spec.origin).parent / "data"
    files = sorted(folder.glob(f"{name}_[0-9][0-9]_*.*"))
    if not files:
        raise InputError(f"{folder}: no sample files of {name}; install foolbox again")
    side = 224 if size is None and name == "imagenet" else size
    return Dataset(
        name=f"foolbox:{name}",
        inputs=stack_images(files, side),
        labels=torch.tensor([int(file.stem.rpartition("_")[2]) for file in files]),
        indices=torch.arange(len(files)),
        ids=tuple(file.name for file in files),
    )
