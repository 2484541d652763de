"""The default search: Thompson sampling over an additive model of what each new name gains."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bbox.attacks.alert.model import AdditiveModel, Floats
from bbox.attacks.alert.space import Choice, Search, Searcher, Space, best_of, with_gene

__all__ = ["Bandit"]

_DRAWS = 200  # of rows that were asked before: then the space counts as exhausted
_FAR = 20  # draws until they change one more identifier


@dataclass(frozen=True)
class Bandit(Searcher):
    """Thompson sampling (Thompson, 1933; for linear rewards Agrawal, Goyal, ICML 2013) around the best choice so far.

    In log-odds the effects of single renames nearly add up, so one row that changes several identifiers tells of all of
    them at once. Each step draws effects from the posterior (``AdditiveModel``), makes of each draw the choice that is
    best under it among those a few renames away from the incumbent, and asks them; an improvement becomes the
    incumbent at once. No query goes into importance.

    Args:
        pull: rows a step; fewer take more steps.
        moves: most identifiers in which a row differs from the incumbent.

    Queries: 1 for the original, then at most ``pull`` a step.
    """

    pull: int = 4
    moves: int = 3
    name: float = 0.3
    noise: float = 0.3

    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        best = space.identity
        if not len(space):
            return None
        first = value = (yield [best])[0].value
        model = AdditiveModel(space, name=self.name, noise=self.noise)
        asked = {best}
        while rows := self._propose(space, model, best, asked, rng):
            replies = yield rows
            top = best_of(replies)
            if replies[top].adversarial:
                return rows[top]
            gains = [(row, first - reply.value) for row, reply in zip(rows, replies, strict=True)]
            gains = [(row, gain) for row, gain in gains if abs(gain) < np.inf]
            model.learn([row for row, _ in gains], [gain for _, gain in gains])
            if replies[top].value < value:
                best, value = rows[top], replies[top].value
        return None

    def _propose(
        self, space: Space, model: AdditiveModel, best: Choice, asked: set[Choice], rng: np.random.Generator
    ) -> list[Choice]:
        """Rows that were never asked; none where the space is as good as exhausted."""
        rows = []
        for effects in model.sample(rng, self.pull):
            row = _maximum(space, effects, model.offsets.tolist(), best, self.moves)
            for draw in range(_DRAWS):
                if row not in asked and space.allows(row):
                    asked.add(row)
                    rows.append(row)
                    break
                # the model is sure of a row that it knows: look around the incumbent, farther and farther
                row = best
                for slot in rng.integers(len(space), size=1 + draw // _FAR).tolist():
                    row = with_gene(row, slot, int(rng.integers(len(space.slots[slot].candidates) + 1)))
        return rows


def _maximum(space: Space, effects: Floats, offsets: list[int], start: Choice, moves: int) -> Choice:
    """The choice with the largest sum of effects among those that differ from ``start`` in so many slots at most."""
    parts = [effects[low:high] for low, high in pairwise(offsets)]
    options = []
    for slot, (gene, own) in enumerate(zip(start, parts, strict=True)):
        top = float(own.max())
        now = own[gene - 1] if gene else 0.0
        if max(top, 0.0) > now:
            options.append((max(top, 0.0) - now, slot))
    choice = start
    for _, slot in sorted(options, reverse=True)[:moves]:
        choice = with_gene(choice, slot, 0)
        for gene in np.argsort(-parts[slot], kind="stable").tolist():
            if parts[slot][gene] <= 0:
                break
            if space.allows(with_gene(choice, slot, gene + 1)):
                choice = with_gene(choice, slot, gene + 1)
                break
    return choice
