"""What an attack is after: another class than the true one, or one class in particular."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """The criterion of each example.

    Shapes:
        labels: (n,) int64 on the CPU: the true class to leave, or with ``targeted`` the class to reach.
    """

    labels: Tensor
    targeted: bool = False

    def met(self, predicted: Tensor, owner: Tensor) -> Tensor:
        """Which predictions are adversarial. Shapes: predicted, owner (m,) int64; returns (m,) bool."""
        same = predicted == self.labels[owner]
        return same if self.targeted else ~same

    def take(self, rows: Tensor) -> Goal:
        """The goal of these examples."""
        return Goal(self.labels[rows], self.targeted)
