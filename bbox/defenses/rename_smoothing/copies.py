"""Copies of a program under new names, drawn so that they say nothing of the names that they replace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

from bbox.code.bindings import decoded, encoded, reserved, resolve, words_of
from bbox.code.program import Program
from bbox.code.site import Site, site_of

__all__ = ["Copies", "draw"]


@dataclass(frozen=True)
class Copies:
    """What is asked in place of a program.

    Shapes (k copies, n identifiers):
        programs: the k copies.
        kept: (k, n) bool, the identifiers that have their own names in each copy.

    Attributes:
        broken: whether the program does not parse. Then a rename may change which names are seen as safe, and nothing
            is certified.
    """

    programs: tuple[Program, ...]
    kept: NDArray[np.bool_]
    broken: bool


def draw(
    program: Program,
    vocabulary: Sequence[str],
    *,
    count: int,
    keep: float,
    functions: bool = False,
    seed: int = 0,
    first: int = 0,
) -> Copies:
    """Copies ``first`` to ``first + count - 1`` of a program: all of its identifiers but some are renamed in each.

    Which identifiers keep their names, floor(keep n) of n, and what the others are called follows from the seed, the
    copy's number, the names that are kept, and the program without its identifiers (its alpha-class) alone. So a safe
    rename of identifiers changes those copies alone in which one of them is kept.

    Raises:
        UsageError: the language is unknown, or its grammar is not installed.
    """
    site = site_of(program, functions=functions)
    frame = _Frame.of(site)
    total = len(site.bindings)
    kept = np.zeros((count, total), bool)
    programs = []
    for place in range(count):
        random = np.random.default_rng([*frame.key, seed, first + place])
        kept[place, random.permutation(total)[: int(keep * total)]] = True
        order = random.permutation(len(vocabulary))
        programs.append(_renamed(site, frame, kept[place], [vocabulary[i] for i in order]))
    return Copies(tuple(programs), kept, resolve(program.code, program.language).errors > 0)


@dataclass(frozen=True)
class _Frame:
    """What is left of a program without its identifiers.

    Attributes:
        key: a digest of the alpha-class: the text between identifiers, and which identifier stands where.
        words: names that are taken whatever the identifiers are called.
    """

    key: tuple[int, ...]
    words: frozenset[str]

    @classmethod
    def of(cls, site: Site) -> _Frame:
        source = encoded(site.program.code)
        tokens = sorted((span, number) for number, binding in enumerate(site.bindings) for span in binding.spans)
        edges = [0, *(edge for span, _ in tokens for edge in span), len(source)]
        pieces = [decoded(source[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        class_ = [site.program.language, site.program.partner, pieces, [number for _, number in tokens]]
        digest = hashlib.blake2b(json.dumps(class_).encode(), digest_size=16).digest()
        return cls(
            tuple(np.frombuffer(digest, np.uint32).tolist()),
            words_of(" ".join(pieces)) | reserved(site.program.language),
        )


def _renamed(site: Site, frame: _Frame, kept: NDArray[np.bool_], names: Sequence[str]) -> Program:
    """The program with every identifier that is not kept called by the first of these names that is free."""
    taken = frame.words | {site.bindings[place].name for place in kept.nonzero()[0]}
    # Names that are being replaced are free: to avoid them would tell them.
    bare = replace(site, taken=taken)
    numbered = (f"{name}{number}" for number in count(2) for name in names)
    free = (name for name in chain(names, numbered) if bare.allows(name))
    renamed = (~kept).nonzero()[0].tolist()
    return bare.render(dict(zip(renamed, islice(free, len(renamed)), strict=True)))
