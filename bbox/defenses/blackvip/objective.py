"""What the black box returns, read as scores of the user's classes and as a loss that a prompt can lower."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.defenses.books import Books
from bbox.defenses.label_mapping import LabelMapping
from bbox.oracle import UNKNOWN, Answers, Purpose

__all__ = ["AnswerKind", "Objective"]

_FLOOR = 1e-6  # of a probability that was not rounded
_MASKED = 20.0  # nats that a logit of minus infinity lies below the largest


@dataclass(frozen=True)
class AnswerKind:
    """What kind of answer the oracle gives, told from a few of them.

    Attributes:
        name: logits, probabilities or labels.
        decimals: of rounded probabilities; 0 where they are not rounded (4 decimals or more count as not rounded).
        top: how many classes get a probability that is not zero, the same in every row; 0 where all do.
    """

    name: str
    decimals: int = 0
    top: int = 0

    @classmethod
    def of(cls, scores: Tensor | None) -> AnswerKind:
        """The kind of these answers. Shapes: scores (n, classes), or ``None`` for labels."""
        if scores is None:
            return cls("labels")
        if not len(scores):
            return cls("logits")
        scores = scores.double()
        rounded = [d for d in (1, 2, 3) if bool((scores * 10**d - (scores * 10**d).round()).abs().max() < 1e-3)]
        # The sum may be off by the rounding, or below 1 where small ones are left out; logits hardly ever look so.
        slack = 0.5 * 10.0 ** -(rounded[0] if rounded else 4) * scores.shape[1] + 1e-3
        if not bool(((scores >= 0) & (scores <= 1 + 1e-3)).all() & (scores.sum(1) <= 1 + slack).all()):
            return cls("logits")
        named = (scores > 0).sum(1)
        # Rounding makes zeros too, but not the same number in every row.
        top = int(named[0]) if bool((named == named[0]).all()) and int(named[0]) < scores.shape[1] else 0
        return cls("probabilities", rounded[0] if rounded else 0, top)

    def logs(self, scores: Tensor) -> Tensor:
        """Scores as log-probabilities up to a constant a row: (n, classes) float64.

        The mass that top-k answers leave out is spread over the classes that they do not name, and no probability
        counts as less than half of its last decimal.
        """
        scores = scores.double()
        if self.name == "logits":
            # A class that is masked out is unlikely, not impossible: one image would make the mean loss infinite.
            return torch.where(scores.isneginf(), scores.amax(1, keepdim=True) - _MASKED, scores)
        if self.top:
            missing = scores <= 0
            rest = (1 - scores.sum(1, keepdim=True)).clamp(min=0) / missing.sum(1, keepdim=True).clamp(min=1)
            scores = torch.where(missing, rest, scores)
        return scores.clamp(min=0.5 * 10.0**-self.decimals if self.decimals else _FLOOR).log()

    def __str__(self) -> str:
        rounded = f", {self.decimals} decimals" if self.decimals else ""
        return self.name + rounded + (f", top {self.top}" if self.top else "")


@dataclass
class Objective:
    """Cross-entropy of the black box's answers to the true labels; the 0/1 loss where it answers labels alone.

    Attributes:
        kind: what the answers are; set it from the first ones.
        mapping: from the model's classes to the data's.
    """

    books: Books
    kind: AnswerKind = AnswerKind("logits")
    mapping: LabelMapping | None = None

    def answers(self, rows: Tensor, purpose: Purpose) -> Tensor:
        """The answers as they come: (n, classes) scores, or (n,) labels. Shapes: rows (n, *shape). Queries: n."""
        return self.books.ask(rows, purpose, _raw)

    def logs(self, answers: Tensor) -> Tensor:
        """Log-probabilities of the data's classes from scores: (n, classes) float64."""
        logs = self.kind.logs(answers)
        return logs if self.mapping is None else self.mapping.scores(logs)

    def labels(self, answers: Tensor) -> Tensor:
        """The classes answered, the data's: (n,) int64."""
        answers = answers.long() if answers.ndim == 1 else answers  # books keep floats
        mapped = answers if self.mapping is None else self.mapping(answers)
        if mapped.ndim == 1:
            return mapped
        return mapped.argmax(1).masked_fill(~torch.isfinite(mapped.amax(1)), UNKNOWN)

    def loss(self, answers: Tensor, labels: Tensor) -> Tensor:
        """The loss of answers at hand: (n,) float64, NaN where an answer cannot be used."""
        if answers.ndim == 1:
            wrong = (self.labels(answers) != labels).double()
            return wrong.masked_fill(answers < 0, torch.nan)
        return F.cross_entropy(self.logs(answers), labels, reduction="none")

    def losses(self, rows: Tensor, labels: Tensor, purpose: Purpose) -> Tensor:
        """The loss of each row: (n,) float32. Shapes: rows (n, *shape), labels (n,). Queries: n."""
        known = labels.cpu()

        def read(answers: Answers, place: slice) -> Tensor:
            # Before the journal: one number a row lies there, not one a class.
            return self.loss(_raw(answers, place), known[place])

        return self.books.ask(rows, purpose, read)


def _raw(answers: Answers, place: slice) -> Tensor:
    del place
    if answers.scores is None:
        return answers.labels
    unusable = (answers.labels < 0)[:, None]
    return answers.scores.masked_fill(unusable, torch.nan)
