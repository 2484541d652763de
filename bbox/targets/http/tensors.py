"""Tensors of the Open Inference Protocol, in JSON and in its binary extension.

Protocol: https://github.com/kserve/open-inference-protocol; the extension: Triton's ``extension_binary_data``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

__all__ = [
    "LENGTH",
    "NUMPY",
    "ProtocolError",
    "array_of",
    "bytes_to_texts",
    "head_size",
    "pack",
    "split_reply",
    "texts_to_bytes",
]

LENGTH = "Inference-Header-Content-Length"
NUMPY = {
    "BOOL": "?",
    **{f"{sign}INT{bits}": f"<{kind}{bits // 8}" for bits in (8, 16, 32, 64) for sign, kind in (("", "i"), ("U", "u"))},
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


class ProtocolError(Exception):
    """A reply that breaks the protocol; its text goes on after the server's name."""


def pack(request: Mapping[str, Any], raw: bytes | None) -> tuple[bytes, dict[str, str]]:
    """A request as body and headers; ``raw`` is the data of its one input, ``None`` where they stand in the JSON, as a
    list or as an array of numpy."""
    head = orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)  # 20 times faster than json
    if raw is None:
        return head, {"Content-Type": "application/json"}
    return b"".join((head, raw)), {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}


def head_size(length: str, body: bytes) -> int:
    """The bytes of JSON before the tensors, as the header ``LENGTH`` says.

    Raises:
        ValueError: it is no number of bytes within the body.
    """
    # int() takes neither "²", which is a digit, nor thousands of figures.
    if not length.isdecimal() or len(length) > 18 or int(length) > len(body):
        raise ValueError("no number of bytes within the body")
    return int(length)


def split_reply(body: bytes, length: str | None) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    """A reply as its JSON and the bytes of each binary output.

    Raises:
        ProtocolError: it is no reply of the protocol.
    """
    size = len(body)
    if length is not None:
        try:
            size = head_size(length, body)
        except ValueError as error:
            raise ProtocolError(f"answers {LENGTH}: {length[:40]} before {size} bytes") from error
    try:
        reply = json.loads(body[:size])
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"answers what is no JSON: {_shown(body[:size])}") from error
    outputs = reply.get("outputs") if isinstance(reply, dict) else None
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise ProtocolError(f"answers JSON without outputs: {_shown(body[:size])}")
    raw: dict[str, bytes] = {}
    place = size
    for output in outputs:
        parameters = output.get("parameters")
        wide = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if wide is None:
            continue
        if not isinstance(wide, int) or not 0 <= wide <= len(body) - place:
            raise ProtocolError(f"answers binary_data_size {wide}, and {len(body) - place} bytes are left")
        raw[str(output.get("name"))] = body[place : place + wide]
        place += wide
    return reply, raw


def array_of(output: Mapping[str, Any], raw: bytes | None) -> NDArray[Any]:
    """The data of one output in its shape; ``BYTES`` as an array of str. A ``null`` among floats is NaN.

    Raises:
        ProtocolError: datatype, shape and data do not agree.
    """
    datatype, shape = output.get("datatype"), output.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ProtocolError(f"answers an output of shape {str(shape)[:60]}")
    if datatype != "BYTES" and datatype not in NUMPY:
        raise ProtocolError(f"answers the datatype {str(datatype)[:20]!r}, which is not known")
    try:
        if datatype == "BYTES":
            items = bytes_to_texts(raw) if raw is not None else np.asarray(output.get("data"), dtype=object).reshape(-1)
            array = np.array([str(item) for item in items], dtype=object)
        elif raw is not None:
            array = np.frombuffer(raw, NUMPY[datatype])
        else:
            array = np.asarray(output.get("data"), dtype=NUMPY[datatype])
        return array.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ProtocolError(f"answers data that are no {datatype} of shape {shape}: {reason}") from error


def texts_to_bytes(texts: Sequence[str]) -> bytes:
    """Elements of BYTES: each its length as 4 bytes, little-endian, and then UTF-8."""
    coded = [text.encode() for text in texts]
    return b"".join(part for each in coded for part in (len(each).to_bytes(4, "little"), each))


def bytes_to_texts(raw: bytes) -> list[str]:
    """The texts of ``texts_to_bytes``.

    Raises:
        ValueError: the bytes end within a text, or are not UTF-8 (``UnicodeDecodeError``).
    """
    texts, place = [], 0
    while place < len(raw):
        size = int.from_bytes(raw[place : place + 4], "little")
        part = raw[place + 4 : place + 4 + size]
        if len(part) != size:
            raise ValueError("the bytes end within a text")
        texts.append(part.decode())
        place += 4 + size
    return texts


def _shown(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())
