"""``code:PACKAGE.MODULE:NAME``, a classifier of code in the user's own modules; or ``code:FILE.joblib``, a pipeline."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bbox.errors import InputError, UsageError
from bbox.options import read_option
from bbox.targets.code.base import CodeTarget
from bbox.targets.code.callables import CodeCallable
from bbox.targets.options import Options, literal
from bbox.targets.references import call_factory, find_reference, one_line

__all__ = ["load", "unpickled"]

_OPTIONS = ("classes", "access", "pairs", "language", "version", "num_classes")
_PICKLES = (".joblib", ".pkl", ".pickle")


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> CodeTarget:
    """Load an object of the user's, as ``bbox.targets.code.wrap`` takes it, or a factory that makes one.

    A classifier takes its programs as a required argument, so a function without one is a factory; so is a class, and a
    function that names one of the options as a parameter. Options are its own, and classes (names with commas),
    access, pairs, language, version and num_classes.

    A ``.joblib``, ``.pkl`` or ``.pickle`` file holds a scikit-learn pipeline over text, and is unpickled with ``trust``
    only, since that runs any code that was put in it.

    Raises:
        UsageError: no such module or name, nothing that classifies code, or an option is wrong.
        InputError: the module, the factory or the file fails, or the file needs ``trust``.
    """
    del device  # a callable does not say where its weights are
    spec = f"code:{reference}"
    if reference.endswith(_PICKLES):
        found, digest = unpickled(Path(reference), trust)
        described = _described(spec, options)
        return CodeCallable(found, name=spec, **{"version": digest, **described})
    found = find_reference("code", reference)
    mine: Mapping[str, object] = options
    if _is_factory(found, options):
        own = _parameters(found)
        mine = {name: value for name, value in options.items() if name in _OPTIONS and name not in own}
        theirs = {name: value for name, value in options.items() if name not in mine}
        found = call_factory(spec, found, theirs)
    described = _described(spec, mine)
    if isinstance(found, CodeTarget):
        for name in described:
            raise UsageError(f"{spec} makes a target already, which takes no {name}={mine[name]}")
        return found
    return CodeCallable(found, name=spec, **described)


def _is_factory(found: Any, options: Mapping[str, object]) -> bool:
    if isinstance(found, type):
        return True
    if not inspect.isroutine(found):
        return False  # an object that is there already: a pipeline, a wrapper
    required = [p for p in _parameters(found).values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return not required or any(name in options and name not in _OPTIONS for name in _parameters(found))


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a function of C says nothing; then it is taken for a classifier
        return {"programs": inspect.Parameter("programs", inspect.Parameter.POSITIONAL_ONLY)}


def _described(spec: str, options: Mapping[str, object]) -> dict[str, Any]:
    read = Options(spec, options, _OPTIONS)
    given: dict[str, Any] = {
        "access": read.choice("access", ("scores", "labels")),
        "language": read.text("language"),
        "version": read.text("version"),
        "num_classes": read.integer("num_classes"),
        "pairs": None if options.get("pairs") is None else read_option(f"{spec}: pairs", bool, options["pairs"]),
        "classes": _classes(options.get("classes")),
    }
    return {name: value for name, value in given.items() if value is not None}


def _classes(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, str) and given.startswith(("[", "(")):
        given = literal(given)  # a list that a bundle has kept as text
    names = given.split(",") if isinstance(given, str) else given
    return tuple(str(name).strip() for name in names)  # type: ignore[attr-defined]


def unpickled(path: Path, trust: bool) -> tuple[Any, str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not trust:
        raise InputError(
            f"{path} is a pickle, which runs any code that was put in it; pass --trust if you trust its origin, "
            "or give code:package.module:function that makes the pipeline"
        )
    warnings.warn(f"--trust: {path} is unpickled, which runs any code that was put in it", stacklevel=3)
    content = path.read_bytes()
    try:
        if path.suffix == ".joblib":
            import joblib

            found = joblib.load(path)
        else:
            found = pickle.loads(content)
    except ImportError as error:
        raise InputError(f"{path} needs a package that is not installed ({one_line(error)})") from error
    except Exception as error:
        raise InputError(f"{path} does not load: {one_line(error)}") from error
    return found, hashlib.sha256(content).hexdigest()
