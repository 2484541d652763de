"""GA-Attack of ALERT: a genetic algorithm whose first population comes from Greedy-Attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbox.attacks.alert.greedy import Importance, climb
from bbox.attacks.alert.space import Choice, Search, Searcher, Space, best_of, with_gene
from bbox.errors import UsageError

__all__ = ["Genetic"]


@dataclass(frozen=True)
class Genetic(Searcher):
    """Greedy-Attack, and where it fails GA-Attack (ALERT, section 3.5, algorithm 2), seeded by its result.

    The population is the original and one chromosome for each identifier, which changes this one alone: to the
    name that Greedy-Attack chose, else to a drawn one. A child is a one-point crossover of two parents or a mutation
    of one gene, and replaces the least fit if it is fitter. Every chromosome keeps its own fitness and none is changed
    in place (in the public code, fitness list and population are off by one, and mutation edits parents).

    Args:
        children: children a generation (the public code: its batch size, 32 or 64).
        crossover: chance of a crossover rather than a mutation.
        generations: 0 = max(5 x population, 10), the paper's.
        importance: of Greedy-Attack.

    Queries: Greedy-Attack's, then at most identifiers + children x generations.
    """

    children: int = 64
    crossover: float = 0.7
    generations: int = 0
    importance: Importance = "occurrence"

    def __post_init__(self) -> None:
        if self.children < 1:
            raise UsageError(f"children is {self.children}, expected at least 1")

    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        found, incumbent = yield from climb(space, self.importance)
        if found is not None or not len(space):
            return found
        population = [space.identity]
        for slot, gene in enumerate(incumbent):
            drawn = int(rng.integers(1, len(space.slots[slot].candidates) + 1))
            population.append(with_gene(space.identity, slot, gene or drawn))
        replies = yield list(population)
        if replies[best_of(replies)].adversarial:
            return population[best_of(replies)]
        fitness = [-reply.value for reply in replies]
        for _ in range(self.generations or max(5 * len(population), 10)):
            children = [
                child for _ in range(self.children) if space.allows(child := self._child(space, population, rng))
            ]
            if not children:
                continue
            replies = yield children
            top = best_of(replies)
            if replies[top].adversarial:
                return children[top]
            for child, reply in zip(children, replies, strict=True):
                worst = min(range(len(population)), key=fitness.__getitem__)
                if -reply.value > fitness[worst] and child not in population:
                    population[worst], fitness[worst] = child, -reply.value
        return None

    def _child(self, space: Space, population: list[Choice], rng: np.random.Generator) -> Choice:
        one, other = (population[int(k)] for k in rng.integers(len(population), size=2))
        if rng.random() < self.crossover and one != other:
            cut = int(rng.integers(len(space) + 1))
            child = one[:cut] + other[cut:]
            if child not in (one, other):
                return child
        slot = int(rng.integers(len(space)))
        return with_gene(one, slot, int(rng.integers(1, len(space.slots[slot].candidates) + 1)))
