"""The target contract: anything that classifies a batch of rows. No gradients, ever."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

Access = Literal["scores", "labels"]
Takes = Literal["images", "code", "motion"]

REFUSED = -2  # the label of a row that a target refused to answer (``Target.refuses``)


class Target(ABC):
    """A classifier as the oracle sees it.

    Attributes:
        name: what the user would type to load it again, for example ``zoo:digits``.
        takes: what one row is: an image, a program (then rows are ``bbox.code.Programs``), or a motion (axes, frames,
            joints, bodies; ``bbox.motion``).
        any_tensor: whether it passes any tensor on to a model of which it knows nothing, so that motions may be tried
            where it says images; the model's own answer to the first row decides.
        access: ``"scores"`` if the target answers (n, classes) scores, ``"labels"`` if it answers (n,) class
            indices.
        input_shape: the shape of one row (channels, height, width), ``None`` where any shape goes.
        num_classes: number of classes, ``None`` where the target does not say.
        class_names: their names by index, ``None`` where the target does not say; data with names is matched by them.
        device: where rows should lie.
        in_process: whether a forward runs on this machine (then the oracle may calibrate its batch size).
        deterministic: whether a row that is asked again gets the same answer.
        refuses: whether a row may go unanswered; the target then answers NaN scores, or the label ``REFUSED``.
        rows_per_query: rows that the innermost model computes for one query.
        concurrency: calls that may be under way at once, from threads of their own. More than one only where the
            answers come from elsewhere (a server) and calls do not share state.
        batch: rows that one call should hold at most; ``None`` where the oracle may choose.
    """

    name: str
    takes: Takes = "images"
    any_tensor: bool = False
    access: Access = "scores"
    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    device: torch.device = torch.device("cpu")
    in_process: bool = True
    deterministic: bool = True
    refuses: bool = False
    rows_per_query: int = 1
    concurrency: int = 1
    batch: int | None = None

    @abstractmethod
    def __call__(self, rows: Any) -> Tensor:
        """Classify rows.

        Only the oracle calls this; it is the one place where a query happens.

        Shapes:
            rows: (n, channels, height, width), float32 in [0, 1], on ``device``; or n programs.
            returns: (n, classes) scores, or (n,) int64 labels where ``access`` is ``"labels"``.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hex digest that changes when the target answers differently (its weights, its preprocessing)."""

    def accepts(self, kind: Takes) -> bool:
        """Whether rows of this kind can be asked."""
        if kind == self.takes:
            return True
        untold = self.any_tensor and (self.input_shape is None or len(self.input_shape) == 4)
        return kind == "motion" and self.takes == "images" and untold

    def rows_a_call(self, wanted: int) -> int:
        """So many rows, or as many as one call should hold, where that is fewer."""
        return min(wanted, self.batch or wanted)

    def fresh(self) -> Target:
        """The same target without a memory of what it was asked; itself where it keeps none."""
        return self
