"""What a stream of gradient estimates becomes: steps with momentum (SPSA-GC) or Adam's."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Adam", "Descent", "GradientCorrection"]


class Descent(ABC):
    """Turns estimates into steps. It has a memory: one object a run."""

    @abstractmethod
    def step(self, weights: Tensor, estimate: Tensor, rate: float) -> Tensor:
        """The weights after a step of size ``rate``. Shapes: all (dim,)."""

    @abstractmethod
    def forget(self) -> None:
        """Drop the memory, as after a jump to other weights."""


class GradientCorrection(Descent):
    """SPSA-GC: Nesterov's momentum on SPSA's estimates (BlackVIP, section 3.3, equations 4 and 5).

    In look-ahead variables, as the authors' code has it: m <- beta m + g (m = g at first), w <- w - a (g + beta m),
    which is Nesterov SGD with a rate that changes. Its steps are about 1 / (1 - beta) times as long as plain SPSA's,
    which is ``momentum`` 0.
    """

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._velocity: Tensor | None = None

    def step(self, weights: Tensor, estimate: Tensor, rate: float) -> Tensor:
        kept = self._velocity
        self._velocity = estimate.clone() if kept is None else self.momentum * kept + estimate
        return weights - rate * (estimate + self.momentum * self._velocity)

    def forget(self) -> None:
        self._velocity = None


class Adam(Descent):
    """Adam (Kingma & Ba 2015, algorithm 1) on estimates."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.99, eps: float = 1e-8) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._count = 0

    def step(self, weights: Tensor, estimate: Tensor, rate: float) -> Tensor:
        self._count += 1
        first = torch.zeros_like(estimate) if self._first is None else self._first
        second = torch.zeros_like(estimate) if self._second is None else self._second
        self._first = self.beta1 * first + (1 - self.beta1) * estimate
        self._second = self.beta2 * second + (1 - self.beta2) * estimate.square()
        mean = self._first / (1 - self.beta1**self._count)
        spread = self._second / (1 - self.beta2**self._count)
        return weights - rate * mean / (spread.sqrt() + self.eps)

    def forget(self) -> None:
        self._first = self._second = None
        self._count = 0
