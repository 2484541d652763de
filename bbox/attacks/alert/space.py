"""What a renaming search walks in: the identifiers of one program and the new names each may take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from bbox.code.bindings import Binding, decoded, encoded
from bbox.code.program import Program

__all__ = [
    "Choice",
    "Mask",
    "Renamable",
    "Reply",
    "Row",
    "Search",
    "Searcher",
    "Slot",
    "Space",
    "best_of",
    "changed",
    "with_gene",
]

Choice: TypeAlias = tuple[int, ...]
"""A chromosome: for each slot 0 where it keeps its name, or k for the k-th of its candidates."""

UNKNOWN = "<unk>"  # what a masked token becomes, as in the released code


class Renamable(Protocol):
    """What a search needs of a ``bbox.code.site.Site``."""

    @property
    def program(self) -> Program: ...
    @property
    def bindings(self) -> tuple[Binding, ...]: ...
    def render(self, renames: Mapping[int, str]) -> Program: ...


@dataclass(frozen=True)
class Mask:
    """The original with one occurrence of a slot's name replaced by ``<unk>``, or all of them (``occurrence`` None)."""

    slot: int
    occurrence: int | None = None


Row: TypeAlias = Choice | Mask


@dataclass(frozen=True)
class Reply:
    """The target's answer to one row.

    Attributes:
        value: the objective (``bbox.attacks.alert.objective``), lower is nearer to success; inf where refused.
    """

    adversarial: bool
    value: float


_T = TypeVar("_T")
Search: TypeAlias = Generator[Sequence[Row], list[Reply], _T]
"""Yields rows to be asked, choices or masks but not both at once, and is sent one reply for each.

It is closed when the budget is spent, so that a search never sees a row without an answer. Asking a row again is free
(the driver remembers), but a search that only does that is closed as well.
"""


@dataclass(frozen=True)
class Slot:
    """One identifier of the search: a name, as in the paper, and so all variables that are called so.

    Attributes:
        bindings: their numbers in the site; they take new names together.
        occurrences: byte spans of their tokens, ascending.
        candidates: new names, best first.
    """

    name: str
    bindings: tuple[int, ...]
    occurrences: tuple[tuple[int, int], ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """The search space of one program: every slot keeps its name or takes one of its candidates."""

    site: Renamable
    slots: tuple[Slot, ...]
    max_renames: int = 0  # 0 = any number

    @classmethod
    def of(cls, site: Renamable, candidates: Sequence[Sequence[str]], *, limit: int = 0, max_renames: int = 0) -> Space:
        """A space from the candidates of each binding, best first. Those of bindings of one name are taken in turns.

        Args:
            limit: most candidates a slot, 0 for all. Slots without candidates are left out.
            max_renames: most slots that a choice may change, 0 for all.
        """
        groups: dict[str, list[int]] = {}
        for number, binding in enumerate(site.bindings):
            groups.setdefault(binding.name, []).append(number)
        slots = []
        for name, group in groups.items():
            turns = chain.from_iterable(zip_longest(*(candidates[number] for number in group)))
            names = [new for new in dict.fromkeys(turns) if new is not None and new != name]
            spans = sorted(span for number in group for span in site.bindings[number].spans)
            if names:
                slots.append(Slot(name, tuple(group), tuple(spans), tuple(names[: limit or None])))
        return cls(site, tuple(slots), max_renames)

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def identity(self) -> Choice:
        """Every slot keeps its name."""
        return (0,) * len(self)

    def renames(self, choice: Choice) -> dict[int, str]:
        """The new name of each slot that changes, by its number."""
        return {slot: self.slots[slot].candidates[gene - 1] for slot, gene in enumerate(choice) if gene}

    def allows(self, choice: Choice) -> bool:
        """Whether no two slots get the same new name, and no more than ``max_renames`` change."""
        new = list(self.renames(choice).values())
        return len(new) <= (self.max_renames or len(self)) and len(set(new)) == len(new)

    def render(self, row: Row) -> Program | None:
        """The program of a row; ``None`` for a choice that is not allowed."""
        if isinstance(row, Mask):
            return self._masked(row)
        if not self.allows(row):
            return None
        renames = self.renames(row).items()
        return self.site.render({number: new for slot, new in renames for number in self.slots[slot].bindings})

    def _masked(self, mask: Mask) -> Program:
        source = encoded(self.site.program.code)
        spans = self.slots[mask.slot].occurrences
        for start, end in reversed(spans if mask.occurrence is None else spans[mask.occurrence : mask.occurrence + 1]):
            source = source[:start] + UNKNOWN.encode() + source[end:]
        original = self.site.program
        return Program(decoded(source), original.language, original.partner)


def with_gene(choice: Choice, slot: int, gene: int) -> Choice:
    """The choice with one slot set to another candidate."""
    return (*choice[:slot], gene, *choice[slot + 1 :])


def changed(choice: Choice) -> list[int]:
    """The slots that do not keep their names."""
    return [slot for slot, gene in enumerate(choice) if gene]


def best_of(replies: Sequence[Reply]) -> int:
    """The reply that ends the search if there is one, else the one with the lowest value (the first of equals)."""
    return min(range(len(replies)), key=lambda number: (not replies[number].adversarial, replies[number].value))


class Searcher(ABC):
    """A way to search a space. Subclasses are dataclasses; their fields are its options."""

    @abstractmethod
    def run(self, space: Space, rng: np.random.Generator) -> Search[Choice | None]:
        """Yield rows until one is adversarial, and return it; ``None`` where the search ends without one."""
