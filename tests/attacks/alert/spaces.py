"""A small space and a target without an engine, for tests of single searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bbox.attacks.alert.space import Choice, Mask, Reply, Row, Search, Space
from bbox.code.program import Program
from bbox.code.site import site_of

CODE = "def area(width, height):\n    total = width * height\n    if total:\n        total += width\n    return total\n"
NAMES = ["alpha", "beta", "gamma", "delta", "omega"]
ASKS = 2000


def space(max_renames: int = 0) -> Space:
    site = site_of(Program(CODE, "python"))
    return Space.of(site, [NAMES] * len(site.bindings), max_renames=max_renames)


class Victim:
    """Answers rows by a function of the choice; keeps what it was asked."""

    def __init__(self, space: Space, value: Callable[[Choice], float], below: float = 0.0) -> None:
        self.space, self.value, self.below = space, value, below
        self.asked: list[Row] = []

    def answer(self, row: Row) -> Reply:
        self.asked.append(row)
        if isinstance(row, Mask):
            return Reply(adversarial=False, value=self.value(self.space.identity) - row.slot)
        assert self.space.render(row) is not None, "a search asks programs only"
        return Reply(adversarial=self.value(row) < self.below, value=self.value(row))

    def run(self, search: Search[Choice | None]) -> Choice | None:
        replies: list[Reply] | None = None
        try:
            while True:
                rows: Sequence[Row] = next(search) if replies is None else search.send(replies)
                assert rows and len({isinstance(row, Mask) for row in rows}) == 1
                replies = [self.answer(row) for row in rows]
                assert len(self.asked) < ASKS
        except StopIteration as end:
            found: Choice | None = end.value
            return found
