"""The contract of a target that reads programs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from bbox.code.program import Program, Programs
from bbox.errors import InputError
from bbox.targets.base import Takes, Target

__all__ = ["CodeTarget"]


class CodeTarget(Target):
    """A classifier of programs, or of pairs of programs.

    Its answer to a program does not depend on the others in the batch, beyond the rounding of its arithmetic.

    Attributes:
        pairs: whether a row is a pair; then every program has a ``partner``.
        language: the one language that it reads, ``None`` where any goes.
    """

    takes: Takes = "code"
    pairs: bool = False
    language: str | None = None

    @abstractmethod
    def __call__(self, rows: Programs) -> Tensor:
        """Classify programs.

        Shapes:
            rows: n programs.
            returns: (n, classes) scores, or (n,) int64 labels where ``access`` is ``"labels"``.
        """

    def sources(self, rows: Programs) -> list[Any]:
        """What the model is given of each row: its source, or the sources (code, partner) of a pair.

        Raises:
            InputError: a row is no pair where the target reads pairs, or the reverse, or of another language.
        """
        return [self._source(program) for program in rows]

    def _source(self, program: Program) -> str | tuple[str, str]:
        if self.language is not None and program.language != self.language:
            raise InputError(f"{self.name} reads {self.language}, and the data hold {program.language}")
        if self.pairs:
            if program.partner is None:
                raise InputError(f"{self.name} reads pairs of programs, and the data hold single ones")
            return program.code, program.partner
        if program.partner is not None:
            raise InputError(f"{self.name} reads single programs, and the data hold pairs; give it pairs=true")
        return program.code
