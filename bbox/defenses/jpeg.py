"""JPEG: each query is compressed and decompressed first."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bbox.defenses.base import Defense, Wrapped
from bbox.defenses.ranges import between
from bbox.errors import UsageError
from bbox.targets.base import Target

__all__ = ["JPEG"]


@dataclass(frozen=True)
class JPEG(Defense):
    """Round to 8 bits, compress as JPEG in memory, decompress, ask (Das et al., "Keeping the Bad Guys Out", arXiv
    1705.02900; Guo et al., "Countering Adversarial Images using Input Transformations", ICLR 2018).

    The codec works image by image on the CPU: this defense is slow where the model is fast.

    Args:
        quality: 1 to 95 as Pillow defines it; 75 is its default.

    Queries: one forward row each.

    Raises (from ``wrap`` where the target says its shape, else from the first query):
        UsageError: rows have other than 1 or 3 channels.
    """

    quality: int = 75

    summary: ClassVar[str] = "JPEG compression of each query (arXiv 1705.02900)"
    cost: ClassVar[str] = "coding on the CPU, image by image; accuracy on compressed images"
    weakness: ClassVar[str] = "deterministic, so decision-based attacks simply attack codec and model together"
    adaptations: ClassVar[tuple[str, ...]] = ("large-steps",)

    def __post_init__(self) -> None:
        between("quality", self.quality, 1, 95)

    def wrap(self, target: Target) -> Target:
        if target.input_shape is not None:
            _check(target.input_shape)
        return _Compressed(target, self, name="jpeg")


class _Compressed(Wrapped):
    defense: JPEG

    def __call__(self, rows: Tensor) -> Tensor:
        _check(tuple(rows.shape[1:]))
        pixels = (rows * 255).round_().clamp_(0, 255).to(torch.uint8)
        images = pixels.movedim(1, -1).cpu().numpy()
        coded = np.empty_like(images)
        for image, out in zip(images, coded, strict=True):
            out[...] = _round_trip(image, self.defense.quality)
        return self.inner(torch.from_numpy(coded).to(rows.device).movedim(-1, 1).to(rows.dtype).div_(255).contiguous())


def _round_trip(
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], quality: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Shapes: (height, width, 1 or 3) uint8, the same returned."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(image.shape)


def _check(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(f"jpeg codes images of shape (1 or 3, height, width), got {tuple(shape)}")
