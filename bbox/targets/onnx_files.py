"""What an ONNX file refers to outside of itself. Read from the file's bytes, before any runtime opens it.

An ONNX file is data, except that a tensor may name another file to be read in its place, and ONNX Runtime 1.22 reads it
wherever it lies. This walks the protobuf of ``onnx.proto`` far enough to find those names, in graphs, subgraphs and
functions, and skips all else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from bbox.errors import InputError

__all__ = ["onnx_digest"]

# Message kinds: the fields that lead to tensors, by number.
_PATHS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEPTH = 64  # subgraphs within subgraphs
_BLOCK = 2**20


def onnx_digest(path: Path) -> str:
    """SHA-256 of an ONNX file and of the files of weights that it names.

    Raises:
        InputError: it is no ONNX file, or names a file that is missing or lies outside of its own folder.
    """
    content = path.read_bytes()
    try:
        names = sorted(set(_locations(memoryview(content), "model")))
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not a readable ONNX file: {error}") from error
    total = hashlib.sha256(content)
    for name in names:
        with _inside(path, name).open("rb") as file:
            while block := file.read(_BLOCK):
                total.update(block)
    return total.hexdigest()


def _inside(path: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    found = path.parent / name
    # A model in a cache may be a link, with its weights beside what it links to.
    homes = (path.parent.resolve(), path.resolve().parent)
    within = any(found.resolve().is_relative_to(home) for home in homes)
    if pure.is_absolute() or PureWindowsPath(name).is_absolute() or ".." in pure.parts or not within:
        raise InputError(f"{path} names weights in {name!r}, outside of its folder, which is refused")
    if not found.is_file():
        raise InputError(f"{path} names weights in {name!r}, and there is no such file beside it")
    return found


def _locations(message: memoryview, kind: str, depth: int = 0) -> Iterator[str]:
    """The names of files that tensors in a message are kept in."""
    if depth > 4 * _DEPTH:
        raise ValueError("its graphs are nested too deeply")
    if kind == "entry":
        texts = {number: bytes(value).decode() for number, value in _fields(message)}
        if texts.get(1) == "location":
            yield texts.get(2, "")
        return
    for number, value in _fields(message):
        if number in _PATHS[kind]:
            yield from _locations(value, _PATHS[kind][number], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a protobuf message: (number, content)."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            _, place = _varint(message, place)
            continue
        if wire == 2:
            size, place = _varint(message, place)
        else:
            size = {1: 8, 5: 4}.get(wire, -1)
        if size < 0 or place + size > len(message):
            raise ValueError("it is cut off or is no protobuf")
        if wire == 2:
            yield tag >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("it is cut off or is no protobuf")
