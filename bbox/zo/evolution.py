"""CMA-ES behind ask and tell: an evolution strategy to compare estimates of gradients with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.errors import UsageError
from bbox.zo.random import fold, gaussian, root_keys

__all__ = ["Evolution"]

# From here on the covariance is diagonal, whose learning rates are (dim + 2) / 3 times as large: a full matrix has
# dim^2 / 2 entries to learn and costs dim^3 to decompose, and no budget of queries pays for that.
_DIAGONAL = 100


class Evolution:
    """CMA-ES (Hansen, "The CMA evolution strategy: a tutorial", 2016) by the package ``cma``.

    From 100 dimensions on the covariance is diagonal (sep-CMA-ES, Ros & Hansen, PPSN 2008). Draws are those of
    ``bbox.zo.random``, so that the same seed and the same values told give the same asks, and no global random state is
    touched. Nothing is printed or written, and there is no stopping rule: the caller's budget is one.

    Args:
        start: (dim,) mean of the first population; its device and dtype are those of the asks.
        deviation: standard deviation of the first population a coordinate, above 0.
        population: points a generation, at least 4.
        seed: of the draws.

    Queries: ``population`` evaluations of the function a generation.

    Raises:
        UsageError: the package ``cma`` is not installed.
    """

    def __init__(self, start: Tensor, deviation: float, population: int, seed: int) -> None:
        if population < 4:
            raise ValueError(f"a population of {population}, expected at least 4")
        if not 0 < deviation < float("inf"):
            raise ValueError(f"the deviation is {deviation:g}, expected a number above 0")
        try:
            import cma
        except ImportError as error:
            raise UsageError("cma-es needs the package cma: pip install 'bbox-toolkit[cma]'") from error
        self._like = start
        self._seed = seed
        self._draws = 0
        self._asked: list[NDArray[np.float64]] | None = None
        options = {
            "popsize": population,
            # The tutorial's. From 300 dimensions on the package takes another, which draws from numpy's global state
            # and gains little within a budget (an ellipsoid of 1408 dimensions, 50 generations of 16: .66 of the first
            # value is left against .67).
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "CMA_diagonal": len(start) >= _DIAGONAL,
            "CMA_mirrors": 0,
            "randn": self._normal,
            "verbose": -9,
            "verb_log": 0,
        }
        self._strategy: Any = cma.CMAEvolutionStrategy(start.detach().cpu().double().numpy(), deviation, options)

    @property
    def mean(self) -> Tensor:
        """The centre of the population, CMA-ES's estimate of the optimum: (dim,)."""
        return self._tensor(self._strategy.mean)

    def ask(self) -> Tensor:
        """The next generation's points: (population, dim). Each generation is asked once and told once."""
        if self._asked is not None:
            raise ValueError("the last generation was not told")
        self._asked = self._strategy.ask()
        return self._tensor(np.stack(self._asked))

    def tell(self, values: Tensor) -> None:
        """The function's values at the points of the last ``ask``; smaller is better, NaN is worst.

        Shapes:
            values: (population,), in the order of the points.
        """
        if self._asked is None or values.shape != (len(self._asked),):
            asked = 0 if self._asked is None else len(self._asked)
            raise ValueError(f"values of shape {tuple(values.shape)} told, and {asked} points were asked")
        # The method looks at the order only. Ranks are finite whatever the values are, which the package insists on.
        _, ranks = torch.unique(values.detach().cpu().double().nan_to_num(nan=float("inf")), return_inverse=True)
        self._strategy.tell(self._asked, ranks.tolist())
        self._asked = None

    def _normal(self, count: int, size: int) -> NDArray[np.float64]:
        keys = fold(root_keys(self._seed, torch.tensor([self._draws])), torch.arange(count))
        self._draws += 1
        drawn: NDArray[np.float64] = gaussian(keys, size).double().numpy()
        return drawn

    def _tensor(self, values: NDArray[np.float64]) -> Tensor:
        # A copy, also where nothing is converted: the arrays are the package's own.
        return torch.tensor(values).to(self._like.device, self._like.dtype)
