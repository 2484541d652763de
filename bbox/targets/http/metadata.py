"""A model's input and output, from its metadata and what the user chose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bbox.errors import UsageError
from bbox.registry import did_you_mean

__all__ = ["Signature", "read_signature"]


@dataclass(frozen=True)
class Signature:
    """How a model is asked.

    Attributes:
        input: the name of its input.
        output: the name of its output, ``None`` for the only one.
        datatype: of the input; BYTES for source code.
        layout: ``chw``, ``hwc`` or ``flat``.
        range: ``0-1`` or ``0-255``, the values of a pixel.
        pairs: whether a row of code is a pair.
        motion: whether a row is a motion: the input has five dimensions.
    """

    input: str
    output: str | None
    datatype: str = "FP32"
    layout: str = "chw"
    range: str = "0-1"
    pairs: bool = False
    motion: bool = False

    def ranged(self, given: str | None) -> Signature:
        """With the range given; else 0-255 for integers, 0-1 for floats."""
        return replace(self, range=given or ("0-255" if "INT" in self.datatype else "0-1"))


def read_signature(
    spec: str,
    about: Mapping[str, Any],
    input_name: str | None,
    output_name: str | None,
    datatype: str | None,
    layout: str | None,
) -> tuple[Signature, tuple[int, ...] | None, int | None]:
    """A signature, the shape of one image or motion where it is known, and the number of scores.

    Raises:
        UsageError: there are several inputs or outputs and none is chosen, or the chosen one is not there.
    """
    given = _choose(spec, "input", about, input_name)
    found = _choose(spec, "output", about, output_name)
    if not given:
        raise UsageError(f"{spec}: the server does not name the model's input; give input=NAME and output=NAME")
    datatype = datatype or str(given.get("datatype", "FP32"))
    sides = [side if type(side) is int and side > 0 else None for side in given.get("shape") or ()]
    if len(sides) in (2, 4, 5):
        sides = sides[1:]  # the batch
    if layout is None:
        colours_last = len(sides) == 3 and sides[2] in (1, 3) and sides[0] not in (1, 3)
        layout = "flat" if len(sides) == 1 else ("hwc" if colours_last else "chw")
    shape = None
    motion = len(sides) == 4 and layout == "chw"
    if len(sides) == (4 if motion else 3) and layout != "flat" and datatype != "BYTES":
        known = tuple(side for side in sides if side is not None)
        ordered = known if layout == "chw" else (*known[2:], *known[:2])
        shape = ordered if len(known) == len(sides) else None
    pairs = datatype == "BYTES" and bool(sides) and math.prod(side or 0 for side in sides) == 2
    outputs = list(found.get("shape") or ())
    scores = len(outputs) == 2 and str(found.get("datatype", "")).startswith("FP")
    width = outputs[1] if scores and type(outputs[1]) is int and outputs[1] > 1 else None
    signature = Signature(str(given["name"]), found.get("name"), datatype, layout, pairs=pairs, motion=motion)
    return signature, shape, width


def _choose(spec: str, what: str, about: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    tensors = about.get(f"{what}s")
    listed = {
        str(tensor["name"]): tensor
        for tensor in (tensors if isinstance(tensors, list) else ())
        if isinstance(tensor, dict) and "name" in tensor
    }
    if not listed:  # MLServer's runtimes say nothing unless model-settings.json does
        return {} if name is None else {"name": name}
    if name is not None and name not in listed:
        near = did_you_mean(name, listed) or ";"
        raise UsageError(f"{spec} has no {what} {name!r}{near} it has {', '.join(listed)}")
    if name is None and len(listed) > 1:
        raise UsageError(f"{spec} has the {what}s {', '.join(listed)}; choose one with {what}=NAME")
    return dict(listed[name or next(iter(listed))])
