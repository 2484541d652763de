"""Rows of either kind, images in a tensor or programs in a list, handled alike by oracle, books and engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from bbox.code.program import Programs
from bbox.errors import InternalError

__all__ = ["Batch", "images", "join", "pick", "put"]

Batch: TypeAlias = Tensor | Programs
_B = TypeVar("_B", bound=Batch)


def images(rows: Batch) -> Tensor:
    """These rows, for what only images can be asked of.

    Raises:
        InternalError: they are programs.
    """
    if isinstance(rows, Programs):
        raise InternalError("programs were given where only images can be taken")
    return rows


def join(parts: Sequence[Batch]) -> Batch:
    """Several batches of one kind after another."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Programs):
        return Programs.cat(cast("Sequence[Programs]", parts))
    return torch.cat(cast("list[Tensor]", parts))


def pick(rows: _B, index: Tensor) -> _B:
    """The rows at these places. Shapes: index (k,) int64 on any device."""
    if isinstance(rows, Programs):
        return cast("_B", rows[index])
    return cast("_B", torch.index_select(rows, 0, index.to(rows.device)))


def put(rows: _B, index: Tensor, new: _B) -> None:
    """Replace the rows at these places by ``new``, in place. Shapes: index (k,) int64 on any device."""
    if isinstance(rows, Programs):
        rows.put(index, cast("Programs", new))
    else:
        rows.index_copy_(0, index.to(rows.device), cast("Tensor", new))
