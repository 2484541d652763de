"""The report's pictures: original, perturbation and adversarial example, as data in the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bbox.results.records import Example
from bbox.results.store import RunFolder

__all__ = ["Entry", "choose", "gallery", "is_picture"]

_MOST = 24
_MOST_FAILED = 4
_BYTES = 2_000_000  # of all pictures together, as they stand in the page
_SIZES = ((_MOST, 224), (_MOST, 160), (_MOST, 112), (12, 160), (12, 112), (6, 112), (6, 64), (3, 64), (1, 64))
_PIXELATED_BELOW = 96


@dataclass(frozen=True)
class Entry:
    """One example's three pictures as ``data:`` addresses.

    Attributes:
        factor: what the perturbation was multiplied by.
        reduced: (width, height) as shown where that is smaller than the input, else ``None``.
        pixelated: enlarged without smoothing.
    """

    example: Example
    original: str
    perturbation: str
    adversarial: str
    factor: float
    reduced: tuple[int, int] | None
    pixelated: bool

    @property
    def size(self) -> int:
        return len(self.original) + len(self.perturbation) + len(self.adversarial)


def is_picture(shape: Sequence[int]) -> bool:
    """Whether inputs of this shape can be shown: (1 or 3, height, width)."""
    return len(shape) == 3 and shape[0] in (1, 3)


def choose(examples: Sequence[Example], most: int = _MOST) -> list[Example]:
    """Examples with a saved adversarial file, spread evenly over the distances, then some that did not verify."""
    with_file = sorted((e for e in examples if e.distance is not None), key=lambda e: (e.distance, e.index))
    good = [e for e in with_file if e.success]
    bad = [e for e in with_file if not e.success]
    bad = _spread(bad, min(_MOST_FAILED, most // 4) if good else most)
    return _spread(good, most - len(bad)) + bad


def _spread(examples: list[Example], most: int) -> list[Example]:
    if len(examples) <= most:
        return examples
    return [examples[int(i)] for i in np.linspace(0, len(examples) - 1, most).round()]


def gallery(folder: RunFolder, examples: Sequence[Example]) -> list[Entry]:
    """The entries to show: as many and as large as fit. An example whose files are gone is left out."""
    for most, side in _SIZES:
        entries: list[Entry] = []
        size = 0
        for example in choose(examples, most):
            entry = _entry(folder, example, side)
            if entry is not None:
                entries.append(entry)
                size += entry.size
            if size > _BYTES:
                break
        else:
            return entries
    return []


def _entry(folder: RunFolder, example: Example, side: int) -> Entry | None:
    try:
        original = folder.read_array("originals", example.index).numpy().astype(np.float64)
        adversarial = folder.read_array("adversarial", example.index).numpy().astype(np.float64)
    except (OSError, ValueError):
        return None
    if original.shape != adversarial.shape or not is_picture(original.shape):
        return None
    change = adversarial - original
    largest = float(np.abs(change).max(initial=0.0))
    factor = _factor(largest)
    height, width = original.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Entry(
        example=example,
        original=_png(original, size, Image.Resampling.LANCZOS),
        # One pixel stands for its neighbours: averaging them would make a noisy perturbation look weaker than it is.
        perturbation=_png(0.5 + factor * change, size, Image.Resampling.NEAREST),
        adversarial=_png(adversarial, size, Image.Resampling.LANCZOS),
        factor=factor,
        reduced=size if scale < 1 else None,
        pixelated=max(size) < _PIXELATED_BELOW and scale == 1,
    )


def _factor(largest: float) -> float:
    """The largest factor of two digits at which no change of this size leaves the range between black and white."""
    if largest <= 0:
        return 1.0
    exact = 0.5 / largest
    unit: float = 10.0 ** (math.floor(math.log10(exact)) - 1)
    return float(f"{math.floor(exact / unit + 1e-9) * unit:.2g}")


def _png(values: NDArray[np.float64], size: tuple[int, int], resampling: Image.Resampling) -> str:
    pixels = (values.clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if image.size != size:
        image = image.resize(size, resampling)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
