"""What models that are not of torch share: how a row is laid out for them, and how they come to be targets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbox.errors import InputError, UsageError
from bbox.targets.base import Access
from bbox.targets.options import PREPROCESSING, Options
from bbox.targets.torch_module import TorchTarget

__all__ = ["LAYOUT", "Foreign", "choose_access", "describe", "foreign_target", "model_file"]

LAYOUT = ("layout", "range", "access", *PREPROCESSING)  # the options that these kinds share


class Foreign(nn.Module):
    """A model of another library as a torch module, so that it is prepared for and asked as any torch module is.

    Args:
        digest: of the model's files; a buffer holds it, so that the target's fingerprint covers them.
        hwc: whether the model takes its channels last.
        flat: whether it takes each row as one line of numbers.
        access: what is handed out; of a model of scores, ``"labels"`` is the place of the best one.
    """

    def __init__(self, digest: str, *, hwc: bool, flat: bool, access: Access) -> None:
        super().__init__()
        self.hwc, self.flat, self.access = hwc, flat, access
        self.register_buffer("file", torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Shapes: rows (n, channels, height, width); returns (n, classes) float, or (n,) int64 labels."""
        if self.hwc and rows.ndim == 4:
            rows = rows.permute(0, 2, 3, 1)
        answer = self.answer(rows.flatten(1) if self.flat else rows)
        return answer.argmax(1) if self.access == "labels" and answer.is_floating_point() else answer

    @abstractmethod
    def answer(self, rows: Tensor) -> Tensor:
        """Scores (n, classes), or labels (n,), of rows as the model takes them."""


def model_file(path: Path) -> Path:
    """The path, if a file is there.

    Raises:
        InputError: no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def choose_access(read: Options, own: Access) -> Access:
    """What a model hands out: what it answers, or labels only where ``access=labels`` asks for that.

    Raises:
        UsageError: scores are asked for and the model answers labels.
    """
    asked = read.choice("access", ("scores", "labels"))
    if asked == "scores" and own == "labels":
        raise UsageError(f"{read.spec}: access=scores, and the model answers labels")
    return "labels" if asked == "labels" else own


def describe(read: Options, *, bytes_only: bool = False) -> dict[str, Any]:
    """The arguments of ``TorchTarget`` among the options of ``LAYOUT``.

    ``range=0-255`` gives the model pixels of 0 to 255, and mean and std are then in that unit too.

    Args:
        bytes_only: whether the model takes bytes, so that the range can only be 0-255.

    Raises:
        UsageError: an option is wrong, or the range does not fit the model.
    """
    described: dict[str, Any] = read.preprocessing()
    scale = read.choice("range", ("0-1", "0-255")) or ("0-255" if bytes_only else "0-1")
    if bytes_only and (scale == "0-1" or "mean" in described or "std" in described):
        raise UsageError(f"{read.spec} takes bytes: leave out mean and std, and range=0-1")
    if scale == "0-255":
        for name in ("mean", "std"):
            if read.text(name) == "imagenet":
                raise UsageError(f"{read.spec}: {name}=imagenet is for range=0-1; give {name} in pixels of 0 to 255")
        described["mean"] = tuple(mean / 255 for mean in described.get("mean", (0.0,)))
        described["std"] = tuple(std / 255 for std in described.get("std", (1.0,)))
    return described


def foreign_target(
    module: nn.Module,
    *,
    name: str,
    access: Access,
    device: str | torch.device,
    class_names: tuple[str, ...] | None = None,
    described: Mapping[str, Any],
) -> TorchTarget:
    """A target of a foreign model, or of a module around one.

    Args:
        access: what the module answers.
        described: the other arguments of ``TorchTarget``.
    """
    target = TorchTarget(module, name=name, device=device, **described)
    target.access = access
    target.class_names = class_names
    return target
