"""Data sets: one file a kind of source, ``load(spec)``, and pictures read and written.

Importing this package does not import torch; what it offers does when it is used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbox.data.base import CodeSet, Dataset, Examples, MotionSet
    from bbox.data.images import read_image, save_image

__all__ = ["CodeSet", "Dataset", "MotionSet", "load", "read_image", "save_image"]

_HOME = {
    "CodeSet": "base",
    "Dataset": "base",
    "MotionSet": "base",
    "read_image": "images",
    "save_image": "images",
}


def load(spec: str, *, size: int | None = None, labels: Path | None = None) -> Examples:
    """Load a data set from what a user types.

    Args:
        spec: ``zoo:NAME``, ``foolbox:NAME``, ``coop:FILE.json`` (a split file of CoOp), ``code:PATH``,
            ``motion:PATH``, a folder of images, of source files, or of .bvh or .skeleton files, a .npz, .npy or
            .safetensors file, or a .jsonl, .csv or .txt of code (``bbox.data.code``, ``bbox.data.motion``). Options
            follow a kind: ``zoo:loc-mnist,ratio=4``, ``code:test.jsonl,language=c``, ``motion:clips,frames=32``.
        size: resize every image to this side in pixels (bilinear, antialiased; no cropping).
        labels: a file with labels: a CSV of file and label for a folder; for arrays a .npy of integers, or (for images)
            a CSV with one label a row.

    Raises:
        UsageError: the spec or an argument is wrong.
        InputError: a file was read and refused.
    """
    from bbox.data.spec import load_data

    return load_data(spec, size=size, labels=labels)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox.data' has no attribute {name!r}")
