"""Greedy-Attack of ALERT: identifiers by overall importance, each renamed to its best substitute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bbox.attacks.alert.space import Choice, Mask, Search, Searcher, Space, best_of, with_gene

__all__ = ["Greedy", "Importance", "climb"]

Importance = Literal["occurrence", "name", "none"]


@dataclass(frozen=True)
class Greedy(Searcher):
    """Greedy-Attack (ALERT, sections 3.3 and 3.4, algorithm 1).

    The importance of an occurrence is what masking it takes from the objective; an identifier's overall importance is
    the sum over its occurrences. In that order, every substitute of an identifier is tried on the incumbent, and the
    best is kept if it lowers the objective.

    Args:
        importance: occurrence = masked one by one (the paper's); name = all occurrences of a name masked at once, one
            query a name; none = in the order of the program.

    Queries: 1 + occurrences (or names, or 0) + all substitutes, at most.
    """

    importance: Importance = "occurrence"

    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        del rng
        found, _ = yield from climb(space, self.importance)
        return found


def climb(space: Space, importance: Importance) -> Search[tuple[Choice | None, Choice]]:
    """Greedy-Attack: the adversarial choice if there is one, and the last incumbent."""
    best = space.identity
    if not len(space):
        return None, best
    value = (yield [best])[0].value
    for slot in (yield from _order(space, importance, value)):
        genes = range(1, len(space.slots[slot].candidates) + 1)
        rows = [row for gene in genes if space.allows(row := with_gene(best, slot, gene))]
        if not rows:
            continue
        replies = yield rows
        top = best_of(replies)
        if replies[top].adversarial:
            return rows[top], rows[top]
        if replies[top].value < value:
            best, value = rows[top], replies[top].value
    return None, best


def _order(space: Space, importance: Importance, value: float) -> Search[list[int]]:
    if importance == "none":
        return list(range(len(space)))
    if importance == "name":
        masks = [Mask(slot) for slot in range(len(space))]
    else:
        masks = [
            Mask(number, place) for number, slot in enumerate(space.slots) for place in range(len(slot.occurrences))
        ]
    replies = yield list(masks)
    overall = [0.0] * len(space)
    for mask, reply in zip(masks, replies, strict=True):
        overall[mask.slot] += value - reply.value
    return sorted(range(len(space)), key=lambda slot: -overall[slot])
