"""The Open Inference Protocol V2 with its binary tensor extension: bytes to rows, answers to bytes. No server here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.batch import Batch
from bbox.code.languages import LANGUAGES
from bbox.code.program import Program, Programs
from bbox.targets.http.tensors import LENGTH, bytes_to_texts, head_size

__all__ = ["Infer", "RefusedError", "Signature", "read_infer", "write_answer"]

_FLOATS: dict[str, Any] = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


class RefusedError(Exception):
    """A request that breaks the protocol or does not fit the model; its text is the error that the client gets."""


@dataclass(frozen=True)
class Signature:
    """What the model takes and answers.

    Attributes:
        takes: ``"images"``, ``"motion"`` or ``"code"``.
        input: the shape of the input, -1 for what is open.
        output: ``"scores"`` or ``"labels"``.
        classes: their number, -1 where it is not known.
        pairs: whether a row of code is a pair of programs.
        language: the one language of code that it reads, ``None`` where any goes.
    """

    takes: str
    input: tuple[int, ...]
    output: str
    classes: int
    pairs: bool = False
    language: str | None = None

    def inputs(self) -> list[dict[str, Any]]:
        """As model metadata say it."""
        datatype = "BYTES" if self.takes == "code" else "FP32"
        return [{"name": "input", "datatype": datatype, "shape": list(self.input)}]

    def outputs(self) -> list[dict[str, Any]]:
        """As model metadata say it."""
        if self.output == "labels":
            return [{"name": "labels", "datatype": "INT64", "shape": [-1]}]
        return [{"name": "scores", "datatype": "FP32", "shape": [-1, self.classes]}]


@dataclass(frozen=True)
class Infer:
    """One request to infer, read.

    Attributes:
        rows: what to ask the model.
        id: what the client calls the request, sent back.
        binary: whether the output goes back as bytes behind the JSON.
    """

    rows: Batch
    id: str | None
    binary: bool


def read_infer(body: bytes, header_length: str | None, model: Signature) -> Infer:
    """Read a request.

    Raises:
        RefusedError: it is no request of the protocol, or its input does not fit the model.
    """
    head, rest = _split(body, header_length)
    request = _object(head, "the request")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        count = len(inputs) if isinstance(inputs, list) else "none"
        raise RefusedError(f"expected one input named 'input', got {count}")
    given = _mapping(inputs[0], "the input")
    if given.get("name") != "input":
        raise RefusedError(f"no input {given.get('name')!r}; the model's input is 'input'")
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise RefusedError(f"the input's shape is {shape!r}, expected a list of whole numbers")
    fits = len(shape) == len(model.input) and all(x in (-1, y) for x, y in zip(model.input, shape, strict=True))
    if not fits or shape[0] == 0:
        raise RefusedError(f"the input's shape is {shape}, expected {list(model.input)} with at least one row")
    parameters = _mapping(given.get("parameters", {}), "the input's parameters")
    both = {**_mapping(request.get("parameters", {}), "the request's parameters"), **parameters}
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size != len(rest)):
        raise RefusedError(f"binary_data_size is {size!r}, and {len(rest)} bytes follow the JSON")
    raw = rest if size is not None else None
    rows: Batch = _programs(given, raw, both, model) if model.takes == "code" else _numbers(given, raw, shape)
    name = request.get("id")
    if name is not None and not isinstance(name, str):
        raise RefusedError(f"the request's id is {name!r}, expected text")
    return Infer(rows, name, _wants_binary(request, both, model))


def write_answer(answer: Tensor, model: Signature, *, name: str, infer: Infer) -> tuple[bytes, dict[str, str]]:
    """The body of an answer, and its headers. Scores that are no numbers (refused rows) are null in JSON."""
    kind = model.outputs()[0]
    plain: NDArray[Any] = answer.numpy().astype("<i8" if kind["datatype"] == "INT64" else "<f4")
    output = {"name": kind["name"], "datatype": kind["datatype"], "shape": list(plain.shape)}
    response: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": [output]}
    if infer.id is not None:
        response["id"] = infer.id
    if not infer.binary:
        flat = plain.ravel()
        data = flat.tolist()
        if plain.dtype.kind == "f" and not np.isfinite(flat).all():
            data = [value if np.isfinite(value) else None for value in data]
        return json.dumps({**response, "outputs": [{**output, "data": data}]}).encode(), _json()
    raw = plain.tobytes()
    output["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(response).encode()
    return head + raw, {"content-type": "application/octet-stream", LENGTH: str(len(head))}


def _json() -> dict[str, str]:
    return {"content-type": "application/json"}


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    try:
        size = head_size(header_length, body)
    except ValueError as error:
        raise RefusedError(f"{LENGTH} is {header_length[:40]!r}, and the body has {len(body)} bytes") from error
    return body[:size], body[size:]


def _object(text: bytes, what: str) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(text), what)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{what} is not JSON: {' '.join(str(error).split())[:200]}") from error


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RefusedError(f"{what} is a {type(value).__name__}, expected an object")
    return value


def _numbers(given: Mapping[str, Any], raw: bytes | None, shape: list[int]) -> Tensor:
    datatype = given.get("datatype")
    if not isinstance(datatype, str) or datatype not in _FLOATS:
        raise RefusedError(f"the input's datatype is {datatype!r}, expected FP32")
    try:
        values = np.asarray(given.get("data"), np.float32) if raw is None else np.frombuffer(raw, _FLOATS[datatype])
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RefusedError(f"the input's data are not {datatype} numbers: {reason}") from error
    if values.size != np.prod(shape):
        raise RefusedError(f"the input holds {values.size} numbers, and its shape {shape} asks for {np.prod(shape)}")
    if not np.isfinite(values).all():
        raise RefusedError("the input holds values that are not finite (NaN or infinite)")
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def _programs(given: Mapping[str, Any], raw: bytes | None, parameters: Mapping[str, Any], model: Signature) -> Programs:
    if given.get("datatype") != "BYTES":
        raise RefusedError(f"the input's datatype is {given.get('datatype')!r}, expected BYTES: source code as text")
    language = parameters.get("language", model.language)
    if not isinstance(language, str) or language not in LANGUAGES:
        raise RefusedError(f"the parameter language is {language!r}, expected one of {', '.join(LANGUAGES)}")
    texts = _flat(given.get("data")) if raw is None else _texts(raw)
    if any(not isinstance(text, str) for text in texts):
        raise RefusedError("the input's data are not all text")
    wide = 2 if model.pairs else 1
    if len(texts) != wide * given["shape"][0]:
        raise RefusedError(f"the input holds {len(texts)} texts, and its shape is {given['shape']}")
    partners = texts[1::2] if model.pairs else [None] * len(texts)
    return Programs(Program(code, language, partner) for code, partner in zip(texts[::wide], partners, strict=True))


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise RefusedError("the input has no data")
    return [text for part in data for text in (part if isinstance(part, list) else [part])]


def _texts(raw: bytes) -> list[str]:
    try:
        return bytes_to_texts(raw)
    except UnicodeDecodeError as error:
        raise RefusedError("the input's bytes are not UTF-8 text") from error
    except ValueError as error:
        raise RefusedError("the input's bytes end within a text") from error


def _wants_binary(request: Mapping[str, Any], parameters: Mapping[str, Any], model: Signature) -> bool:
    binary = parameters.get("binary_data_output", False)
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list):
        raise RefusedError(f"outputs is a {type(outputs).__name__}, expected a list")
    for wanted in outputs:
        asked = _mapping(wanted, "an output")
        if asked.get("name") != model.output:
            raise RefusedError(f"no output {asked.get('name')!r}; the model's output is {model.output!r}")
        binary = _mapping(asked.get("parameters", {}), "an output's parameters").get("binary_data", binary)
    return bool(binary)
