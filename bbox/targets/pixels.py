"""The image processor that a pretrained model was saved with, as tensor operations on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.errors import InputError

__all__ = ["Pixels"]

_MODES = ("nearest", "bilinear", "bicubic")
# Pillow's filters by number. As transformers does on a GPU, Lanczos is read as its nearest relative.
_FILTERS = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic"}
_NO_CROP_FROM = 384  # ConvNextImageProcessor: images of at least this side are warped, smaller ones cropped


class Pixels(nn.Module):
    """Resize, centre crop and normalise, as an image processor of transformers does, batched and differentiable.

    All numbers are buffers, so that a fingerprint over the module covers them.

    Args:
        processor: an image processor of transformers; only its attributes are read.
        where: the start of messages.

    Raises:
        InputError: it prepares images in a way that is not known here.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, processor: Any, *, where: str) -> None:
        super().__init__()
        self.where = where
        self.edge, self.size = _resize(processor, where)
        self.crop = _crop(processor)
        self.mode = _FILTERS.get(int(_said(processor, "resample", 2)), "bilinear")
        if (
            not _said(processor, "do_rescale", True)
            or abs(_said(processor, "rescale_factor", 1 / 255) * 255 - 1) > 1e-6
        ):
            raise InputError(f"{where}: its image processor does not scale pixels by 1/255, which is all that is known")
        if _said(processor, "do_pad", False):
            raise InputError(f"{where}: its image processor pads images, which is not known here")
        mean, std = (
            torch.as_tensor(_said(processor, name, [0.0] * 3), dtype=torch.float32).reshape(-1, 1, 1)
            for name in ("image_mean", "image_std")
        )
        if not _said(processor, "do_normalize", True):
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        if not (std > 0).all():
            raise InputError(f"{where}: its image processor has std {std.flatten().tolist()}, expected above zero")
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        numbers = [self.edge or 0, *(self.size or (0, 0)), *(self.crop or (0, 0)), _MODES.index(self.mode)]
        self.register_buffer("geometry", torch.tensor(numbers), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """What the model takes.

        Shapes:
            rows: (n, channels, height, width) in [0, 1]; grey ones are repeated for a model of colours.
            returns: (n, channels of the model, height, width of the model), float32.

        Raises:
            InputError: the model takes another number of channels.
        """
        channels = len(self.mean)
        if rows.shape[1] == 1 and channels > 1:
            rows = rows.expand(-1, channels, -1, -1)
        if channels > 1 and rows.shape[1] != channels:
            raise InputError(f"{self.where} takes {channels} channels, and the images have {rows.shape[1]}")
        size = self._size(*rows.shape[-2:])
        if tuple(rows.shape[-2:]) != size:
            smooth = self.mode != "nearest"
            options: dict[str, Any] = {"align_corners": False, "antialias": True} if smooth else {}
            # Bicubic overshoots, and bytes are cut after each of the two passes: on noise, 13 levels lie between this
            # and one pass (measured).
            for shape in ((rows.shape[-2], size[1]), size):
                rows = functional.interpolate(rows, shape, mode=self.mode, **options).clamp(0.0, 1.0)
        if self.crop is not None:
            top, left = ((side - cut) // 2 for side, cut in zip(rows.shape[-2:], self.crop, strict=True))
            rows = rows[..., top : top + self.crop[0], left : left + self.crop[1]]
            if tuple(rows.shape[-2:]) != self.crop:
                raise InputError(f"{self.where} crops images to {self.crop}, and they have {size}")
        return (rows - self.mean) / self.std

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.edge is None:
            return self.size or (height, width)
        short = min(height, width)
        return (
            self.edge if height == short else int(self.edge * height / short),
            self.edge if width == short else int(self.edge * width / short),
        )


def _resize(processor: Any, where: str) -> tuple[int | None, tuple[int, int] | None]:
    """The shortest edge, or the height and width, to resize to."""
    if not _said(processor, "do_resize", True):
        return None, None
    size = dict(_said(processor, "size", {}))
    if size.keys() == {"height", "width"}:
        return None, (int(size["height"]), int(size["width"]))
    if size.keys() == {"shortest_edge"}:
        edge, part = int(size["shortest_edge"]), _said(processor, "crop_pct", None)
        if part is None:
            return edge, None
        return (int(edge / part), None) if edge < _NO_CROP_FROM else (None, (edge, edge))
    raise InputError(f"{where}: its image processor resizes to {size}, expected height and width or the shortest edge")


def _crop(processor: Any) -> tuple[int, int] | None:
    if _said(processor, "crop_pct", None) is not None:
        edge = int(dict(processor.size)["shortest_edge"])
        return (edge, edge) if edge < _NO_CROP_FROM else None
    if not _said(processor, "do_center_crop", False):
        return None
    size = dict(processor.crop_size)
    return int(size["height"]), int(size["width"])


def _said(processor: Any, name: str, default: Any) -> Any:
    value = getattr(processor, name, None)
    return default if value is None else value
