"""The kinds of target and how a spec is read. Nothing heavy is imported here."""

from __future__ import annotations

import re
from pathlib import Path

from bbox.errors import InputError, UsageError
from bbox.registry import Entry, Registry, did_you_mean

__all__ = ["KINDS", "split_spec"]

KINDS = Registry(
    "target kind",
    "bbox.targets",
    {
        "zoo": Entry("bbox.targets.zoo:load", "zoo:NAME, a model that comes with bbox"),
        "torch": Entry("bbox.targets.torch_factory:load", "torch:PACKAGE.MODULE:FACTORY, a torch module"),
        "pt2": Entry("bbox.targets.exported:load", "pt2:PATH, an archive of torch.export.save"),
        "torchvision": Entry(
            "bbox.targets.torchvision_model:load",
            "torchvision:NAME with weights=PATH, a torchvision classifier",
        ),
        "onnx": Entry(
            "bbox.targets.onnx_model:load",
            "onnx:PATH, an ONNX file, run by ONNX Runtime",
            needs="bbox-toolkit[onnx]",
        ),
        "sklearn": Entry(
            "bbox.targets.sklearn_model:load",
            "sklearn:PATH.skops, a classifier of scikit-learn (.joblib and .pkl need --trust)",
            needs="bbox-toolkit[sklearn]",
        ),
        "hf": Entry(
            "bbox.targets.hf:load",
            "hf:PATH_OR_ID, a classifier of images or of source code that transformers has saved",
        ),
        "clip": Entry(
            "bbox.targets.clip:load",
            "clip:PATH_OR_ID with classes=..., a zero-shot classifier of transformers",
        ),
        "hf-code": Entry(
            "bbox.targets.code.hf:load",
            "hf-code:PATH_OR_ID, a classifier of source code that transformers has saved",
        ),
        "code": Entry(
            "bbox.targets.code.user_code:load",
            "code:PACKAGE.MODULE:NAME, any classifier of source code, or code:FILE.joblib (needs --trust)",
        ),
        "magika": Entry(
            "bbox.targets.code.magika:load",
            "magika:raw or magika:policy, Google's classifier of file types as it ships",
            needs="bbox-toolkit[magika]",
        ),
        "credsweeper": Entry(
            "bbox.targets.code.credsweeper:load",
            "credsweeper:medium, a scanner for hard-coded credentials as it ships",
            needs="bbox-toolkit[credsweeper]",
        ),
        "http": Entry(
            "bbox.targets.http.oip:load_http",
            "http://HOST:PORT/v2/models/NAME, a server of the Open Inference Protocol",
        ),
        "https": Entry("bbox.targets.http.oip:load_https", "https://HOST/v2/models/NAME, the same over TLS"),
        "api": Entry("bbox.targets.http.mapping:load", "api:FILE.toml, any JSON API that a mapping file describes"),
        "python": Entry("bbox.targets.callables:load", "python:PACKAGE.MODULE:FUNCTION, any callable"),
        "foolbox": Entry("bbox.targets.foolbox_model:load", "foolbox:PACKAGE.MODULE:FACTORY, a foolbox model"),
        "defended": Entry("bbox.defenses.bundle:load", "defended:RUN, a model inside what bbox defend has made"),
        "pickle": Entry("bbox.targets.pickled:load", "pickle:PATH, a pickled torch module (needs --trust)"),
    },
)

_ALONE = {"magika": "raw", "credsweeper": "medium"}  # what a kind means without a reference
_EXTENSIONS = {
    ".pt2": "pt2",
    ".onnx": "onnx",
    ".skops": "sklearn",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pt": "pickle",
    ".pth": "pickle",
}
_HINTS = {
    ".safetensors": "holds weights only; use torchvision:NAME with weights=PATH, or torch:module:factory",
    ".py": "is Python source; use torch:module:factory or python:module:function",
}


def split_spec(spec: str) -> tuple[str, str]:
    """A spec as (kind, reference).

    Raises:
        UsageError: no kind can be told from the spec, or two can.
        InputError: a file whose extension no kind reads.
    """
    prefix, colon, reference = spec.partition(":")
    if spec in _ALONE and not Path(spec).exists():
        return spec, _ALONE[spec]
    if colon and prefix in KINDS.names():
        if not reference:
            raise UsageError(f"target {spec!r} ends after its kind; expected {KINDS.entry(prefix).summary}")
        if Path(spec).exists():
            raise UsageError(f"target {spec!r} is ambiguous: a file has that very name; write ./{spec} for it")
        return prefix, reference
    path = Path(spec)
    if path.suffix.lower() in _EXTENSIONS:
        return _EXTENSIONS[path.suffix.lower()], spec
    if path.suffix.lower() in _HINTS and (not colon or path.exists()):
        raise InputError(f"{spec} {_HINTS[path.suffix.lower()]}")
    kinds = ", ".join(f"{name}:" for name in KINDS.names())
    if colon and re.fullmatch(r"\w+", prefix):
        near = did_you_mean(prefix, KINDS.names()) or ";"
        raise UsageError(f"unknown target kind {prefix!r} in {spec!r}{near} kinds are {kinds} or a .pt2 file")
    if spec and path.exists():
        raise InputError(f"{spec}: no target kind reads this; give a .pt2 file, or a kind: {kinds}")
    raise UsageError(f"target {spec!r} has no kind{_near_zoo(spec)} kinds are {kinds} or a .pt2 file")


def _near_zoo(name: str) -> str:
    from bbox.zoo import TARGETS

    if not name:
        return ";"
    if name in TARGETS:
        return f"; did you mean 'zoo:{name}'?"
    return did_you_mean(f"zoo:{name}", [f"zoo:{known}" for known in TARGETS]) or ";"
