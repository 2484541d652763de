"""The domain of renaming attacks: every row means what its original means, and distance is the number of new names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.code.equivalence import compare
from bbox.code.program import Programs

__all__ = ["Renaming"]


@dataclass(frozen=True)
class Renaming:
    """Programs that differ from their original by safe renames alone (``bbox.code.equivalence``).

    Attributes:
        functions: whether what a program defines itself may be renamed as well: functions, methods, and variables of
            the module level (``bbox.code.site.site_of``).
    """

    functions: bool = False

    norm: ClassVar[str] = "names"

    def fault(self, rows: Programs) -> str | None:
        """Any text may be asked: a masked program measures, and one that is not equivalent has no finite distance."""
        del rows
        return None

    def distance(self, originals: Programs, rows: Programs) -> Tensor:
        """Number of renamed identifiers, inf where a row is not equivalent to its original. Shapes: (m,) float64."""
        verdicts = [compare(old, new, functions=self.functions) for old, new in zip(originals, rows, strict=True)]
        return torch.tensor([len(v.identifiers) if v.equivalent else torch.inf for v in verdicts], dtype=torch.float64)

    def rough_distance(self, originals: Programs, rows: Programs) -> Tensor:
        """A lower bound for screening, which costs nothing: 0. Shapes: (m,) float32."""
        del originals
        return torch.zeros(len(rows))
