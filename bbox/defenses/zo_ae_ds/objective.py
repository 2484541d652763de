"""What the black box says, as a loss: the stability of its answers under noise (Zhang et al., ICLR 2022, eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.defenses.books import Books
from bbox.errors import InputError, UsageError
from bbox.oracle import Answers, Purpose

__all__ = ["BlackBox", "Task"]

Task = Literal["classification", "reconstruction"]


@dataclass
class BlackBox:
    """The black box of a fit, asked by way of the books.

    Its clean answers are the only teacher; true labels are never used. For classification the clean answer is the
    top-1 class and the loss of a row is the cross-entropy to it. For reconstruction (an answer is an image, flattened)
    it is the answer itself, and the loss is the mean squared error to it.

    Attributes:
        probabilities: whether answers are probabilities, whose logarithm is taken; found from the first answers.
        classes: numbers an answer has; found from the first answers.
    """

    books: Books
    task: Task = "classification"
    probabilities: bool = False
    classes: int = 0

    def __post_init__(self) -> None:
        target = self.books.oracle.target
        if target.access != "scores":
            raise UsageError(f"zo-ae-ds needs the size of scores, and {target.name} answers labels only")

    def answers(self, rows: Tensor, purpose: Purpose) -> Tensor:
        """The answers as log-probabilities (classification) or as they are: (n, k).

        Shapes: rows (n, *shape). Queries: n.
        """
        raw = self.books.ask(rows, purpose, _scores)
        return self._logs(raw) if self.task == "classification" else raw

    def clean(self, images: Tensor, purpose: Purpose) -> Tensor:
        """The clean answers that everything is held against: (n,) int64 classes, or (n, k).

        Shapes: images (n, *shape). Queries: n.
        """
        raw = self.books.ask(images, purpose, _scores)
        self.classes = raw.shape[1]
        if self.task == "reconstruction":
            return raw
        if self.classes < 2:
            raise InputError(f"{self.books.oracle.target.name} has one class; there is nothing to defend")
        self.probabilities = bool(((raw >= 0).all(1) & ((raw.sum(1) - 1).abs() < 1e-2)).all())
        return raw.argmax(1)

    def losses(self, rows: Tensor, clean: Tensor, purpose: Purpose) -> Tensor:
        """The loss of each row, (n,). Shapes: rows (n, *shape); clean (n,) or (n, k). Queries: n."""

        def read(answers: Answers, place: slice) -> Tensor:
            # Before the journal: one number a row lies there, not one a class.
            raw = _scores(answers)
            return self.loss(self._logs(raw) if self.task == "classification" else raw, clean[place].cpu())

        return self.books.ask(rows, purpose, read)

    def loss(self, answers: Tensor, clean: Tensor) -> Tensor:
        """The loss of answers that are at hand (logits or log-probabilities for classification): (n,)."""
        if self.task == "classification":
            return F.cross_entropy(answers, clean, reduction="none")
        return (answers - clean).square().mean(1)

    def judge(self, rows: Tensor, clean: Tensor) -> tuple[float, float]:
        """How well rows are answered as the clean images were: (quality, mean loss), from one ask.

        The quality is the share of equal classes, or minus the squared error.

        Queries: n, on the ``select`` ledger.
        """

        def read(answers: Answers, place: slice) -> Tensor:
            raw = _scores(answers)
            loss = self.loss(self._logs(raw) if self.task == "classification" else raw, clean[place].cpu())
            same = answers.labels == clean[place].cpu() if self.task == "classification" else -loss
            return torch.stack([same.float(), loss], 1)

        quality, loss = self.books.ask(rows, "select", read).mean(0).tolist()
        return quality, loss

    def _logs(self, raw: Tensor) -> Tensor:
        # A probability of zero, as rounded answers have it, is some small number: an infinite loss teaches nothing.
        return raw.clamp_min(1e-6).log() if self.probabilities else torch.log_softmax(raw, 1)


def _scores(answers: Answers, _: slice = slice(None)) -> Tensor:
    if answers.scores is None or not bool(torch.isfinite(answers.scores).all()):
        raise InputError("the black box answered scores that are not finite; zo-ae-ds cannot learn from them")
    return answers.scores
