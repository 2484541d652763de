"""Names of real programs, those of other classes first: more natural than a language model's, and stronger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from bbox.code.bindings import encoded
from bbox.code.common_names import COMMON
from bbox.code.site import Site
from bbox.code.substitutes.base import Corpus, Provider, Resources
from bbox.code.substitutes.embedding import NameVectors
from bbox.code.substitutes.names import BoundNames, corpus_and_options
from bbox.code.substitutes.rivals import Rivals
from bbox.errors import UsageError

__all__ = ["CorpusNames", "Options", "load", "load_random"]

_FEW = 20  # names


@dataclass(frozen=True)
class Options:
    """Options of ``corpus``.

    Args:
        rank: which names come first: nearest to the old one in an embedding learned from the corpus (similarity), most
            telling of the other classes (class: log odds), or first of the one the program is nearest to (rival), the
            mean of the ranks by similarity and class (mixed), or any (random).
        programs: a name that fewer programs of the corpus bind is not used.
        limit: names that are suggested for one identifier.
    """

    rank: Literal["similarity", "class", "rival", "mixed", "random"] = "similarity"
    programs: int = 2
    limit: int = 60


class CorpusNames(Provider):
    """Variable names that programs of other classes bind.

    That names of the nearest other-class programs make the stronger attack is the idea of CODA (Tian et al., ASE 2023,
    section III-C); that real names are ranked by an embedding is that of RNNS (Zhang et al., Findings of EMNLP 2023).
    Ranking by the log odds of the classes is our own: what tells classes apart in the corpus may do so in the target.

    Args:
        classes: whether classes count; without, any name of the corpus will do.
    """

    def __init__(self, corpus: Corpus, options: Options, *, seed: int = 0, classes: bool = True) -> None:
        self.corpus, self.options, self.seed = corpus, options, seed
        self.counted = BoundNames.of(corpus if classes else Corpus(corpus.programs))

    def suggest(self, site: Site, *, avoid: int | None = None, wanted: int | None = None) -> list[list[str]]:
        if self.options.rank != "rival" or avoid is None or wanted is not None or len(self._known) < 2:
            return self._suggest(site, avoid, wanted)
        near = self._suggest(site, avoid, self._rivals.nearest(site.program, avoid, self._known))
        rest = self._suggest(site, avoid, None)
        return [list(dict.fromkeys(a + b))[: self.options.limit] for a, b in zip(near, rest, strict=True)]

    def _suggest(self, site: Site, avoid: int | None, wanted: int | None) -> list[list[str]]:
        names: list[str] = []
        others, every = self.counted.sources(avoid, wanted), self.counted.sources(None, None)
        # A small corpus may repeat no name, and one of a single class has none of another: then rarer ones, then any.
        for sources, programs in ((others, self.options.programs), (others, 1), (every, 1)):
            names = names or site.usable(self.counted.frequent(programs, sources))
            if names:
                break
        # Behind the names of a handful of programs, those that any program could have.
        common = [name for name in site.usable(COMMON) if name not in names] if len(names) < _FEW else []
        if not names:
            return [common[: self.options.limit] for _ in site.bindings]
        # Names come most frequent first, and every sort here is stable: that decides ties.
        telling = self._telling(names, sources, avoid)
        return [
            ([names[i] for i in self._order(site, number, names, telling)] + common)[: self.options.limit]
            for number in range(len(site.bindings))
        ]

    def _order(self, site: Site, number: int, names: list[str], telling: np.ndarray) -> np.ndarray:
        rank = self.options.rank
        if rank == "random":
            return self._generator(site, number).permutation(len(names))
        if rank in ("class", "rival"):
            return _descending(telling)
        if self._vectors is None:
            return np.arange(len(names))
        old = site.bindings[number].name
        near = self._vectors.matrix(names) @ self._vectors.vector(old)
        if rank == "similarity":
            return _descending(near)
        return np.argsort(_places(near) + _places(telling), kind="stable")

    def _telling(self, names: list[str], sources: np.ndarray, avoid: int | None) -> np.ndarray:
        place = {name: i for i, name in enumerate(self.counted.names)}
        odds: np.ndarray = self.counted.log_odds(sources, avoid)[[place[name] for name in names]]
        return odds

    @cached_property
    def _vectors(self) -> NameVectors | None:
        """``None`` where the programs are too few to learn from; names then stay most frequent first."""
        try:
            return NameVectors.learn(self.corpus.programs)
        except UsageError:
            return None

    @cached_property
    def _known(self) -> np.ndarray:
        """The classes that have programs."""
        return np.flatnonzero(self.counted.sizes)

    @cached_property
    def _rivals(self) -> Rivals:
        return Rivals.learn(self.corpus)

    def _generator(self, site: Site, number: int) -> np.random.Generator:
        """Of the program and the identifier alone, so that an example has its names in any selection."""
        program = int.from_bytes(hashlib.sha256(encoded(site.program.code)).digest()[:8], "big")
        return np.random.default_rng([self.seed, program, number])

    def fingerprint(self) -> str:
        classes = len(self.counted.sizes)
        text = f"corpus {self.corpus.fingerprint()} {self.options} {self.seed} {classes}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _descending(values: np.ndarray) -> np.ndarray:
    return np.argsort(-values, kind="stable")


def _places(values: np.ndarray) -> np.ndarray:
    """The place of each value in descending order."""
    return np.argsort(_descending(values))


def load(path: str, options: dict[str, str], given: Resources) -> CorpusNames:
    """See ``load_provider``."""
    corpus, chosen = corpus_and_options("corpus", Options, path, options, given.corpus)
    return CorpusNames(corpus, chosen, seed=given.seed)


def load_random(path: str, options: dict[str, str], given: Resources) -> CorpusNames:
    """See ``load_provider``."""
    corpus, chosen = corpus_and_options("random", Options, path, {"rank": "random", **options}, given.corpus)
    return CorpusNames(corpus, chosen, seed=given.seed, classes=False)
