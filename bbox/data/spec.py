"""How a data spec is read, and which file reads which kind."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.nn import functional

from bbox.data.arrays import EXTENSIONS, load_array
from bbox.data.base import CodeSet, Dataset, Examples, MotionSet
from bbox.data.code.load import load_code, looks_like_code
from bbox.data.coop import load_coop
from bbox.data.folder import load_folder
from bbox.data.foolbox_samples import load_samples
from bbox.data.motion.load import load_motion, looks_like_motion
from bbox.data.options import read_options
from bbox.errors import InputError, UsageError
from bbox.options import split_spec_options
from bbox.registry import Registry, did_you_mean

__all__ = ["load_data", "resize"]

_KINDS = ("zoo", "foolbox", "coop", "code", "motion")
_FORMS = (
    "zoo:NAME, foolbox:NAME, coop:FILE.json, code:PATH, motion:PATH, a folder of images, of source files, or of .bvh "
    "or .skeleton files, a .npz, .npy or .safetensors file, or a .jsonl, .csv or .txt of code"
)


def load_data(spec: str, *, size: int | None = None, labels: Path | None = None) -> Examples:
    """See ``bbox.data.load``."""
    if size is not None and (isinstance(size, bool) or size < 1):
        raise UsageError(f"image size is {size}, expected at least 1 pixel")
    prefix, colon, name = spec.partition(":")
    if colon and prefix in _KINDS:
        name, given = split_spec_options(name)
        if labels is not None:
            if prefix != "motion" or "labels" in given:
                raise UsageError(f"{spec} has labels of its own; leave out {labels}")
            given["labels"] = str(labels)
        loader = {"zoo": _zoo, "foolbox": _foolbox, "coop": _coop, "code": _code, "motion": _motion}[prefix]
        data: Examples = loader(name, size, given)
        return replace(data, name=spec) if given or prefix in ("code", "motion") else data
    path = Path(spec)
    if looks_like_motion(path):
        if labels is not None:
            raise UsageError(f"{spec} is motion, which has its labels within; leave out {labels}")
        return _motion(spec, size, {})
    if looks_like_code(path):
        if labels is not None:
            raise UsageError(f"{spec} is code, which has its labels within; leave out {labels}")
        return _code(spec, size, {})
    if path.is_dir():
        return load_folder(path, size=size, labels=labels)
    if path.suffix.lower() in EXTENSIONS:
        return resize(load_array(path, labels=labels), size)
    if path.exists():
        raise InputError(f"{spec}: not a kind of data that is read; expected {_FORMS}")
    if colon and re.fullmatch(r"\w+", prefix):
        near = did_you_mean(prefix, _KINDS) or ";"
        raise UsageError(f"unknown kind of data {prefix!r} in {spec!r}{near} expected {_FORMS}")
    raise InputError(f"{spec}: no such file or folder{_near_zoo(spec)} expected {_FORMS}")


def resize(data: Dataset, size: int | None) -> Dataset:
    """The same data at ``size`` by ``size`` pixels (bilinear, antialiased)."""
    if size is None or tuple(data.inputs.shape[-2:]) == (size, size):
        return data
    inputs = functional.interpolate(data.inputs, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return replace(data, inputs=inputs.clamp(0.0, 1.0))


def _zoo(name: str, size: int | None, given: Mapping[str, str]) -> Examples:
    from bbox.zoo import DATA

    loader = Registry("zoo data set", None, DATA).get(name)
    options = read_options(f"zoo:{name}", loader, given)
    if size is not None and "size" in inspect.signature(loader).parameters:
        options["size"] = size
    data = loader(**options)
    if isinstance(data, CodeSet | MotionSet):
        _refuse_size(f"zoo:{name}", "code" if isinstance(data, CodeSet) else "motion", size)
        return data
    if not isinstance(data, Dataset):
        raise UsageError(f"zoo:{name} loads a {type(data).__name__}, expected a Dataset, a CodeSet or a MotionSet")
    return resize(data, size)


def _foolbox(name: str, size: int | None, given: Mapping[str, str]) -> Dataset:
    read_options(f"foolbox:{name}", load_samples, given)
    return load_samples(name, size=size)


def _coop(name: str, size: int | None, given: Mapping[str, str]) -> Dataset:
    if not name:
        raise UsageError("'coop:' ends after its kind; expected coop:FILE.json")
    options: dict[str, Any] = read_options(f"coop:{name}", load_coop, given)
    return load_coop(Path(name), size=size, **options)


def _code(name: str, size: int | None, given: Mapping[str, str]) -> CodeSet:
    if not name:
        raise UsageError("'code:' ends after its kind; expected code:PATH")
    _refuse_size(name, "code", size)
    return load_code(Path(name), **given)  # type: ignore[arg-type]  # options are checked there


def _motion(name: str, size: int | None, given: Mapping[str, str]) -> MotionSet:
    if not name:
        raise UsageError("'motion:' ends after its kind; expected motion:PATH")
    _refuse_size(name, "motion", size)
    return load_motion(Path(name), **given)  # type: ignore[arg-type]  # options are checked there


def _refuse_size(spec: str, what: str, size: int | None) -> None:
    if size is not None:
        raise UsageError(f"{spec} is {what}, which has no image size; leave {size} out")


def _near_zoo(name: str) -> str:
    from bbox.zoo import DATA

    if name in DATA:
        return f"; did you mean 'zoo:{name}'?"
    return did_you_mean(f"zoo:{name}", [f"zoo:{known}" for known in DATA]) or ";"
