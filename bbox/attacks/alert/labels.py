"""A search for targets that answer labels only (experimental)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbox.attacks.alert.space import Choice, Search, Searcher, Space, best_of

__all__ = ["Labels"]

_DRAWS = 100  # of rows that are not new or not distinct, before the space counts as exhausted


@dataclass(frozen=True)
class Labels(Searcher):
    """Rename every identifier at random until the label changes; pruning then takes back what was not needed.

    Experimental: random renames of all identifiers change few labels (2% for Magika), so what decides is the
    provider: names of other classes do far better. Ranks count: a better-ranked substitute is drawn more often.

    Args:
        pull: rows a step.

    Queries: ``pull`` a step.
    """

    pull: int = 4

    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        if not len(space):
            return None
        asked: set[Choice] = set()
        while rows := self._draw(space, asked, rng):
            replies = yield rows
            top = best_of(replies)
            if replies[top].adversarial:
                return rows[top]
        return None

    def _draw(self, space: Space, asked: set[Choice], rng: np.random.Generator) -> list[Choice]:
        rows: list[Choice] = []
        for _ in range(_DRAWS):
            # the square of a uniform draw: half of them fall in the first quarter of the ranks
            genes = [int(rng.random() ** 2 * len(slot.candidates)) + 1 for slot in space.slots]
            kept = rng.permutation(len(space))[: space.max_renames or len(space)].tolist()
            row = tuple(gene if slot in kept else 0 for slot, gene in enumerate(genes))
            if row not in asked and space.allows(row):
                asked.add(row)
                rows.append(row)
            if len(rows) == self.pull:
                break
        return rows
