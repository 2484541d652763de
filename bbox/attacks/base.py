"""The attack contract: a generator over a group of examples that yields rows to be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import ClassVar, Literal, TypeAlias

import torch

from bbox.problem import Answer, Ask, Pool, Problem, Rows
from bbox.targets.base import Takes

__all__ = ["Answer", "Ask", "Attack", "Problem", "Rows", "Run"]

Run: TypeAlias = Generator[Ask, Answer, None]


class Attack(ABC):
    """An algorithm that searches adversarial examples through an oracle.

    Subclasses are dataclasses whose fields are the attack's options; the command line reads them from there.

    Attributes:
        takes: what it attacks: images, code, or motion.
        motions: the distances, of ``norms``, in which an attack on images attacks motions as well: it takes rows of any
            shape, and moves them by the domain alone.
        access: what the attack needs to see: ``"label"`` (top-1), ``"scores"``, or ``"none"``.
        norms: the distances it can minimise.
    """

    takes: ClassVar[Takes] = "images"
    motions: ClassVar[tuple[str, ...]] = ()
    access: ClassVar[Literal["none", "label", "scores"]] = "label"
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    summary: ClassVar[str] = ""

    def norms_on(self, kind: Takes) -> tuple[str, ...]:
        """The distances that it can minimise for inputs of this kind; none where it does not attack them."""
        if kind == self.takes:
            return self.norms
        return self.motions if kind == "motion" else ()

    def radius(self, problem: Problem) -> float | None:
        """The distance from the originals within which every row must lie; ``None`` for an attack that minimises it."""
        del problem
        return None

    def ready(self, pool: Pool | None, device: torch.device) -> None:
        """Load what the attack needs beside the target: once, before anything is asked, so that an error is free."""
        del pool, device

    @abstractmethod
    def run(self, problem: Problem) -> Run:
        """Search, yielding ``Ask(rows, owner)`` and receiving an ``Answer`` for each.

        The engine counts, holds the budget and keeps the closest adversarial row, so there is nothing to return. An
        example whose rows come back unanswered has spent its budget: ask nothing more for it. Returning ends the
        search of every example left.
        """
