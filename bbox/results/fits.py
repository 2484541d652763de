"""Whether a target can take the data, asked once before anything is spent."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TypeVar

import torch

from bbox.data.base import Dataset, Examples
from bbox.errors import InputError, TargetError, UsageError
from bbox.oracle import Answers, Oracle, Purpose
from bbox.targets.base import Target

__all__ = ["check_fits", "check_kind", "match_classes", "only_images"]

_E = TypeVar("_E", bound=Examples)


def only_images(data: Examples) -> Dataset:
    """The data, for commands that take images alone.

    Raises:
        UsageError: it is code.
    """
    if not isinstance(data, Dataset):
        raise UsageError(f"{data.name} holds {data.kind}, images are needed here")
    return data


def match_classes(data: _E, target: Target) -> _E:
    """The data with its labels numbered as the target numbers its classes, where both name them.

    Raises:
        InputError: a class of the data is none of the target's.
    """
    names = target.class_names
    if names is None or data.class_names is None or data.labels is None or names == data.class_names:
        return data
    place = {name: number for number, name in enumerate(names)}
    used = [data.class_names[label] for label in sorted(set(data.labels.tolist()))]
    missing = [name for name in used if name not in place]
    if missing:
        known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise InputError(f"{data.name} has class {missing[0]!r}, which {target.name} does not know; it knows {known}")
    number = torch.tensor([place.get(name, -1) for name in data.class_names])
    return replace(data, labels=number[data.labels], class_names=names)


def check_kind(target: Target, data: Examples) -> None:
    """Refuse data that the target does not take: images for a target of code, programs for one of images.

    Raises:
        UsageError: as it says.
    """
    if not target.accepts(data.takes):
        raise UsageError(f"{target.name} takes {target.takes}, and {data.name} holds {data.kind}")


def check_fits(oracle: Oracle, data: Examples, purpose: Purpose = "probe") -> int | None:
    """Compare shapes, ask the target the first example, and learn the number of classes.

    A live target, and any with a query cache, is asked it again: one that then answers otherwise is no deterministic
    target, which is said, and its clean answers and verifications are votes from then on. One that refuses queries is
    not: it may refuse the repeat.

    Queries: 1, or 2.

    Raises:
        UsageError: the target takes another kind of input.
        InputError: the target takes images of another shape, or (where it runs on this machine) fails on one.
        TargetError: the target is out of reach.
    """
    target, shape = oracle.target, tuple(data.inputs.shape[1:])
    check_kind(target, data)
    if target.input_shape is not None and tuple(target.input_shape) != shape:
        raise InputError(
            f"{target.name} takes {data.kind} of shape {tuple(target.input_shape)}, {data.name} has {shape}"
            + ("; give --image-size" if target.input_shape[0] == shape[0] else "")
        )
    try:
        answers = oracle.ask(data.inputs[:1], purpose)
    except TargetError as error:
        if target.in_process:
            raise InputError(str(error)) from error
        raise
    steady = target.deterministic and not target.refuses  # a detector refuses repeats
    if steady and (not target.in_process or oracle.cache is not None):
        _check_repeats(oracle, data, answers, purpose)
    return target.num_classes if answers.scores is None else answers.scores.shape[1]


def _check_repeats(oracle: Oracle, data: Examples, first: Answers, purpose: Purpose) -> None:
    name, cache = oracle.target.name, oracle.cache
    rows = oracle.admissible(data.inputs[:1])
    if _differ(first, oracle.ask(rows, purpose)):
        oracle.target.deterministic = False
        hidden = "; the query cache hides that, and is wrong for it: leave --cache out" if cache is not None else ""
        warnings.warn(f"{name} answered the same row in two ways: it is not deterministic{hidden}", stacklevel=3)
    elif cache is not None:
        known = cache.find(cache.keys(rows, oracle.fingerprint)).values()
        kept = [Answers(torch.tensor([label]), None if s is None else s[None]) for label, s in known]
        if kept and _differ(first, kept[0]):
            warnings.warn(
                f"{name} answers otherwise than the query cache {cache.path} says: the model has changed, and the "
                "cache is wrong for it; delete it",
                stacklevel=3,
            )


def _differ(one: Answers, other: Answers) -> bool:
    """Whether two answers to one row are more than a rounding apart."""
    if one.scores is None or other.scores is None:
        return not torch.equal(one.labels, other.labels)
    return not torch.allclose(one.scores, other.scores, rtol=1e-3, atol=1e-4, equal_nan=True)
