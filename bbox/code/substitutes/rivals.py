"""Which other class a program is nearest to, by the tokens of a corpus; the target is not asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bbox.code.program import Program
from bbox.code.substitutes.base import Corpus
from bbox.code.substitutes.lexer import lex

__all__ = ["Rivals"]

_SMOOTHING = 0.1


@dataclass(frozen=True)
class Rivals:
    """Multinomial naive Bayes over the tokens of a labelled corpus.

    Shapes:
        log_likelihood: (classes, tokens) float64.
    """

    places: dict[str, int]
    log_likelihood: np.ndarray

    @staticmethod
    def learn(corpus: Corpus) -> Rivals:
        """Count the tokens of each class."""
        labels = [0] * len(corpus.programs) if corpus.labels is None else corpus.labels.tolist()
        found = Counter(
            (label, token)
            for label, program in zip(labels, corpus.programs, strict=True)
            for token in lex(program.code, program.language)
        )
        places = {token: i for i, token in enumerate(sorted({token for _, token in found}))}
        counts = np.full((max(labels) + 1, len(places)), _SMOOTHING)
        for (label, token), number in found.items():
            counts[label, places[token]] += number
        return Rivals(places, np.log(counts) - np.log(counts.sum(1, keepdims=True)))

    def nearest(self, program: Program, avoid: int, known: np.ndarray) -> int:
        """The likeliest class of ``known`` but the avoided one; a token that comes n times weighs log(1 + n)."""
        counts = Counter(t for t in lex(program.code, program.language) if t in self.places)
        columns = [self.places[token] for token in counts]
        score = self.log_likelihood[:, columns] @ np.log1p(np.array(list(counts.values()), dtype=np.float64))
        others = [label for label in known.tolist() if label != avoid]
        return int(max(others, key=lambda label: score[label]))
