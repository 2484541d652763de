"""Beam search over identifiers, those in conditions first."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bbox.attacks.alert.space import Choice, Search, Searcher, Space, with_gene
from bbox.code.bindings import encoded
from bbox.errors import UsageError

__all__ = ["Beam"]

_CONDITION = re.compile(rb"\s*(?:\}?\s*else\s+)?(?:if|elif|for|while|switch|match)\b")


@dataclass(frozen=True)
class Beam(Searcher):
    """Beam search in the manner of BeamAttack (Du et al., "An Extensive Study on Adversarial Attack against Pre-trained
    Models of Code", ESEC/FSE 2023), which finds that identifiers in if and for statements matter most.

    Identifiers are taken by the number of their tokens on lines that open a condition or a loop, then by all tokens; no
    query goes into importance. Each is renamed, in every choice of the beam, to its first ``substitutes``, and the
    ``width`` choices with the lowest objective go on.

    Args:
        width: choices that go on.
        substitutes: tried for each choice and identifier; 0 = all.

    Queries: 1 + identifiers x width x substitutes, at most.
    """

    width: int = 2
    substitutes: int = 20

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(f"width is {self.width}, expected at least 1")
        if self.substitutes < 0:
            raise UsageError(f"substitutes is {self.substitutes}, expected 0 or more")

    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        del rng
        if not len(space):
            return None
        beam = {space.identity: (yield [space.identity])[0].value}
        for slot in by_statement(space):
            count = len(space.slots[slot].candidates)
            genes = range(1, (min(count, self.substitutes) if self.substitutes else count) + 1)
            rows = [row for choice in beam for gene in genes if space.allows(row := with_gene(choice, slot, gene))]
            if not rows:
                continue
            replies = yield rows
            for row, reply in zip(rows, replies, strict=True):
                if reply.adversarial:
                    return row
                beam[row] = reply.value
            beam = dict(sorted(beam.items(), key=lambda item: item[1])[: self.width])
        return None


def by_statement(space: Space) -> list[int]:
    """The slots, those with most tokens in the heads of conditions and loops first."""
    source = encoded(space.site.program.code)

    def rank(number: int) -> tuple[int, int]:
        spans = space.slots[number].occurrences
        lines = (source.rfind(b"\n", 0, start) + 1 for start, _ in spans)
        return -sum(_CONDITION.match(source, line) is not None for line in lines), -len(spans)

    return sorted(range(len(space)), key=rank)
