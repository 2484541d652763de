"""One picture, read with clear refusals and written as an 8-bit PNG."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from bbox.errors import InputError

__all__ = ["IMAGE_EXTENSIONS", "open_image", "read_image", "save_image", "to_tensor"]

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def open_image(path: Path) -> Image.Image:
    """A picture as 8-bit RGB, or 8-bit grayscale where its file is grayscale.

    The EXIF orientation is applied. An alpha channel is dropped where it is opaque everywhere.

    Raises:
        InputError: missing, broken, transparent, animated, or of more than 8 bits a channel.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")) or any("16" in str(tile[3]) for tile in image.tile):
                    raise InputError(f"{path}: more than 8 bits a channel; convert it to an 8-bit picture")
                frames = getattr(image, "n_frames", 1)
                if frames > 1:
                    raise InputError(f"{path}: holds {frames} frames; save the one that you mean as a PNG")
                upright = ImageOps.exif_transpose(image)
                return _flat(upright, path)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: too many pixels ({error})") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: broken image ({reason})") from error


def _flat(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in ("L", "1"):
        return image.convert("L")
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A").getextrema()[0]
        if alpha != 255:
            raise InputError(f"{path}: has transparent pixels; flatten it onto a background first")
        return image.convert("L" if image.mode == "LA" else "RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit picture as float32 in [0, 1].

    Shapes:
        returns: (1 or 3, height, width).
    """
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    channels_first = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return channels_first.contiguous().to(torch.float32) / 255


def read_image(path: Path) -> Tensor:
    """A picture as float32 in [0, 1]; what ``save_image`` wrote comes back on the same 8-bit grid.

    Shapes:
        returns: (1 or 3, height, width).

    Raises:
        InputError: missing, broken, transparent, animated, or of more than 8 bits a channel.
    """
    return to_tensor(open_image(Path(path)))


def save_image(path: Path, array: Tensor | NDArray[np.floating]) -> None:
    """Write a picture as an 8-bit PNG, at once or not at all: values are rounded to the nearest of 256
    levels.

    Shapes:
        array: (1 or 3, height, width) in [0, 1].

    Raises:
        InputError: the array has another shape, or a value that is not finite or outside [0, 1].
    """
    path = Path(path)
    pixels = np.asarray(array.detach().cpu().numpy() if isinstance(array, Tensor) else array, dtype=np.float64)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.size == 0:
        raise InputError(f"{path}: picture has shape {pixels.shape}, expected (1 or 3, height, width)")
    if not np.isfinite(pixels).all():
        raise InputError(f"{path}: picture has a value that is not finite")
    if pixels.min() < 0.0 or pixels.max() > 1.0:
        raise InputError(f"{path}: pixels reach from {pixels.min():g} to {pixels.max():g}, expected [0, 1]")
    levels = np.rint(pixels * 255).astype(np.uint8)
    image = Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            image.save(file, format="PNG")
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
