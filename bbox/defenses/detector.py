"""What stateful detectors share: they remember queries, and refuse those that look like part of an attack."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from bbox.defenses.base import Defense, Wrapped
from bbox.targets.base import REFUSED, Target

__all__ = ["Detector"]


class Detector(Wrapped):
    """A wrapped target that asks the inner one for the rows only that it does not refuse.

    Refused rows are answered NaN scores, or the label ``REFUSED``. State is one target's: it sees the queries of all
    users together. ``fresh`` gives a twin that remembers nothing.
    """

    def __init__(self, inner: Target, defense: Defense, *, name: str) -> None:
        super().__init__(inner, defense, name=name)
        self.refuses = True
        # What an answer looks like, for batches of which every row is refused: never the first that is answered.
        self._shape: tuple[int, ...] = () if self.access == "labels" else (self.num_classes or 1,)
        self._dtype = torch.int64 if self.access == "labels" else torch.float32

    @abstractmethod
    def judge(self, rows: Tensor) -> Tensor:
        """Which rows to refuse. Each is judged against all before it, in order, and remembered.

        Shapes: (n, *shape) -> (n,) bool on the rows' device.
        """

    @abstractmethod
    def undo(self) -> None:
        """Forget the rows of the last ``judge``."""

    @property
    @abstractmethod
    def remembered(self) -> int:
        """Queries in memory."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes that the memory takes now."""

    def __call__(self, rows: Tensor) -> Tensor:
        if len(rows) == 0:
            return self.inner(rows)
        served = (~self.judge(rows)).nonzero()[:, 0]
        if len(served):
            try:
                given = self.inner(rows if len(served) == len(rows) else rows[served])
            except BaseException:
                # Rows that were not answered will be asked again (a smaller batch, another try): no repeats yet.
                self.undo()
                raise
            self._shape, self._dtype = tuple(given.shape[1:]), given.dtype
            if len(served) == len(rows):
                return given
        blank = REFUSED if self.access == "labels" else torch.nan
        answers = torch.full((len(rows), *self._shape), blank, dtype=self._dtype, device=rows.device)
        return answers.index_copy_(0, served, given) if len(served) else answers

    def fresh(self) -> Target:
        return self.defense.wrap(self.inner.fresh())
