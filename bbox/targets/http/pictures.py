"""Rows of pixels as servers take them: arrays in another layout and range, or PNG and JPEG in base64."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bbox.errors import InputError

__all__ = ["LAYOUTS", "RANGES", "base64_picture", "laid_out"]

LAYOUTS = ("chw", "hwc", "flat")
RANGES = {"0-1": 1.0, "0-255": 255.0}


def laid_out(rows: Tensor, layout: str, span: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Pixels as an array. Integers are the nearest ones.

    Shapes:
        rows: (n, channels, height, width) in [0, 1].
        returns: as they are (``chw``), (n, height, width, channels) (``hwc``) or (n, features) (``flat``).
    """
    array = rows.detach().cpu().numpy()
    if layout == "hwc":
        if array.ndim != 4:
            raise InputError(f"rows have shape {array.shape[1:]}, and layout=hwc takes (channels, height, width)")
        array = array.transpose(0, 2, 3, 1)
    elif layout == "flat":
        array = array.reshape(len(array), -1)
    if RANGES[span] != 1.0:
        array = array * RANGES[span]
    if dtype.kind in "iub":
        array = np.rint(array)
    return np.ascontiguousarray(array, dtype=dtype)


def base64_picture(row: Tensor, form: str, *, quality: int, data_uri: bool) -> str:
    """One image, rounded to 8 bits, as PNG or JPEG in base64.

    Shapes:
        row: (1 or 3, height, width) in [0, 1].

    Raises:
        InputError: it has another number of channels.
    """
    if row.ndim != 3 or row.shape[0] not in (1, 3):
        raise InputError(f"a picture of shape {tuple(row.shape)} cannot be a {form}, expected (1 or 3, height, width)")
    levels = np.rint(row.detach().cpu().numpy() * 255).clip(0, 255).astype(np.uint8)
    pixels = levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form.upper(), **({"quality": quality} if form == "jpeg" else {}))
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form};base64,{text}" if data_uri else text
