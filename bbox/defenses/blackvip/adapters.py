"""Two simpler baselines beside a prompt: a regression on the black box's answers, and one that never asks it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bbox.defenses.blackvip.logistic import LogisticRegression
from bbox.defenses.blackvip.objective import AnswerKind
from bbox.oracle import Answers

__all__ = ["LocalClassifier", "LogisticRegression", "OutputAdapter"]


class OutputAdapter:
    """Logistic regression on what the black box answers: scores, or the label alone (one-hot).

    Scores that are probabilities are read as logarithms (``AnswerKind.logs``).

    Queries: one an image, by the caller: it takes the oracle's answers.
    """

    def __init__(self) -> None:
        self.regression = LogisticRegression()
        self._seen = torch.empty(0, dtype=torch.int64)
        self._kind = AnswerKind("labels")

    def fit(self, answers: Answers, labels: Tensor, num_classes: int) -> None:
        """Fit to the answers for labelled images; images without a usable answer are left out.

        Shapes:
            labels: (n,) int64, the images' classes, of ``num_classes``: the data's, not the black box's.

        Raises:
            UsageError, InputError: see ``LogisticRegression.fit``.
        """
        usable = answers.labels >= 0
        self._seen = torch.tensor(sorted(set(answers.labels[usable].tolist())), dtype=torch.int64)
        self._kind = AnswerKind.of(None if answers.scores is None else answers.scores[usable])
        self.regression.fit(self._features(answers)[usable], labels[usable.to(labels.device)], num_classes)

    def scores(self, answers: Answers) -> Tensor:
        """Log-probabilities of the data's classes; the classes' shares where there is no usable answer.

        Shapes:
            returns: (n, num_classes) float32, on the CPU as answers are.
        """
        return self.regression.scores(self._features(answers))

    def _features(self, answers: Answers) -> Tensor:
        if answers.scores is None:
            return (answers.labels[:, None] == self._seen).double()
        return self._kind.logs(answers.scores)


class LocalClassifier:
    """Logistic regression on the features of an encoder; the black box is never asked.

    Args:
        encoder: rows (n, channels, height, width) to features (n, dim), see ``bbox.defenses.blackvip.encoders``.

    Queries: none.
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor]) -> None:
        self.encoder = encoder
        self.regression = LogisticRegression()

    def fit(self, images: Tensor, labels: Tensor, num_classes: int) -> None:
        """Fit to labelled images.

        Shapes:
            images: (n, channels, height, width); labels: (n,) int64, of ``num_classes``.

        Raises:
            UsageError, InputError: see ``LogisticRegression.fit``.
        """
        self.regression.fit(self.encoder(images), labels, num_classes)

    def scores(self, images: Tensor) -> Tensor:
        """Log-probabilities: (n, num_classes) float32, on the images' device."""
        return self.regression.scores(self.encoder(images))
