"""Arrays in .npz, .npy and .safetensors files."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbox.data.base import Dataset
from bbox.data.labels_csv import read_label_column
from bbox.errors import InputError

__all__ = ["EXTENSIONS", "load_array"]

EXTENSIONS = frozenset({".npz", ".npy", ".safetensors"})

_INPUTS = ("inputs", "images", "x")
_LABELS = ("labels", "y")
_log = logging.getLogger(__name__)


def load_array(path: Path, *, labels: Path | None = None) -> Dataset:
    """Load images, and labels where they are there, from one file of arrays.

    An .npz or .safetensors file holds the images as ``inputs``, ``images`` or ``x`` and the labels as
    ``labels`` or ``y``; an .npy file holds images only. Bytes are divided by 255. Images are (examples,
    channels, height, width); channels in the last place are moved where only that place can be channels (1 or
    3), and a line in the log says so. (examples, height, width) is read as grayscale.

    Raises:
        InputError: missing, unreadable, pickled, of another shape or type, or labels that do not fit.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    arrays = _read(path)
    inputs = _images(path, _pick(path, arrays, _INPUTS))
    has_labels = any(name in arrays for name in _LABELS)
    if labels is not None:
        if has_labels:
            raise InputError(f"{path} has labels of its own; leave out {labels}")
        numbers: Tensor | None = _label_file(labels)
    else:
        numbers = _whole(path, _pick(path, arrays, _LABELS)) if has_labels else None
    return Dataset(
        name=str(path),
        inputs=inputs,
        labels=numbers,
        indices=torch.arange(len(inputs)),
        ids=tuple(str(place) for place in range(len(inputs))),
    )


def _read(path: Path) -> dict[str, Tensor]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # The file is opened here: numpy leaves its own open where it finds no array in it.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile) != (suffix == ".npz"):
                raise InputError(f"{path}: its content is not what {suffix} says; rename it")
            if suffix == ".npy":
                return {"inputs": _tensor(path, "inputs", loaded)}
            with loaded:
                wanted = [name for name in loaded.files if name in (*_INPUTS, *_LABELS)]
                if not wanted and loaded.files:
                    names = ", ".join(loaded.files[:5])
                    raise InputError(f"{path} holds {names}; expected images under {' or '.join(_INPUTS)}")
                return {name: _tensor(path, name, loaded[name]) for name in wanted}
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        if "allow_pickle" in reason:
            reason = "it holds Python objects; save plain numeric arrays"
        raise InputError(f"{path}: not a readable {suffix} file ({reason})") from error


def _tensor(path: Path, name: str, array: object) -> Tensor:
    try:
        plain = np.asarray(array)
        return torch.from_numpy(np.ascontiguousarray(plain, dtype=plain.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {name} is {getattr(array, 'dtype', type(array))}, expected numbers") from error


def _pick(path: Path, arrays: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    found = [name for name in names if name in arrays]
    if len(found) > 1:
        raise InputError(f"{path} holds both {found[0]} and {found[1]}; keep one of them")
    if not found:
        holds = ", ".join(list(arrays)[:5]) or "nothing"
        raise InputError(f"{path} holds {holds}; expected images under {' or '.join(names)}")
    return arrays[found[0]]


def _images(path: Path, images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        images = images.to(torch.float32) / 255
    elif images.is_floating_point():
        images = images.to(torch.float32)
    else:
        raise InputError(f"{path}: images are {images.dtype}, expected uint8, or floats in [0, 1]")
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        _log.warning("%s: read as (examples, height, width, channels)", path)
        return images.permute(0, 3, 1, 2).contiguous()
    return images.contiguous()


def _whole(path: Path, labels: Tensor) -> Tensor:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        hint = "; take the argmax of one-hot rows" if labels.ndim == 2 else ""
        raise InputError(
            f"{path}: labels are {tuple(labels.shape)} {labels.dtype}, expected one integer an image{hint}"
        )
    return labels.to(torch.int64)


def _label_file(path: Path) -> Tensor:
    if path.suffix.lower() == ".csv":
        return torch.tensor(read_label_column(path), dtype=torch.int64)
    if path.suffix.lower() != ".npy":
        raise InputError(f"labels {path}: expected a .npy or .csv file")
    if not path.is_file():
        raise InputError(f"labels {path}: no such file")
    return _whole(path, _read(path)["inputs"])
