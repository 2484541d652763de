"""Whether a target can take the data, asked once before anything is spent."""

from __future__ import annotations

from bbox.data.base import Dataset
from bbox.errors import InputError, TargetError
from bbox.oracle import Oracle, Purpose

__all__ = ["check_fits"]


def check_fits(oracle: Oracle, data: Dataset, purpose: Purpose = "probe") -> int | None:
    """Compare shapes, ask the target the first image, and learn the number of classes.

    Queries: 1.

    Raises:
        InputError: the target takes images of another shape, or (where it runs on this machine) fails on one.
        TargetError: the target is out of reach.
    """
    target, shape = oracle.target, tuple(data.inputs.shape[1:])
    if target.input_shape is not None and tuple(target.input_shape) != shape:
        raise InputError(
            f"{target.name} takes images of shape {tuple(target.input_shape)}, {data.name} has {shape}"
            + ("; give --image-size" if target.input_shape[0] == shape[0] else "")
        )
    try:
        answers = oracle.ask(data.inputs[:1], purpose)
    except TargetError as error:
        if target.in_process:
            raise InputError(str(error)) from error
        raise
    return target.num_classes if answers.scores is None else answers.scores.shape[1]
