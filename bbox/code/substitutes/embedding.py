"""Identifier embeddings learned from the code at hand: names are alike that stand among the same tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from bbox.code.program import Programs
from bbox.code.site import Site
from bbox.code.substitutes.base import Corpus, Provider, Resources
from bbox.code.substitutes.lexer import is_name, lex, subwords
from bbox.code.substitutes.names import BoundNames, corpus_and_options
from bbox.errors import UsageError

__all__ = ["EmbeddingNames", "NameVectors", "Options", "load"]

_REACH = 3  # tokens on either side that are a name's context


@dataclass(frozen=True)
class NameVectors:
    """Vectors of identifiers: positive pointwise mutual information with the neighbouring tokens, then a truncated SVD.

    Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", NeurIPS 2014, section 5: the
    factorised PPMI matrix is as good as skip-gram for similarity, and needs no training loop. A context is one of the
    three tokens on either side, left and right told apart.

    Shapes:
        rows: (names, dimension) float64, unit length.
    """

    names: tuple[str, ...]
    rows: np.ndarray

    @staticmethod
    def learn(programs: Programs, *, dimension: int = 100, least: int = 2) -> NameVectors:
        """Vectors of every identifier that at least ``least`` programs contain. The same programs give the same ones.

        Raises:
            UsageError: the programs share too few identifiers.
        """
        tokens = [lex(program.code, program.language) for program in programs]
        spread = Counter(token for program in tokens for token in dict.fromkeys(program))
        kept = sorted(token for token, count in spread.items() if count >= least)
        names = tuple(token for token in kept if is_name(token))
        if len(names) < 3:
            raise UsageError(f"{len(names)} names occur in {least} programs or more of {len(programs)}; give more code")
        counts = _neighbours(tokens, {token: i for i, token in enumerate(kept)}, list(map(is_name, kept)))
        information = _ppmi(counts)
        dimension = min(dimension, min(information.shape) - 1)
        # A start vector of our own: the default one is drawn anew each time.
        left, strength, _ = linalg.svds(information, k=dimension, v0=np.ones(min(information.shape)))
        rows = left * np.sqrt(strength)
        return NameVectors(names, rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _of_subwords(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            for word in dict.fromkeys(subwords(name)):
                found.setdefault(word, []).append(place)
        return found

    def vector(self, name: str) -> np.ndarray:
        """The vector of a name; of one that was not seen, the mean over its sub-words, each the mean of the names that
        contain it; zeros where nothing is known. Shapes: (dimension,)."""
        if name in self._places:
            row: np.ndarray = self.rows[self._places[name]]
            return row
        parts = [self.rows[self._of_subwords[w]].mean(0) for w in subwords(name) if w in self._of_subwords]
        if not parts:
            return np.zeros(self.rows.shape[1])
        mean = np.mean(parts, axis=0)
        unit: np.ndarray = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return unit

    def matrix(self, names: Sequence[str]) -> np.ndarray:
        """The vectors of several names. Shapes: (m, dimension)."""
        return np.stack([self.vector(name) for name in names]) if names else np.zeros((0, self.rows.shape[1]))


def _neighbours(tokens: list[list[str]], places: dict[str, int], name: list[bool]) -> Any:
    """How often each name has each token on its left and on its right. Shapes: (names, 2 * kept tokens)."""
    # -1 is a token that is too rare; a gap of them stands between programs.
    gap = [-1] * _REACH
    ids = np.array(
        [i for program in tokens for i in [*(places.get(token, -1) for token in program), *gap]], dtype=np.int64
    )
    row_of = np.where(name, np.cumsum(name) - 1, -1)
    rows, columns = [], []
    for reach in range(1, _REACH + 1):
        before, after = ids[:-reach], ids[reach:]
        for center, context, side in ((before, after, 1), (after, before, 0)):
            row = np.where(center >= 0, row_of[center], -1)
            valid = (row >= 0) & (context >= 0)
            rows.append(row[valid])
            columns.append(context[valid] + side * len(places))
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (sum(name), 2 * len(places))
    return sparse.coo_matrix((np.ones(len(row)), (row, column)), shape=shape).tocsr()


def _ppmi(counts: Any) -> Any:
    """max(0, log p(name, context) / (p(name) p(context))), contexts smoothed by the power 0.75 (Levy et al. 2015)."""
    total = counts.sum()
    of_name = np.asarray(counts.sum(1)).ravel() / total
    of_context = np.asarray(counts.sum(0)).ravel() ** 0.75
    of_context /= of_context.sum()
    pairs = counts.tocoo()
    values = np.log(pairs.data / total / (of_name[pairs.row] * of_context[pairs.col]))
    positive = values > 0
    return sparse.csr_matrix((values[positive], (pairs.row[positive], pairs.col[positive])), shape=counts.shape)


@dataclass(frozen=True)
class Options:
    """Options of ``embedding``.

    Args:
        dimension: of the vectors.
        programs: a name that fewer programs contain is not used.
        limit: names that are suggested for one identifier.
    """

    dimension: int = 100
    programs: int = 2
    limit: int = 60


class EmbeddingNames(Provider):
    """The variable names of a corpus that are nearest to the old name, whatever class they come from."""

    def __init__(self, corpus: Corpus, options: Options) -> None:
        self.corpus, self.options = corpus, options
        self.names = BoundNames.of(corpus).frequent(options.programs)
        self.vectors = NameVectors.learn(corpus.programs, dimension=options.dimension)
        self._rows = self.vectors.matrix(self.names)

    def suggest(self, site: Site, *, avoid: int | None = None, wanted: int | None = None) -> list[list[str]]:
        del avoid, wanted
        allowed = set(site.usable(self.names))
        found = []
        for binding in site.bindings:
            order = np.argsort(-(self._rows @ self.vectors.vector(binding.name)), kind="stable")
            found.append([self.names[i] for i in order if self.names[i] in allowed][: self.options.limit])
        return found

    def fingerprint(self) -> str:
        return hashlib.sha256(f"embedding {self.corpus.fingerprint()} {self.options}".encode()).hexdigest()[:16]


def load(path: str, options: dict[str, str], given: Resources) -> EmbeddingNames:
    """See ``load_provider``."""
    return EmbeddingNames(*corpus_and_options("embedding", Options, path, options, given.corpus))
