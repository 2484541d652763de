"""The first rows of arrays in .npy and .npz files: what is not asked for is not read, however large the file."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bbox.errors import InputError

__all__ = ["ArrayFile"]

_FAULTS = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class ArrayFile:
    """The arrays of an .npz file, or the one of an .npy file under the name ``""``.

    Args:
        limit: read only so many rows of each array.

    Attributes:
        names: of the arrays.

    Raises:
        InputError: the file is not readable.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path = path
        self._limit = limit
        self.names: tuple[str, ...] = ("",)
        if path.suffix.lower() != ".npy":
            try:
                with zipfile.ZipFile(path) as archive:
                    self.names = tuple(name.removesuffix(".npy") for name in archive.namelist())
            except _FAULTS as error:
                raise InputError(f"{path}: not a readable .npz file ({error})") from error

    def pick(self, *names: str) -> NDArray[Any] | None:
        """The first rows of the one array that has one of these names, ``None`` where there is none.

        Raises:
            InputError: there are several, or it is cut off or holds Python objects.
        """
        found = [name for name in names if name in self.names]
        if len(found) > 1:
            raise InputError(f"{self.path} holds both {found[0]} and {found[1]}; keep one of them")
        return self._read(found[0]) if found else None

    def floats(self, *names: str) -> NDArray[np.float32]:
        """As ``pick``, of numbers that must be there."""
        array = self.pick(*names)
        if array is None:
            holds = ", ".join(self.names[:8]) or "nothing"
            raise InputError(f"{self.path} holds {holds}; expected motions under {' or '.join(names)}")
        if array.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: motions are {array.dtype}, expected numbers")
        return array.astype(np.float32, copy=False)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """As ``pick``, of words."""
        array = self.pick(name)
        if array is not None and (array.dtype.kind != "U" or array.ndim != 1):
            raise InputError(f"{self.path}: {name} is {array.shape} {array.dtype}, expected a row of texts")
        return None if array is None else tuple(array.tolist())

    def _read(self, name: str) -> NDArray[Any]:
        try:
            if not name:
                with self.path.open("rb") as file:
                    return _rows(file, self._limit)
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                return _rows(file, self._limit)
        except _FAULTS as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{self.path}: {name or 'its array'} is not readable ({reason})") from error


def _rows(file: IO[bytes], limit: int | None) -> NDArray[Any]:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects; save plain arrays of numbers")
    if fortran and len(shape) > 1:
        raise ValueError("its order is Fortran's; save it with numpy.ascontiguousarray")
    if shape and limit is not None:
        shape = (min(limit, shape[0]), *shape[1:])
    size = math.prod(shape) * dtype.itemsize
    content = bytearray()
    while len(content) < size:
        part = file.read(min(size - len(content), 1 << 24))
        if not part:
            raise ValueError(f"cut off after {len(content)} of {size} bytes")
        content += part
    return np.ndarray(shape, dtype, content)
