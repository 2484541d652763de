"""The attack contract: a generator over a group of examples that yields rows to be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import ClassVar, Literal, TypeAlias

from bbox.problem import Answer, Ask, Problem, Rows

__all__ = ["Answer", "Ask", "Attack", "Problem", "Rows", "Run"]

Run: TypeAlias = Generator[Ask, Answer, None]


class Attack(ABC):
    """An algorithm that searches adversarial examples through an oracle.

    Subclasses are dataclasses whose fields are the attack's options; the command line reads them from there.

    Attributes:
        access: what the attack needs to see: ``"label"`` (top-1), ``"scores"``, or ``"none"``.
        norms: the distances it can minimise.
    """

    access: ClassVar[Literal["none", "label", "scores"]] = "label"
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    summary: ClassVar[str] = ""

    def radius(self, problem: Problem) -> float | None:
        """The distance from the originals within which every row must lie; ``None`` for an attack that minimises it."""
        del problem
        return None

    @abstractmethod
    def run(self, problem: Problem) -> Run:
        """Search, yielding ``Ask(rows, owner)`` and receiving an ``Answer`` for each.

        The engine counts, holds the budget and keeps the closest adversarial row, so there is nothing to return. An
        example whose rows come back unanswered has spent its budget: ask nothing more for it. Returning ends the
        search of every example left.
        """
