"""A Bayesian model of what each renaming gains: linear in the renamed identifiers, exact, and cheap to sample from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from bbox.attacks.alert.space import Choice, Space

__all__ = ["AdditiveModel"]

Floats = NDArray[np.float64]


class AdditiveModel:
    """gain(choice) = sum over renamed slots i of w_i (s_i + g_ik + q_name) + noise, everything Gaussian.

    ``s_i`` is what renaming identifier i gains whatever the new name, ``g_ik`` what candidate k adds, ``q_name`` what a
    name is worth wherever it is put, and ``w_i`` grows with the number of occurrences. What is learnt of one candidate
    so tells of the others of its identifier, and of the same name elsewhere. Samples of the posterior are drawn by
    Matheron's rule (Wilson et al., "Efficiently sampling functions from Gaussian process posteriors", ICML 2020): a
    sample of the prior, corrected by its error on the observations. The Cholesky factor grows with each row, so that
    learning m rows after n costs O(n^2 m), and so does a sample.

    Shapes (D candidates in all, n observed rows, S slots):
        slot, name: (D,) int64; weight: (D,); offsets: (S + 1,), where each slot's candidates start.
    """

    def __init__(
        self,
        space: Space,
        *,
        slot: float = 0.7,
        candidate: float = 0.7,
        name: float = 0.3,
        noise: float = 0.3,
        occurrence: float = 0.5,
    ) -> None:
        sizes = [len(slot.candidates) for slot in space.slots]
        self.offsets = np.cumsum([0, *sizes])
        self.slot = np.repeat(np.arange(len(sizes)), sizes)
        numbers: dict[str, int] = {}
        self.name = np.array(
            [numbers.setdefault(new, len(numbers)) for slot in space.slots for new in slot.candidates], dtype=np.int64
        )
        counts = np.array([len(slot.occurrences) for slot in space.slots], dtype=np.float64)
        self.weight = ((counts / counts.mean()) ** occurrence)[self.slot]
        self.deviations = (slot, candidate, name)
        self.noise = noise
        self._names = len(numbers)
        self._padded = np.empty((0, len(sizes)), dtype=np.int64)  # each row's candidates, D where it has fewer
        self._squares: list[float] = []
        self._gains: list[float] = []
        self._covariance = np.empty((len(self.slot), 0))  # of every candidate's effect with every row
        self._factor = np.empty((0, 0))

    def __len__(self) -> int:
        return len(self._gains)

    @property
    def scale(self) -> float:
        """The unit of gains: that in which the gains seen have the size that the prior gives them."""
        slot, candidate, name = self.deviations
        prior = slot**2 + candidate**2 + name**2
        found = float(np.sqrt(np.mean(np.square(self._gains) / (np.array(self._squares) * prior))))
        return max(found, 1e-9)

    def learn(self, rows: list[Choice], gains: list[float]) -> None:
        """Add observations: what each row gains over the original."""
        if not rows:
            return
        genes = [self._flat(row) for row in rows]
        new = np.stack([self._covariances(row) for row in genes], axis=1)
        own = np.stack([new[row].sum(0) for row in genes]) + self.noise**2 * np.eye(len(genes))
        n, m = len(self), len(genes)
        cross = np.stack([self._covariance[row].sum(0) for row in genes], axis=1)
        lower = solve_triangular(self._factor, cross, lower=True) if n else np.empty((0, m))
        factor = np.zeros((n + m, n + m))
        factor[:n, :n] = self._factor
        factor[n:, :n] = lower.T
        factor[n:, n:] = np.linalg.cholesky(own - lower.T @ lower)
        self._factor = factor
        self._covariance = np.concatenate([self._covariance, new], axis=1)
        padded = np.full((m, len(self.offsets) - 1), len(self.slot))
        for number, row in enumerate(genes):
            padded[number, : len(row)] = row
        self._padded = np.concatenate([self._padded, padded])
        self._squares += [max(float((self.weight[row] ** 2).sum()), 1e-12) for row in genes]
        self._gains += gains

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw effects of all candidates from the posterior, in units of ``scale``. Shapes: returns (count, D)."""
        slot, candidate, name = self.deviations
        effects = slot * rng.standard_normal((len(self.offsets) - 1, count))[self.slot]
        effects += candidate * rng.standard_normal((len(self.slot), count))
        if name:
            effects += name * rng.standard_normal((self._names, count))[self.name]
        effects *= self.weight[:, None]
        if len(self):
            seen = np.array(self._gains)[:, None] / self.scale
            drawn = np.vstack([effects, np.zeros(count)])[self._padded].sum(1)
            error = seen - drawn - self.noise * rng.standard_normal(drawn.shape)
            effects += self._covariance @ cho_solve((self._factor, True), error)
        return effects.T

    def _flat(self, row: Choice) -> NDArray[np.int64]:
        return np.array([self.offsets[slot] + gene - 1 for slot, gene in enumerate(row) if gene], dtype=np.int64)

    def _covariances(self, genes: NDArray[np.int64]) -> Floats:
        """Prior covariance of every candidate's effect with the sum of these. Shapes: returns (D,)."""
        slot, candidate, name = self.deviations
        weight = self.weight[genes]
        found = np.zeros(len(self.slot))
        found += slot**2 * np.bincount(self.slot[genes], weight, len(self.offsets) - 1)[self.slot]
        found[genes] += candidate**2 * weight
        if name:
            found += name**2 * np.bincount(self.name[genes], weight, self._names)[self.name]
        found *= self.weight
        return found
