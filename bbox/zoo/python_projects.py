"""Real victims for code: which project wrote this function, and which module of the standard library.

Both are trained when they are loaded, from the Python that is installed with bbox (``bbox.zoo.python_code``), so
nothing is downloaded or shipped. What is installed decides the corpus: another version of a package gives another
model, and its fingerprint says so. They show how names carry a decision; they say nothing about defects or clones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from bbox.code.program import Program, Programs
from bbox.data.base import CodeSet
from bbox.errors import UsageError
from bbox.targets.code.base import CodeTarget
from bbox.zoo.python_code import Function, functions_of, shuffled_files

__all__ = [
    "MODULES",
    "PROJECTS",
    "Split",
    "load_python_modules_data",
    "load_python_modules_model",
    "load_python_projects_data",
    "load_python_projects_model",
    "split_modules",
    "split_projects",
]

PROJECTS = ("matplotlib", "networkx", "stdlib", "sympy", "torch", "transformers")
# Those that Python 3.11 to 3.14 have and that hold enough functions.
MODULES = (
    *("argparse", "ast", "asyncio", "collections", "configparser", "doctest", "email", "http", "importlib", "inspect"),
    *("ipaddress", "logging", "mailbox", "multiprocessing", "optparse", "pathlib", "pdb", "pickle", "pydoc", "ssl"),
    *("tarfile", "threading", "typing", "unittest", "urllib", "xml", "xmlrpc", "zipfile"),
)
_PROJECT_SIZES = (1300, 100)  # functions of each class: at most to train on, and held out
_MODULE_SIZES = (90, 15)


@dataclass(frozen=True)
class Split:
    """Functions by class: to train on, and held out; no function is in both."""

    classes: tuple[str, ...]
    training: tuple[tuple[Function, int], ...]
    held_out: tuple[tuple[Function, int], ...]


@cache
def split_projects(training: int = _PROJECT_SIZES[0], held_out: int = _PROJECT_SIZES[1]) -> Split:
    """Functions of ``PROJECTS``. A held-out function and one to train on are never of the same file.

    Args:
        training, held_out: functions of each project, at most.
    """
    train: list[tuple[Function, int]] = []
    kept: list[tuple[Function, int]] = []
    for label, project in enumerate(PROJECTS):
        seen: set[str] = set()
        first: list[Function] = []
        rest: list[Function] = []
        for name, path in shuffled_files(project):
            if len(rest) >= training:
                break
            into = first if len(first) < held_out else rest
            for function in functions_of(f"{project}/{name}", path):
                if function.code not in seen:
                    seen.add(function.code)
                    into.append(function)
        kept += [(function, label) for function in first[:held_out]]
        train += [(function, label) for function in rest[:training]]
    return Split(PROJECTS, tuple(train), tuple(kept))


@cache
def split_modules() -> Split:
    """Functions of ``MODULES``, at most 90 of each to train on and 15 held out, by function rather than by file.

    As in authorship attribution, an author is known by other work of the same hand.
    """
    found: dict[str, dict[str, Function]] = {module: {} for module in MODULES}
    for name, path in shuffled_files("stdlib"):
        module = name.split("/")[0].removesuffix(".py")
        if module in found:
            for function in functions_of(name, path):
                found[module].setdefault(function.code, function)
    most, few = _MODULE_SIZES
    train: list[tuple[Function, int]] = []
    kept: list[tuple[Function, int]] = []
    for label, module in enumerate(MODULES):
        drawn = sorted(found[module].values(), key=_rank)
        kept += [(function, label) for function in drawn[:few]]
        train += [(function, label) for function in drawn[few : few + most]]
    return Split(MODULES, tuple(train), tuple(kept))


@cache
def load_python_projects_model() -> CodeTarget:
    """TF-IDF over tokens (1- and 2-grams) and logistic regression, trained on 7,800 functions in about 10 s.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    tokens = {"token_pattern": r"\w+|[^\w\s]", "ngram_range": (1, 2), "min_df": 3}
    return _trained("zoo:python-projects", split_projects(), tokens, strength=10.0)


@cache
def load_python_modules_model() -> CodeTarget:
    """TF-IDF over characters (2- to 4-grams) and logistic regression, trained on some 2,200 functions.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    characters = {"analyzer": "char", "ngram_range": (2, 4), "max_features": 30_000}
    return _trained("zoo:python-modules", split_modules(), characters, strength=30.0)


def load_python_projects_data() -> CodeSet:
    """600 functions, 100 of each project, that ``zoo:python-projects`` was not trained on, shuffled."""
    return _data("zoo:python-projects", split_projects())


def load_python_modules_data() -> CodeSet:
    """420 functions, 15 of each module, that ``zoo:python-modules`` was not trained on, shuffled."""
    return _data("zoo:python-modules", split_modules())


def _trained(name: str, split: Split, features: Mapping[str, Any], *, strength: float) -> CodeTarget:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise UsageError(f"{name} needs a package: pip install 'bbox-toolkit[code]'") from error
    from bbox.targets.code.callables import wrap

    pipeline = make_pipeline(
        TfidfVectorizer(lowercase=False, sublinear_tf=True, **features),
        LogisticRegression(C=strength, tol=1e-3),
    )
    codes = [function.code for function, _ in split.training]
    pipeline.fit(codes, [label for _, label in split.training])
    read = hashlib.sha256("\0".join(codes).encode()).hexdigest()
    return wrap(pipeline, name=name, classes=split.classes, language="python", version=read)


def _data(name: str, split: Split) -> CodeSet:
    order = sorted(split.held_out, key=lambda example: _rank(example[0]))
    return CodeSet(
        name=name,
        inputs=Programs(Program(function.code, "python") for function, _ in order),
        labels=torch.tensor([label for _, label in order]),
        indices=torch.arange(len(order)),
        ids=_ids([f"{function.file}:{function.name}" for function, _ in order]),
        class_names=split.classes,
    )


def _ids(names: Sequence[str]) -> tuple[str, ...]:
    """Names made unique: two classes of a file may have methods of one name."""
    count: dict[str, int] = {}
    unique = []
    for name in names:
        count[name] = count.get(name, 0) + 1
        unique.append(name if count[name] == 1 else f"{name}#{count[name]}")
    return tuple(unique)


def _rank(function: Function) -> bytes:
    return hashlib.sha256(function.code.encode()).digest()
