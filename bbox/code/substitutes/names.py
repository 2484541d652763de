"""The variable names that the programs of a corpus bind, and how they are spread over its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from bbox.code.bindings import resolve
from bbox.code.program import Program
from bbox.code.substitutes.base import Corpus
from bbox.errors import UsageError
from bbox.options import build, option_fields

__all__ = ["BoundNames", "bound_names", "corpus_and_options"]

_T = TypeVar("_T")

_VARIABLES = ("parameter", "local")
_SMOOTHING = 0.5  # programs added to either side of the odds (Haldane and Anscombe)


def bound_names(program: Program) -> list[str]:
    """The variables of a program, each name once, in the order of the text: parameters, locals, a script's own."""
    bindings = resolve(program.code, program.language).bindings
    return list(
        dict.fromkeys(b.name for b in bindings if b.kind in _VARIABLES or (b.kind == "global" and not b.refusal))
    )


@dataclass(frozen=True)
class BoundNames:
    """How many programs of each class bind each name.

    Shapes:
        counts: (classes, names) int64; one class where the corpus has no labels.
        sizes: (classes,) int64, programs of each class.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(corpus: Corpus) -> BoundNames:
        """Count the names of a corpus; each corpus is counted once."""
        if corpus not in _counted:
            _counted[corpus] = _count(corpus)
        return _counted[corpus]

    def frequent(self, least: int, rows: np.ndarray | None = None) -> tuple[str, ...]:
        """Names that at least this many programs bind, and one of these classes; most frequent there first."""
        here = (self.counts if rows is None else self.counts[rows]).sum(0)
        enough = (self.counts.sum(0) >= least) & (here > 0)
        return tuple(self.names[i] for i in np.argsort(-here, kind="stable") if enough[i])

    def sources(self, avoid: int | None, wanted: int | None) -> np.ndarray:
        """The classes that names are taken from: the wanted one, else all but the avoided one. Shapes: (k,) int64."""
        if len(self.sizes) == 1:
            return np.zeros(1, dtype=np.int64)
        if wanted is not None:
            return _within(np.array([wanted]), self.sizes)
        others: np.ndarray = np.setdiff1d(np.arange(len(self.sizes)), [] if avoid is None else [avoid])
        return others

    def log_odds(self, sources: np.ndarray, avoid: int | None) -> np.ndarray:
        """How telling each name is: log odds that a program binds it, in these classes against the avoided one.

        Against all other classes where none is avoided. Shapes: (names,) float64.
        """
        rest = np.setdiff1d(np.arange(len(self.sizes)), sources) if avoid is None else np.array([avoid])
        odds: np.ndarray = self._log_odds(sources) - self._log_odds(_within(rest, self.sizes))
        return odds

    def _log_odds(self, rows: np.ndarray) -> np.ndarray:
        bound, size = self.counts[rows].sum(0), self.sizes[rows].sum()
        odds: np.ndarray = np.log(bound + _SMOOTHING) - np.log(size - bound + _SMOOTHING)
        return odds


def _within(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    known: np.ndarray = labels[labels < len(sizes)]
    return known


_counted: WeakKeyDictionary[Corpus, BoundNames] = WeakKeyDictionary()


def _count(corpus: Corpus) -> BoundNames:
    labels = [0] * len(corpus.programs) if corpus.labels is None else corpus.labels.tolist()
    found = Counter((label, name) for label, p in zip(labels, corpus.programs, strict=True) for name in bound_names(p))
    names = tuple(sorted({name for _, name in found}))
    place = {name: i for i, name in enumerate(names)}
    sizes = np.bincount(labels)
    counts = np.zeros((len(sizes), len(names)), dtype=np.int64)
    for (label, name), number in found.items():
        counts[label, place[name]] = number
    return BoundNames(names, counts, sizes)


def corpus_and_options(
    provider: str, kind: type[_T], path: str, options: Mapping[str, str], given: Corpus | None
) -> tuple[Corpus, _T]:
    """The corpus at a path, or without one the programs at hand; and the options of the provider.

    With a path, options that are not the provider's own are those of the data (``bbox.data.load("code:PATH,...")``).
    Classes are compared by number: the labels there must mean what those of the attacked data mean.

    Raises:
        UsageError: there is no corpus, or an option is unknown.
        InputError: what lies at the path cannot be read as code.
    """
    fields = option_fields(kind)
    of_data = {key: value for key, value in options.items() if path and key not in fields}
    chosen = build(provider, kind, {key: value for key, value in options.items() if key not in of_data})
    if not path:
        if given is None:
            raise UsageError(f"substitutes {provider!r} need code to take names from; write {provider}:PATH")
        return given, chosen
    from bbox.data import load

    data: Any = load(",".join([f"code:{path}", *(f"{key}={value}" for key, value in of_data.items())]))
    return Corpus(data.inputs, data.labels), chosen
