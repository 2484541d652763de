"""What is attacked: a model, images that it gets right, and a start point for each; equal for all attacks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.digits32 import load_digits32
from benchmarks.lite0 import load_lite0
from benchmarks.starts import choose_pairs, noisy_start

__all__ = ["CASES", "Case", "Item", "load_case"]

SELECTION_SEED = 20240


@dataclass(frozen=True)
class Item:
    """One attack to run: image and start are (channels, height, width) float32 in [0, 1]."""

    id: str
    image: Tensor
    label: int
    start: Tensor
    target: int | None

    @property
    def key(self) -> str:
        """Equal in two result files exactly where the same attack was run: what results are paired by."""
        digest = hashlib.sha256(f"{self.label} {self.target}".encode())
        for pixels in (self.image, self.start):
            digest.update((pixels * 255).round().to(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Case:
    """A model in [0, 1] pixel space and the items to attack; ``facts`` goes into the results as it is."""

    name: str
    goal: str
    model: nn.Module
    num_classes: int
    items: list[Item]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """A model and labelled images, before any selection."""

    model: nn.Module
    num_classes: int
    images: Tensor
    labels: Tensor
    ids: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


def _digits28(_cache: Path, _folder: Path | None) -> Source:
    from bbox.zoo.digits import load_digits_data, load_digits_model  # the one place where a case needs bbox

    data = load_digits_data()
    return Source(load_digits_model(), 10, data.inputs, data.labels, list(data.ids))


def _digits32(cache: Path, _folder: Path | None) -> Source:
    model, images, labels, accuracy = load_digits32(cache)
    ids = [f"held-out-{i:04d}" for i in range(len(images))]
    return Source(model, 10, images, labels, ids, {"accuracy": accuracy})


def _lite0(size: int) -> Callable[[Path, Path | None], Source]:
    def load(_cache: Path, folder: Path | None) -> Source:
        model, images, labels, ids = load_lite0(size, folder)
        return Source(model, 1000, images, labels, ids)

    return load


CASES: dict[str, Callable[[Path, Path | None], Source]] = {
    "digits28": _digits28,
    "digits32": _digits32,
    "lite0-112": _lite0(112),
    "lite0-224": _lite0(224),
}


def _correct(source: Source, quantize: bool) -> tuple[Tensor, list[int]]:
    """The images (on the 8-bit grid if asked) and the positions of those that the model gets right."""
    images = (source.images * 255).round() / 255 if quantize else source.images
    with torch.no_grad():
        predicted = torch.cat([source.model(rows).argmax(1) for rows in images.split(32)])
    return images, (predicted == source.labels).nonzero().flatten().tolist()


def _targeted_items(source: Source, images: Tensor, right: list[int], count: int) -> list[Item]:
    items = []
    for first, second in choose_pairs(source.labels[right], count, SELECTION_SEED):
        i, j = right[first], right[second]
        name = f"{source.ids[i]}>{source.ids[j]}"
        items.append(Item(name, images[i], int(source.labels[i]), images[j], int(source.labels[j])))
    return items


def _untargeted_items(source: Source, images: Tensor, right: list[int], count: int, quantize: bool) -> list[Item]:
    items: list[Item] = []
    for i in right:
        if len(items) == count:
            break
        label = int(source.labels[i])
        with torch.no_grad():
            start = noisy_start(source.model, images[i], label, SELECTION_SEED + i)
            if start is not None and quantize:
                start = (start * 255).round() / 255
                start = start if int(source.model(start[None]).argmax(1)) != label else None
        if start is not None:
            items.append(Item(source.ids[i], images[i], label, start, None))
    return items


def load_case(
    name: str, goal: str, count: int, *, cache: Path, imagenet_dir: Path | None = None, quantize: bool = False
) -> Case:
    """Build a case; its first items are the same whatever ``count`` is: a longer run extends a shorter one.

    Args:
        name: a key of ``CASES``.
        goal: ``"untargeted"`` or ``"targeted"``.
        count: number of items wanted; fewer come back where the data has fewer correctly classified images.
        cache: where a trained network is kept.
        imagenet_dir: a folder with more ImageNet validation images (see ``benchmarks.lite0``).
        quantize: put images and starts on the 8-bit grid.
    """
    source = CASES[name](cache, imagenet_dir)
    source.model.eval().requires_grad_(False)
    images, right = _correct(source, quantize)
    if goal == "targeted":
        items = _targeted_items(source, images, right, count)
    else:
        items = _untargeted_items(source, images, right, count, quantize)
    facts = {"available": len(images), "correct": len(right), **source.facts}
    return Case(f"{name}-8bit" if quantize else name, goal, source.model, source.num_classes, items, facts)
