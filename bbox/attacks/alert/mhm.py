"""MHM: Metropolis-Hastings renaming (Zhang et al., "Generating Adversarial Examples for Holding Robustness of Source
Code Processing Models", AAAI 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbox.attacks.alert.objective import Objective
from bbox.attacks.alert.space import Choice, Search, Searcher, Space, best_of, with_gene
from bbox.errors import UsageError

__all__ = ["MHM"]


@dataclass(frozen=True)
class MHM(Searcher):
    """Metropolis-Hastings modification: a random identifier, a handful of substitutes, the best of them accepted with
    probability alpha.

    alpha = min(1, (1 - p_new) / (1 - p_old)), p the probability of the class to leave (section 3); for the objective
    ``margin``, the Metropolis rule for a density of exp(-margin).

    Args:
        iterations: at most.
        proposals: substitutes drawn in an iteration.
        objective: what the values are that replies carry.
        released: behave as the code that ALERT compares with: alpha is computed for the best substitute, but the
            last one is accepted, and alpha < 1 is always rejected.

    Queries: 1 + iterations x proposals, at most.
    """

    iterations: int = 100
    proposals: int = 30
    objective: Objective = "probability"
    released: bool = False

    def __post_init__(self) -> None:
        if min(self.iterations, self.proposals) < 1:
            raise UsageError(f"iterations and proposals are {self.iterations}, {self.proposals}, expected at least 1")

    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        choice = space.identity
        if not len(space):
            return None
        value = (yield [choice])[0].value
        for _ in range(self.iterations):
            slot = int(rng.integers(len(space)))
            count = len(space.slots[slot].candidates)
            genes = (rng.permutation(count)[: self.proposals] + 1).tolist()
            rows = [row for gene in genes if space.allows(row := with_gene(choice, slot, gene)) and row != choice]
            if not rows:
                continue
            replies = yield rows
            top = best_of(replies)
            if replies[top].adversarial:
                return rows[top]
            alpha = self._alpha(value, replies[top].value)
            if rng.random() < alpha and not (self.released and alpha < 1):
                accepted = len(rows) - 1 if self.released else top
                choice, value = rows[accepted], replies[accepted].value
        return None

    def _alpha(self, old: float, new: float) -> float:
        if self.objective == "margin":
            return float(np.exp(np.clip(old - new, -700.0, 0.0)))
        return (1 - new) / max(1 - old, 1e-12)
