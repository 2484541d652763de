"""A program as an example, and a batch of programs as the rows that a target is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

__all__ = ["Program", "Programs"]


@dataclass(frozen=True, slots=True)
class Program:
    """One example of code.

    Attributes:
        code: the source text; what an attack renames in.
        language: one of ``bbox.code.languages.LANGUAGES``.
        partner: the second program of a pair (clone detection), which stays as it is; ``None`` for a single program.
    """

    code: str
    language: str
    partner: str | None = None


class Programs:
    """A batch of programs, indexed like a tensor of shape (n,): what code targets are asked instead of pixels.

    Example:
        >>> batch = Programs([Program("a = 1", "python"), Program("b = 2", "python")])
        >>> batch[torch.tensor([1, 1])].codes()
        ['b = 2', 'b = 2']
    """

    device = torch.device("cpu")

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = list(programs)

    @staticmethod
    def cat(batches: Iterable[Programs]) -> Programs:
        """One batch of several, in order."""
        return Programs(program for batch in batches for program in batch)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._programs),)

    def __len__(self) -> int:
        return len(self._programs)

    def __iter__(self) -> Iterator[Program]:
        return iter(self._programs)

    @overload
    def __getitem__(self, index: int) -> Program: ...
    @overload
    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Programs: ...
    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Program | Programs:
        if isinstance(index, int):
            return self._programs[index]
        if isinstance(index, slice):
            return Programs(self._programs[index])
        places = index.tolist() if isinstance(index, Tensor) else index
        return Programs(self._programs[place] for place in places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Programs) and self._programs == other._programs

    __hash__ = None  # type: ignore[assignment]

    def codes(self) -> list[str]:
        """The source texts."""
        return [program.code for program in self._programs]

    def clone(self) -> Programs:
        return Programs(self._programs)

    def put(self, index: Tensor, rows: Programs) -> None:
        """Replace the programs at these places, (k,) int64, by ``rows``, in place."""
        for place, program in zip(index.tolist(), rows, strict=True):
            self._programs[place] = program
